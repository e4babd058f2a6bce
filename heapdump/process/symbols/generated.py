"""Generated code: executable memory outside of modules, and the language runtime that made it.

derived: the code around the address refers to the runtime's module. guess: the reservation lies within 2 GiB of the
runtime's module, the reach of a 32-bit displacement (.NET and V8 on x64; 0.55 GiB in Electron on 26200), or the
runtime is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.images import Image
from heapdump.spans import Span
from heapdump.trust import Trust

_EXECUTABLE = 0xF0  # PAGE_EXECUTE… (winnt.h)
_REACH = 1 << 31
_AROUND = 1 << 16
"""Bytes of aligned code around an address in which references to the runtime are counted."""

_FEWEST_POINTERS, _FEWEST_CALLS, _ABOVE_NOISE = 2, 8, 4
"""References from which on a runtime counts as found.

Two 64-bit addresses do not occur by chance. 32-bit displacements do, the more often the larger the module is: there
must be 8, and 4 times the number that random displacements would hit.
"""

_RUNTIMES = (
    (".NET", r"(core)?clr\.dll|mscor(wks|svr)\.dll"),
    ("Mono", r"(lib)?mono(sgen)?(-2\.0)?(-sgen|-bdwgc|-boehm)?\.dll"),
    ("Java", r"jvm\.dll|j9(vm|jit)\d+\.dll"),
    ("V8", r"v8\.dll|(lib)?node\.(exe|dll)|(chrome|msedge|libcef)\.dll|electron\.exe"),
    ("JavaScript", r"chakra(core)?\.dll|jscript9\.dll|xul\.dll|javascriptcore\.dll"),
)
"""Runtimes by the names of their modules."""

_EXPORTS = {
    "DotNetRuntimeInfo": ".NET",
    "mono_jit_init": "Mono",
    "JNI_CreateJavaVM": "Java",
    "napi_module_register": "V8",
}
"""Runtimes by a function that the program itself exports, where it was linked into it."""


@dataclass(frozen=True, slots=True)
class CodeOrigin:
    """The origin of code in no module, for a person."""

    note: str
    trust: Trust


class GeneratedCode:
    """Classifies executable memory of one process that belongs to no module."""

    def __init__(self, process: Process, image: Callable[[Module], Image | None]) -> None:
        """Reads nothing yet."""
        self._process, self._image = process, image
        self._referred = cache(self._references)

    def at(self, address: int) -> CodeOrigin | None:
        """The origin of the code at an address; None where the memory is not committed, or not executable."""
        regions = self._process.regions
        i = regions.index_at(address)
        if i is None or regions.state[i] != State.MEM_COMMIT or not int(regions.protect[i]) & _EXECUTABLE:
            return None
        if regions.type[i] == Kind.MEM_IMAGE:
            return CodeOrigin("image that is not in the module list", Trust.EXACT)
        own = Span(int(regions.start[i]), int(regions.end[i]))
        start = max(own.start, address & -_AROUND)
        for kind, module in self._runtimes:
            if self._referred(Span(start, min(own.end, (address & -_AROUND) + _AROUND)), module.span):
                return CodeOrigin(f"{kind} code: it refers to {module.name}", Trust.DERIVED)
        return self._guess(regions.allocation(address) or own)

    def _guess(self, reservation: Span) -> CodeOrigin:
        near = [(kind, module) for kind, module in self._runtimes if self._is_near(reservation, module.span)]
        likely = near or self._runtimes
        if not likely:
            return CodeOrigin("generated code", Trust.GUESS)
        likely_words = " or ".join(dict.fromkeys(kind for kind, _ in likely))
        names = " or ".join(dict.fromkeys(module.name for _, module in likely))
        why = f" within 2 GiB of {names}" if near else f", and {names} is loaded"
        return CodeOrigin(f"perhaps {likely_words} code: executable memory{why}", Trust.GUESS)

    def _is_near(self, reservation: Span, module: Span) -> bool:
        """True within 2 GiB of the module, on x64; with 32-bit addresses the distance says nothing."""
        return (
            self._is_wide(module) and max(reservation.end, module.end) - min(reservation.start, module.start) <= _REACH
        )

    def _is_wide(self, span: Span) -> bool:
        return self._process.arch == "x64" or span.start >> 32 > 0

    @cached_property
    def _runtimes(self) -> list[tuple[str, Module]]:
        """(language, its runtime's module), of those that are loaded."""
        modules = self._process.modules
        named = [
            (kind, m) for m in modules for kind, pattern in _RUNTIMES if re.fullmatch(pattern, m.name, re.IGNORECASE)
        ]
        program = next((m for m in modules if m.name.lower().endswith(".exe")), None)
        image = self._image(program) if program and all(m is not program for _, m in named) else None
        inside = dict.fromkeys(_EXPORTS[name] for name in image.exports.names if name in _EXPORTS) if image else ()
        return named + [(kind, program) for kind in inside if program]

    def _references(self, code: Span, module: Span) -> bool:
        """True when the code holds enough addresses (x64) or call targets (x86) inside the module."""
        words, _ = self._process.space.mapped.words64(Span(code.start & ~7, -(-code.end // 8) * 8))
        data = words.tobytes()
        if self._is_wide(module):
            return _pointers_into(data, module) >= _FEWEST_POINTERS
        hits, calls = _calls_into(data, code.start & ~7, module)
        return hits >= max(_FEWEST_CALLS, _ABOVE_NOISE * calls * module.size >> 32)


def _pointers_into(data: bytes, module: Span) -> int:
    """64-bit addresses of the module in the bytes, at any offset: operands of instructions are not aligned."""
    count = 0
    for phase in range(8):
        words = np.frombuffer(data, "<u8", (len(data) - phase) // 8, phase)
        count += int(((words >= np.uint64(module.start)) & (words < np.uint64(module.end))).sum())
    return count


def _calls_into(data: bytes, base: int, module: Span) -> tuple[int, int]:
    """(32-bit calls and jumps that lead into the module, all that may be some) in the bytes, which lie at `base`."""
    raw = np.frombuffer(data, np.uint8)
    at = np.flatnonzero((raw[:-4] == 0xE8) | (raw[:-4] == 0xE9)) if len(raw) > 4 else np.empty(0, np.int64)
    displacement = sum((raw[at + 1 + i].astype(np.int64) << 8 * i for i in range(4)), np.zeros(len(at), np.int64))
    target = (base + at + 5 + displacement) & 0xFFFFFFFF
    return int(((target >= module.start) & (target < module.end)).sum()), len(at)
