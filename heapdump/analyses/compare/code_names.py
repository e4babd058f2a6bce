"""Code addresses that mean the same in every dump: relative to their module, so that rebased modules match.

A module is one build in all dumps where each dump that has its name has the same time stamp and size. An address in
it is (module, offset). Of a module with several builds only names of functions are comparable: (module, function),
which is derived.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TYPE_CHECKING

from heapdump.process.model import Module, Process
from heapdump.trust import Trust

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Frame

Build = tuple[str, int, int]
"""Name in lower case, TimeDateStamp, SizeOfImage."""


def build_of(module: Module) -> Build:
    """The identity of a module's file, equal in every dump that has this build."""
    return module.name.lower(), module.timestamp, module.span.size


class CodeNames:
    """Comparable names of frames for dumps of one comparison."""

    def __init__(self, processes: Sequence[Process], *, is_same_process: bool) -> None:
        """`is_same_process`: True where addresses outside of modules are comparable."""
        self._is_same_process = is_same_process
        present = [{build_of(module) for module in process.modules} for process in processes]
        names = [{name for name, _, _ in builds} for builds in present]
        everywhere = {
            build
            for build in set().union(*present)
            if all(build in builds for builds, known in zip(present, names, strict=True) if build[0] in known)
        }
        self._shared = everywhere

    def has_one_build(self, module: Module) -> bool:
        """True where every dump that has a module of this name has this build of it."""
        return build_of(module) in self._shared

    def name(self, process: Process, frame: Frame) -> tuple[Hashable, Trust]:
        """(the comparable name of a frame, its trust)."""
        module = process.module_map.at(frame.address - 1)
        if module is not None and self.has_one_build(module):
            return (*build_of(module), frame.address - module.span.start), Trust.EXACT
        if frame.module is not None:
            if frame.symbol is None:
                return (frame.module.lower(), "", frame.offset), Trust.DERIVED
            return (frame.module.lower(), frame.symbol, frame.signature or ""), Trust.DERIVED
        if self._is_same_process or not frame.note:
            return ("", frame.address), Trust.EXACT
        return ("", frame.note), Trust.DERIVED

    def names(self, process: Process, frames: Iterable[Frame]) -> tuple[tuple[Hashable, ...], Trust]:
        """(the comparable names of a stack, the lowest trust of them)."""
        found = [self.name(process, frame) for frame in frames]
        is_exact = all(trust is Trust.EXACT for _, trust in found)
        return tuple(name for name, _ in found), Trust.EXACT if is_exact else Trust.DERIVED
