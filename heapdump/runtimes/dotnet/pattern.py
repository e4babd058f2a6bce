"""Jitted methods without any table of the runtime: by the pattern that code and its header make.

Every 8th byte (x64) or 4th byte (x86) of committed executable memory that is no image may begin a method. On x64 the
word before points to a code header whose first RUNTIME_FUNCTION (b, e) gives the same base for the method as the
allocation has: a - b lies within 0x200 bytes behind AllocationBase. That alone removes nearly all noise. On x86
MethodDesc, GC information, EH and debug information lie before the code. What remains must prove itself as a
MethodDesc. Measured on 2.1 (x86), 3.1 and 10 with their tables hidden; the way into .NET Framework, whose structures
are kin (docs/reference/managed-code.md §6).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.regions import Kind, State
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process
from heapdump.runtimes.dotnet.code_ranges import FoundCode
from heapdump.runtimes.dotnet.jit_code import HeaderLayout
from heapdump.spans import Span

_EXECUTABLE = 0xF0
_FAR, _LONGEST, _MOST_FUNCTIONS = 0x200, 1 << 20, 200
_MOST_BYTES = 1 << 30
"""Bytes of executable memory that are searched; a region that exceeds what is left of them is passed over."""

_TOP = 1 << 47
_NO_CODE = (0x00, 0xCC, 0xE8, 0xE9)
"""First bytes of what is no method: padding, and precode stubs, before which a MethodDesc lies, too."""


def find_code(process: Process, space: AddressSpace, layout: HeaderLayout) -> list[FoundCode]:
    """The methods in executable memory outside of images, by allocation."""
    regions, out, budget = process.regions, list[FoundCode](), _MOST_BYTES
    wanted = (regions.state == State.MEM_COMMIT) & (regions.protect & np.uint32(_EXECUTABLE) > 0)
    wanted &= regions.type != Kind.MEM_IMAGE
    for i in np.flatnonzero(wanted).tolist():
        span, base = Span(int(regions.start[i]), int(regions.end[i])), int(regions.allocation_base[i])
        if span.size > budget:
            continue
        budget -= span.size
        find = _wide if space.pointer_bytes == 8 else _narrow
        starts, bases = find(space, layout, span, base)
        if len(starts):
            out.append(FoundCode(span, tuple(starts.tolist()), tuple(bases.tolist())))
    return out


Columns = tuple[NDArray[np.uint64], NDArray[np.uint64]]


def _words(space: AddressSpace, span: Span, width: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(addresses behind each word, the words) that the dump holds."""
    places, values = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for start, words in space.mapped.words(span, width):
        places.append(np.uint64(start + width) + np.arange(len(words), dtype=np.uint64) * np.uint64(width))
        values.append(words)
    return np.concatenate(places), np.concatenate(values)


def _wide(space: AddressSpace, layout: HeaderLayout, span: Span, allocation: int) -> Columns:
    """x64: (starts, bases)."""
    at, header = _words(space, span, 8)
    keep = (header > 0xFFFF) & (header < _TOP) & (header % np.uint64(8) == 0)
    at, header = at[keep], header[keep]
    count, there = space.mapped.gather(header + np.uint64(layout.count), 4)
    keep = there & (count > 0) & (count <= _MOST_FUNCTIONS)
    at, header = at[keep], header[keep]
    begin, first = space.mapped.gather(header + np.uint64(layout.functions), 4)
    end, second = space.mapped.gather(header + np.uint64(layout.functions + 4), 4)
    base = at - begin
    keep = first & second & (begin < end) & (end - begin <= _LONGEST) & (begin <= at)
    keep &= (base >= np.uint64(allocation)) & (base <= np.uint64(allocation + _FAR))
    return at[keep], base[keep]


def _narrow(space: AddressSpace, layout: HeaderLayout, span: Span, allocation: int) -> Columns:
    """x86: (starts, starts): debug information and EH null or readable, GC information and MethodDesc readable."""
    at, desc = _words(space, span, 4)
    keep = (desc > 0xFFFF) & (desc % np.uint64(4) == 0) & (at >= np.uint64(span.start + 16))
    at = at[keep]
    for back, may_be_null in ((4, False), (8, False), (12, True), (16, True)):
        word, there = space.mapped.gather(at - np.uint64(back), 4)
        readable = space.mapped.gather(word, 1)[1]
        at = at[there & (readable | (may_be_null & (word == 0)))]
    code, there = space.mapped.gather(at, 1)
    at = at[there & ~np.isin(code, _NO_CODE)]
    return at, at
