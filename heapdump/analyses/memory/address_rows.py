"""The address space as rows of cells: which class of memory lies where, and the free runs between.

A 32-bit address space is cut into rows of equal size. A 64-bit one is almost empty: a row is a neighbourhood of
allocations, and wide free runs between rows are left out and said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.coverage import Coverage
from heapdump.analyses.memory.memory_classes import MemoryClass, classes_of
from heapdump.analyses.memory.usage import UsageMap
from heapdump.memory.regions import State
from heapdump.spans import Span

CELLS = 600
_MOST_ROWS = 14
_FIRST_GAP = 1 << 28
_SMALL = 1 << 32
_NARROW_ROW = 1 << 28
"""Bytes of a row of a 32-bit address space."""


@dataclass(frozen=True, slots=True)
class CellRun:
    """Neighbouring cells of a row with one class.

    Attributes:
        first: index of the first cell in its row.
        count: number of cells.
        kind: class of most of their bytes.
        is_reserved: True where most of their bytes are reserved and not committed.
    """

    first: int
    count: int
    kind: MemoryClass
    is_reserved: bool


@dataclass(frozen=True, slots=True)
class AddressRow:
    """A row of `CELLS` cells of equal size.

    Attributes:
        span: its addresses.
        runs: its cells, ascending.
        gap_bytes: free bytes between the row before and this one; no row shows them.
    """

    span: Span
    runs: tuple[CellRun, ...]
    gap_bytes: int


def address_rows(usage: UsageMap) -> tuple[AddressRow, ...]:
    """The rows, ascending; none where nothing is known of the memory."""
    table = usage.table
    used = table.state != State.MEM_FREE
    if not used.any():
        return ()
    painter = _Painter(usage)
    out: list[AddressRow] = []
    for span in _spans(table.start[used], table.end[used], narrow=painter.is_narrow):
        gap = span.start - out[-1].span.end if out else 0
        out.append(AddressRow(span, tuple(painter.runs(span)), gap))
    return tuple(out)


def _spans(start: NDArray[np.uint64], end: NDArray[np.uint64], *, narrow: bool) -> Iterator[Span]:
    """The spans of the rows: equal ones below 4 GB of a 32-bit process, and neighbourhoods."""
    if narrow:
        low = start < _SMALL
        top = -(-int(min(int(end[low].max()) if low.any() else 0, _SMALL)) // _NARROW_ROW)
        yield from (Span(i * _NARROW_ROW, (i + 1) * _NARROW_ROW) for i in range(top))
        start, end = start[~low], end[~low]
    if not len(start):
        return
    gap = _FIRST_GAP
    while True:
        breaks = np.flatnonzero(start[1:] - end[:-1] >= np.uint64(gap)) + 1
        if len(breaks) < _MOST_ROWS or gap >= 1 << 60:
            break
        gap *= 2
    firsts = [0, *breaks.tolist()]
    lasts = [*(one - 1 for one in breaks.tolist()), len(start) - 1]
    yield from (Span(int(start[a]), int(end[b])) for a, b in zip(firsts, lasts, strict=True))


class _Painter:
    """Finds the class that has most bytes in each cell; what is used goes before what is free."""

    def __init__(self, usage: UsageMap) -> None:
        table, classes = usage.table, classes_of(usage)
        self.is_narrow = any(view.arch == "x86" for view in usage.process.views)
        present = sorted(set(classes.tolist()) - {MemoryClass.FREE.number})
        self._classes = [list(MemoryClass)[number] for number in present]
        self._layers = [Coverage(table.start[classes == n], table.size[classes == n]) for n in present]
        reserved = (table.state != State.MEM_COMMIT) & (table.state != State.MEM_FREE)
        self._reserved = Coverage(table.start[reserved], table.size[reserved])

    def runs(self, span: Span) -> Iterator[CellRun]:
        """The cells of a row, those next to each other with one class together."""
        layers = np.array([layer.cells(span, CELLS) for layer in self._layers])
        best = np.where(layers.max(axis=0) > 0, layers.argmax(axis=0), -1)
        reserved = self._reserved.cells(span, CELLS) * 2 > layers.sum(axis=0)
        key = best * 2 + reserved
        firsts = [0, *(np.flatnonzero(key[1:] != key[:-1]) + 1).tolist(), CELLS]
        for first, behind in pairwise(firsts):
            if best[first] >= 0:
                yield CellRun(first, behind - first, self._classes[int(best[first])], bool(reserved[first]))
