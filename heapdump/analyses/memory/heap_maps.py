"""Maps of heaps: how full each piece of a segment is; and how many blocks there are of each size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.coverage import Coverage
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.large_arrays import batches
from heapdump.spans import Span

LEVELS = 8
"""Steps from no busy byte to all bytes busy."""

UNCOMMITTED = -1
_MOST_CELLS, _LEAST_CELL = 200, 0x1000
_MOST_SEGMENTS = 16
_POWERS = 64


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
    largest = sorted(heap.segments, key=lambda segment: -segment.span.size)[:_MOST_SEGMENTS]
    chosen = (one for one in heap.segments if one in largest and one.span.size)
    maps = [_segment(table, heap, one.span, one.uncommitted) for one in chosen]
    return HeapMap(heap, tuple(maps), len(heap.segments) - len(maps), _sizes(table, heap))


def _rows(table: BlockTable, heap: Heap, part: slice) -> NDArray[np.int64]:
    """The rows of a part that are blocks of the heap, not internal; ascending."""
    internal = table.tags[part] & np.uint16(INTERNAL)
    rows: NDArray[np.int64] = part.start + np.flatnonzero((table.heap[part] == heap.index) & (internal == 0))
    return rows


def _busy(table: BlockTable, heap: Heap, span: Span) -> Coverage:
    """The busy blocks of the heap that begin in a span."""
    low, high = np.searchsorted(table.entry, np.array([span.start, span.end], np.uint64)).tolist()
    rows = _rows(table, heap, slice(low, high))
    return Coverage(*_disjoint(table, rows[(table.tags[rows] & np.uint16(BUSY)) > 0]))


def _disjoint(table: BlockTable, rows: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(start, size) of the rows; of damaged heaps, where blocks overlap, each is cut at the next."""
    start, size = table.entry[rows], table.entry_sizes(rows)
    if len(rows):
        room = np.append(start[1:] - start[:-1], np.uint64(1 << 62))
        size = np.minimum(size, room)
    return start, size


def _segment(table: BlockTable, heap: Heap, span: Span, uncommitted: tuple[Span, ...]) -> SegmentMap:
    cell = _LEAST_CELL
    while span.size > cell * _MOST_CELLS:
        cell *= 2
    count = -(-span.size // cell)
    covered = Span(span.start, span.start + count * cell)
    given = sorted(uncommitted)
    gone = Coverage(
        np.array([one.start for one in given], np.uint64), np.array([one.size for one in given], np.uint64)
    ).cells(covered, count)
    filled = _busy(table, heap, covered).cells(covered, count)
    levels = np.ceil(filled * LEVELS / np.maximum(1, cell - gone)).astype(np.int64).clip(0, LEVELS)
    return SegmentMap(span, cell, tuple(np.where(gone * 2 > cell, UNCOMMITTED, levels).tolist()))


def _sizes(table: BlockTable, heap: Heap) -> tuple[SizeBin, ...]:
    """The sizes in powers of two that have blocks, and those between them."""
    counts, totals = np.zeros(2 * _POWERS, np.int64), np.zeros(2 * _POWERS, np.int64)
    for part in batches(len(table)):
        rows = _rows(table, heap, part)
        is_busy = (table.tags[rows] & np.uint16(BUSY)) > 0
        sizes = np.where(is_busy, table.sizes(rows), table.entry_sizes(rows)).astype(np.int64)
        power = np.zeros(len(sizes), np.int64)
        power[sizes > 0] = np.floor(np.log2(sizes[sizes > 0])).astype(np.int64)
        place = 2 * power + is_busy
        counts += np.bincount(place, minlength=2 * _POWERS)
        np.add.at(totals, place, sizes)
    used = np.flatnonzero(counts.reshape(-1, 2).any(axis=1)).tolist()
    out = []
    for exponent in range(used[0], used[-1] + 1) if used else ():
        (free, busy), (free_bytes, busy_bytes) = (one.reshape(-1, 2)[exponent].tolist() for one in (counts, totals))
        out.append(SizeBin(0 if exponent == 0 else 1 << exponent, busy, busy_bytes, free, free_bytes))
    return tuple(out)
