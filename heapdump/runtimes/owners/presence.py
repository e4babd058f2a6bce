"""Which programs are in a process, by names of modules, their exports, and texts in them.

Modules of Windows are left out of exports and texts: they contain nobody else's allocator.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np

from heapdump.memory.regions import State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import open_image
from heapdump.runtimes.owners.owner import Program
from heapdump.spans import Span

_EXECUTABLE = 0x10 | 0x20 | 0x40 | 0x80
_PIECE, _MOST_BYTES = 16 << 20, 512 << 20
"""Bytes that are read at once, and of all modules together."""

_LONGEST_TEXT = 64


class Presence:
    """The programs of a process. Exports and texts are read when the names of modules do not decide."""

    def __init__(self, process: Process, programs: Sequence[Program]) -> None:
        """`programs`: those that may be asked for; their texts are searched in one pass."""
        self._process, self._programs = process, programs

    def of(self, program: Program) -> str | None:
        """The evidence for a program, in words: `node.exe is loaded`; None where there is none."""
        named = self._named(program)
        if named is not None:
            return f"{named} is loaded"
        for module, exported in self._exports if program.exports else ():
            for pattern in program.exports:
                found = next((name for name in exported if fnmatchcase(name, pattern)), None)
                if found is not None:
                    return f"{module} exports {found}"
        for text in program.texts:
            if text in self._texts:
                return f"{self._texts[text]} contains {text.decode('latin-1').strip()!r}"
        return None

    def _named(self, program: Program) -> str | None:
        """The first module that has the name of one of the program's."""
        names = (module.name for module in self._process.modules)
        return next((name for name in names if any(fnmatchcase(name.lower(), one) for one in program.modules)), None)

    @cached_property
    def _own(self) -> tuple[Module, ...]:
        """The modules that are not Windows'."""
        return tuple(module for module in self._process.modules if ":\\windows\\" not in module.path.lower())

    @cached_property
    def _exports(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """(module, names of its exports)."""
        images = ((module.name, open_image(self._process.space, module, None)) for module in self._own)
        return tuple((name, image.exports.names) for name, image in images if image is not None)

    @cached_property
    def _texts(self) -> dict[bytes, str]:
        """Text → the first module that contains it."""
        out: dict[bytes, str] = {}
        wanted = {text for program in self._programs if self._named(program) is None for text in program.texts}
        left = _MOST_BYTES if wanted else 0
        for module in self._own if wanted else ():
            for data in self._data(module):
                left -= len(data)
                out |= {text: module.name for text in wanted - set(out) if text in data}
                if left < 0:
                    return out
        return out

    def _data(self, module: Module) -> Iterator[bytes]:
        """The committed parts of a module that hold no code, as far as the dump has them."""
        table, space = self._process.regions, self._process.space
        first = int(np.searchsorted(table.end, np.uint64(module.span.start), side="right"))
        for i in range(first, len(table)):
            part = Span(int(table.start[i]), int(table.end[i])) & module.span
            if part is None:
                return
            if table.state[i] != State.MEM_COMMIT or table.protect[i] & _EXECUTABLE:
                continue
            for piece in range(part.start, part.end, _PIECE):
                data = space.try_read(piece, min(_PIECE + _LONGEST_TEXT, part.end - piece))
                if data is not None:
                    yield data
