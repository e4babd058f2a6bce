"""One heap in depth: runs, size classes, LFH buckets, and Windows' counts beside the walk's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Check, CheckKind, HeapCount, Walk


@dataclass(frozen=True, slots=True)
class SegmentDetail:
    """One segment of a heap.

    Attributes:
        address: of the segment's structure.
        start: first address of its reservation.
        end: address behind its reservation.
        committed_bytes: committed bytes.
        runs: number of committed runs: the parts between its uncommitted ranges.
        uncommitted_ranges: number of uncommitted ranges that the heap lists.
        largest_uncommitted_bytes: bytes of the largest of them.
    """

    address: int
    start: int
    end: int
    committed_bytes: int
    runs: int
    uncommitted_ranges: int
    largest_uncommitted_bytes: int


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Blocks whose size in bytes lies in [low, high): the requested size of busy, the occupied size of free blocks."""

    low: int
    high: int
    busy_blocks: int
    busy_bytes: int
    free_blocks: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class FreeClass:
    """Entries of the heap's free lists whose occupied bytes lie in [low, high).

    `bytes`, `smallest`, `largest`: occupied bytes, of all, of the smallest and of the largest entry.
    """

    low: int
    high: int
    blocks: int
    bytes: int
    smallest: int
    largest: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """LFH blocks that occupy `entry_size` bytes each, in all subsegments; `occupancy` = busy / (busy + free)."""

    entry_size: int
    subsegments: int
    busy: int
    free: int
    occupancy: float


@dataclass(frozen=True, slots=True)
class ContextDetail:
    """The page segments of a segment heap whose page ranges count in one unit.

    Attributes:
        unit_bytes: the unit.
        segments: number of page segments.
        reserved_bytes: their reserved bytes.
        committed_bytes: their committed bytes.
        page_blocks: number of blocks made of whole page ranges.
        page_block_bytes: bytes that these occupy.
        free_runs: number of committed runs of pages in free page ranges.
        free_run_bytes: bytes of these runs.
        largest_free_run_bytes: bytes of the largest of them.
    """

    unit_bytes: int
    segments: int
    reserved_bytes: int
    committed_bytes: int
    page_blocks: int
    page_block_bytes: int
    free_runs: int
    free_run_bytes: int
    largest_free_run_bytes: int


@dataclass(frozen=True, slots=True)
class HeapDetail:
    """Everything that `heap` shows of one heap; `contexts` only of segment heaps."""

    segments: tuple[SegmentDetail, ...]
    contexts: tuple[ContextDetail, ...]
    sizes: tuple[SizeClass, ...]
    free_classes: tuple[FreeClass, ...]
    buckets: tuple[Bucket, ...]
    checks: tuple[Check, ...]


def heap_detail(heap: Heap, walk: Walk, lists: FreeLists | None) -> HeapDetail:
    """The detail of one walked heap. The cost grows with the number of blocks of the process."""
    table = walk.table
    rows = (table.heap == heap.index) & ~table.is_internal
    return HeapDetail(
        tuple(_segments(heap)),
        tuple(_contexts(heap, table, rows)),
        tuple(_sizes(table, rows)),
        tuple(_free_classes(lists)) if lists else (),
        tuple(_buckets(table, heap.index, rows)),
        tuple(_checks(heap, walk.counts.get(heap.index), lists)),
    )


def _segments(heap: Heap) -> Iterator[SegmentDetail]:
    for segment in heap.segments:
        sizes = [part.size for part in segment.uncommitted]
        touches_end = bool(segment.uncommitted) and segment.uncommitted[-1].end == segment.span.end
        yield SegmentDetail(
            segment.address, segment.span.start, segment.span.end, segment.committed_bytes,
            len(sizes) + (not touches_end), len(sizes), max(sizes, default=0),
        )  # fmt: skip


