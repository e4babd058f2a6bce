"""Writable committed memory: its rows of the region table, and windows of what the dump holds of it.

A damaged memory map can say that a region has 2⁵⁰ bytes: only memory in the dump is worth a window.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.mapped import MappedMemory
from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span

_WRITABLE, _GUARD = 0x04 | 0x08 | 0x40 | 0x80, 0x100
"""PAGE_READWRITE, PAGE_WRITECOPY and their executable forms; PAGE_GUARD."""

_WINDOW = 16 << 20
"""Bytes that are read at once."""


def writable_rows(table: RegionTable) -> NDArray[np.intp]:
    """The rows of committed memory that the program can write to, without guard pages."""
    can_write = (table.protect & np.uint32(_WRITABLE) > 0) & (table.protect & np.uint32(_GUARD) == 0)
    return np.flatnonzero((table.state == State.MEM_COMMIT) & can_write)


def windows(memory: MappedMemory, span: Span) -> Iterator[Span]:
    """The parts of the span that the dump holds, ascending, in pieces of at most 16 MiB."""
    for part in memory.present(span):
        for first in range(part.start, part.end, _WINDOW):
            yield Span(first, min(part.end, first + _WINDOW))
