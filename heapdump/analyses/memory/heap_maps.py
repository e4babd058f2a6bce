"""Maps of heaps: how full each piece of a segment is; and how many blocks there are of each size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.coverage import Coverage
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.spans import Span

LEVELS = 8
"""Steps from no busy byte to all bytes busy."""

UNCOMMITTED = -1
_MOST_CELLS, _LEAST_CELL = 200, 0x1000
_MOST_SEGMENTS = 16


@dataclass(frozen=True, slots=True)
class SegmentMap:
    """A segment as cells of equal size.

    Attributes:
        span: the segment.
        cell_bytes: bytes of a cell.
        levels: for each cell its share of busy bytes, 0 (free) to LEVELS (busy); UNCOMMITTED where most of it is not
            committed.
    """

    span: Span
    cell_bytes: int
    levels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SizeBin:
    """The program's blocks with sizes in [low, 2 * low) bytes.

    The size of a busy block is its requested bytes, that of a free block its occupied bytes.
    """

    low: int
    busy_blocks: int
    busy_bytes: int
    free_blocks: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class HeapMap:
    """The picture of one heap.

    Attributes:
        heap: the heap.
        segments: the largest segments, at most 16.
        hidden: number of segments that are left out.
        sizes: its blocks by size.
    """

    heap: Heap
    segments: tuple[SegmentMap, ...]
    hidden: int
    sizes: tuple[SizeBin, ...]


def heap_map(table: BlockTable, heap: Heap) -> HeapMap:
    """The map of one heap that was walked. O(blocks)."""
    rows = np.flatnonzero((table.heap == heap.index) & ~table.is_internal)
    is_busy = table.is_busy[rows]
    busy = Coverage(*_disjoint(table, rows[is_busy]))
    largest = sorted(heap.segments, key=lambda segment: -segment.span.size)[:_MOST_SEGMENTS]
    maps = [_segment(busy, one.span, one.uncommitted) for one in heap.segments if one in largest and one.span.size]
    return HeapMap(heap, tuple(maps), len(heap.segments) - len(maps), _sizes(table, rows, is_busy))


def _disjoint(table: BlockTable, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(start, size) of the rows; of damaged heaps, where blocks overlap, each is cut at the next."""
    start, size = table.entry[rows], table.entry_sizes(rows)
    if len(rows):
        room = np.append(start[1:] - start[:-1], np.uint64(1 << 62))
        size = np.minimum(size, room)
    return start, size


def _segment(busy: Coverage, span: Span, uncommitted: tuple[Span, ...]) -> SegmentMap:
    cell = _LEAST_CELL
    while span.size > cell * _MOST_CELLS:
        cell *= 2
    count = -(-span.size // cell)
    whole = Span(span.start, span.start + count * cell)
    given = sorted(uncommitted)
    gone = Coverage(
        np.array([one.start for one in given], np.uint64), np.array([one.size for one in given], np.uint64)
    ).cells(whole, count)
    filled = busy.cells(whole, count)
    levels = np.ceil(filled * LEVELS / np.maximum(1, cell - gone)).astype(np.int64).clip(0, LEVELS)
    return SegmentMap(span, cell, tuple(np.where(gone * 2 > cell, UNCOMMITTED, levels).tolist()))


def _sizes(table: BlockTable, rows: NDArray[np.int64], is_busy: NDArray[np.bool_]) -> tuple[SizeBin, ...]:
    """The sizes in powers of two that have blocks, and those between them."""
    sizes = np.where(is_busy, table.sizes(rows), table.entry_sizes(rows)).astype(np.int64)
    if not len(sizes):
        return ()
    power = np.zeros(len(sizes), np.int64)
    power[sizes > 0] = np.floor(np.log2(sizes[sizes > 0])).astype(np.int64)
    out = []
    for exponent in range(int(power.min()), int(power.max()) + 1):
        here = power == exponent
        busy, free = sizes[here & is_busy], sizes[here & ~is_busy]
        low = 0 if exponent == 0 else 1 << exponent
        out.append(SizeBin(low, len(busy), int(busy.sum()), len(free), int(free.sum())))
    return tuple(out)