def _contexts(heap: Heap, table: BlockTable, rows: NDArray[np.bool_]) -> Iterator[ContextDetail]:
    pages = np.flatnonzero(rows & (table.kind == BlockKind.PAGES))
    entry, size, busy = table.entry[pages], table.entry_size[pages], table.is_busy[pages]
    for unit in sorted({segment.unit_bytes for segment in heap.segments if segment.unit_bytes}):
        segments = [segment for segment in heap.segments if segment.unit_bytes == unit]
        inside = np.zeros(len(pages), bool)
        for segment in segments:
            inside |= (entry >= np.uint64(segment.span.start)) & (entry < np.uint64(segment.span.end))
        free, used = size[inside & ~busy], size[inside & busy]
        yield ContextDetail(
            unit, len(segments), sum(s.span.size for s in segments), sum(s.committed_bytes for s in segments),
            len(used), int(used.sum()), len(free), int(free.sum()), int(free.max(initial=0)),
        )  # fmt: skip


def _sizes(table: BlockTable, rows: NDArray[np.bool_]) -> Iterator[SizeClass]:
    """A class for each power of two that has blocks; [0, 1) for requests of no byte."""
    busy, free = rows & table.is_busy, rows & ~table.is_busy
    columns = [_by_power(table.size[busy]), _by_power(table.entry_size[free])]
    for power in sorted(columns[0].keys() | columns[1].keys()):
        low, high = (1 << power - 1, 1 << power) if power else (0, 1)
        yield SizeClass(low, high, *columns[0].get(power, (0, 0)), *columns[1].get(power, (0, 0)))


def _free_classes(lists: FreeLists) -> Iterator[FreeClass]:
    powers = np.frexp(lists.size.astype(np.float64))[1]
    for power in np.unique(powers).tolist():
        sizes = lists.size[powers == power]
        low, high = (1 << power - 1, 1 << power) if power else (0, 1)
        yield FreeClass(low, high, len(sizes), int(sizes.sum()), int(sizes.min()), int(sizes.max()))


def _by_power(sizes: NDArray[np.uint64]) -> dict[int, tuple[int, int]]:
    """Bit length → (blocks, bytes)."""
    powers = np.frexp(sizes.astype(np.float64))[1]
    counts = np.bincount(powers)
    totals = np.zeros(len(counts), np.uint64)
    np.add.at(totals, powers, sizes)
    return {i: (int(n), int(total)) for i, (n, total) in enumerate(zip(counts, totals, strict=True)) if n}


def _buckets(table: BlockTable, heap: int, rows: NDArray[np.bool_]) -> Iterator[Bucket]:
    lfh = rows & (table.kind == BlockKind.LFH)
    sizes, inverse = np.unique(table.entry_size[lfh], return_inverse=True)
    busy = np.bincount(inverse[table.is_busy[lfh]], minlength=len(sizes))
    total = np.bincount(inverse, minlength=len(sizes))
    user_blocks = table.entry[(table.heap == heap) & table.is_internal]
    # LFH blocks of one subsegment lie in the same user blocks
    owner = np.searchsorted(user_blocks, table.entry[lfh], side="right")
    pairs = np.unique(inverse.astype(np.int64) * (len(user_blocks) + 1) + owner)
    subsegments = np.bincount(pairs // (len(user_blocks) + 1), minlength=len(sizes))
    columns = (sizes, subsegments, busy, total)
    for size, count, used, blocks in zip(*(column.tolist() for column in columns), strict=True):
        yield Bucket(size, count, used, blocks - used, used / blocks)


def _checks(heap: Heap, count: HeapCount | None, lists: FreeLists | None) -> Iterator[Check]:
    if count is None:
        return
    yield from count.checks
    # before Vista a free block of the walk is a run of free blocks and blocks on lookaside lists, as in RtlWalkHeap
    if lists is not None and heap.front_end != "lookaside" and not heap.lookaside_bytes:
        yield Check(CheckKind.FREE_ENTRIES, len(lists.size), count.free_blocks)
    if heap.large_blocks is not None:
        large = (BlockKind.VIRTUAL, BlockKind.LARGE)
        rows = sum(kind.busy_blocks for kind in (*count.kinds, *count.internal) if kind.kind in large)
        yield Check(CheckKind.LARGE_BLOCKS, len(heap.large_blocks), rows)
