"""Every block of one segment heap: page ranges, and what lies in its VS and LFH subsegments; and its large blocks.

A subsegment is a row of kind PAGES that the allocator keeps for itself; its chunks or slots lie inside. Free page ranges
are rows as far as they are committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Extent, ExtentKind, Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import BlockTable, doubt, tag
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.segment.delayed import delayed_chunks, mark_delayed
from heapdump.heaps.segment.header import contexts, heap_keys
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.large_blocks import unused_of
from heapdump.heaps.segment.lfh_blocks import add_slots
from heapdump.heaps.segment.lfh_key import best_reading
from heapdump.heaps.segment.lfh_subsegments import Decoded, Subsegments
from heapdump.heaps.segment.memory_windows import Committed
from heapdump.heaps.segment.padding import padding_of, writes_header
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges, read_ranges
from heapdump.heaps.segment.range_contents import settled
from heapdump.heaps.segment.vs_chunks import ChunkWalk
from heapdump.heaps.segment.vs_subsegments import Chains, key_of, read_chains
from heapdump.kernels.row import BUSY, EXTRA, INTERNAL, UNIT
from heapdump.layouts import Layout, Struct, load

_WINDOW_BYTES = 32 << 20
_SAMPLE_RANGES, _ENOUGH = 24, 24
_BIG = 1 << 20


def walk_segment_heap(job: SegmentHeapJob) -> None:
    """The `WALK` of segment heaps."""
    if job.heap.layout is None:
        job.walked.headers += 1  # a heap that does not verify has integrity 0
        job.walked.gap(f"heap {job.heap.address:#x}: no known layout of segment heaps holds: its blocks are missing")
        return
    _HeapWalk(job, load(job.heap.layout)).walk()


def structs_of(job: SegmentHeapJob, layout: Layout, name: str) -> list[Struct]:
    """The different versions of a structure, that of the heap's own layout first."""
    seen: dict[tuple[object, ...], Struct] = {}
    for other in (layout, *job.view.layouts):
        if name in other and "_SEGMENT_HEAP" in other:
            struct = other[name]
            seen.setdefault(
                (struct.size, tuple(sorted((k, f.offset, f.type) for k, f in struct.fields.items()))), struct
            )
    return list(seen.values())


@dataclass(frozen=True)
class _Inside:
    """What lies in the subsegments: rows of `Ranges`, and how to read them."""

    chains: Chains
    key: int | None
    slots: tuple[Subsegments, Decoded] | None
    padding: int


class _HeapWalk:
    """Walks one heap."""

    def __init__(self, job: SegmentHeapJob, layout: Layout) -> None:
        self._job, self._layout = job, layout
        self._committed = Committed(job.process.regions)

    def walk(self) -> None:
        """All of it, some segments at a time, so that rows come out nearly sorted."""
        job = self._job
        first = len(job.columns)
        self._own()
        ranges = read_ranges(job.view, job.heap, self._structs("_HEAP_PAGE_RANGE_DESCRIPTOR"), job.walked)
        ranges = settled(job, ranges, self._structs("_HEAP_VS_SUBSEGMENT"), self._structs("_HEAP_LFH_SUBSEGMENT"))
        likely = self._likely_keys()
        padding = self._padding(ranges, likely)
        delayed = delayed_chunks(job, self._layout)
        for window in _windows(ranges):
            start = len(job.columns)
            inside = self._inside(window, likely, padding)
            self._ranges(window, padding)
            self._blocks(inside)
            mark_delayed(job, start, delayed)
            self._count_uncommitted(start, window)
            job.columns.sort(start)
            job.advance(int(window.size.sum()))
        self._large(padding)
        job.columns.sort(first)
        job.walked.facts.update(job.keys.facts(padding))

    def _structs(self, name: str) -> list[Struct]:
        return structs_of(self._job, self._layout, name)

    def _likely_keys(self) -> list[int]:
        """The heap key, as the segments tell it; the constant may be part of it or not."""
        job, found = self._job, []
        parts = contexts(job.view, self._layout, job.heap.address) or ()
        for segment in job.heap.segments[:4]:
            for part in parts:
                if part.segment_bytes == segment.span.size:
                    found += heap_keys(job.view, self._layout, part, segment.address)
        return list(dict.fromkeys(found))

    def _padding(self, ranges: Ranges, likely: Sequence[int]) -> int:
        """Read off some subsegments, walked into columns of their own."""
        job = self._job
        columns = BlockColumns()
        trial = replace(job, columns=columns, walked=WalkLog(), advance=lambda count: None)
        for kind in (RangeKind.VS, RangeKind.LFH):
            rows = np.flatnonzero(ranges.kind == kind)
            part = ranges.of(rows[:: max(1, len(rows) // _SAMPLE_RANGES)])
            if len(part.start):
                self._blocks(self._inside(part, likely, 0, trial), trial)
        pages = ranges.of(ranges.kind == RangeKind.PAGES)
        table = columns.since(0)
        busy = table.is_busy & (table.kind == BlockKind.VS)  # their place is verified chunk by chunk
        if busy.sum() < _ENOUGH:
            busy = table.is_busy
        address = np.concatenate([table.address[busy], pages.start.astype(np.uint64)])
        size = np.concatenate([table.size[busy], (pages.size - pages.unused).astype(np.uint64)])
        large = np.array([block.list_entry for block in job.heap.large_blocks or ()], np.uint64)
        if not len(address):
            address, size = large, np.full(len(large), 1 << 20, np.uint64)
        return padding_of(job, self._layout, address, size)

    def _inside(
        self, ranges: Ranges, likely: Sequence[int], padding: int, trial: SegmentHeapJob | None = None
    ) -> _Inside:
        job = trial or self._job
        chains = read_chains(
            job, ranges, np.flatnonzero(ranges.kind == RangeKind.VS), self._structs("_HEAP_VS_SUBSEGMENT")
        )
        key = key_of(job, chains, likely)
        rows = np.flatnonzero(ranges.kind == RangeKind.LFH)
        return _Inside(chains, key, best_reading(job, ranges, rows, self._structs("_HEAP_LFH_SUBSEGMENT")), padding)

    def _blocks(self, inside: _Inside, trial: SegmentHeapJob | None = None) -> None:
        job = trial or self._job
        if inside.key is not None and len(inside.chains.start):
            ChunkWalk(job, inside.key, inside.padding).walk(inside.chains)
        if inside.slots is not None:
            add_slots(job, *inside.slots, inside.padding)

    def _own(self) -> None:
        """The heap's own structures, as one internal block for each committed run."""
        job = self._job
        own: list[Extent] = [extent for extent in job.heap.extents if extent.kind is ExtentKind.STRUCTURES]
        for extent in own:
            for part in self._committed.runs(extent.span.start, extent.span.end):
                none = np.zeros(1, np.int64)
                self._add(np.array([part.start]), np.array([part.size]), none, none, _INTERNAL)

    def _ranges(self, ranges: Ranges, padding: int) -> None:
        """Rows for page ranges: blocks, subsegments, free memory."""
        free = ranges.of(ranges.kind == RangeKind.FREE)
        runs = [
            part for start, size in zip(free.start.tolist(), free.size.tolist(), strict=True)
            for part in self._committed.runs(start, start + size)
        ]  # fmt: skip
        none = np.zeros(len(runs), np.int64)
        self._add(
            np.array([r.start for r in runs], np.int64),
            np.array([r.size for r in runs], np.int64),
            none,
            none,
            tag(BlockKind.PAGES),
        )
        carriers = ranges.of((ranges.kind != RangeKind.FREE) & (ranges.kind != RangeKind.PAGES))
        none = np.zeros(len(carriers.start), np.int64)
        self._add(carriers.start, carriers.size, none, none, _INTERNAL)
        self._pages(ranges.of(ranges.kind == RangeKind.PAGES), padding)

    def _pages(self, pages: Ranges, padding: int) -> None:
        lead = self._leads(pages.start, padding, pages.size - pages.unused >= _BIG)
        extra = (pages.extra & pages.is_size_known).astype(np.int64) * EXTRA
        tags = (tag(BlockKind.PAGES, busy=True) | extra).astype(np.uint16)
        doubt(tags, ~pages.is_sure, Trust.DERIVED)
        doubt(tags, ~pages.is_size_known, Trust.GUESS)
        spare = np.minimum(np.where(pages.is_size_known, pages.unused, 0) + lead, pages.size)
        self._add(pages.start, pages.size, spare, lead, tags)

    def _leads(self, start: NDArray[np.int64], padding: int, big: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Bytes in front of user data of blocks that begin there: their own header's word where that can be true."""
        lead = np.full(len(start), padding, np.int64)
        if not padding or not writes_header(self._layout):
            return lead
        word, there = self._job.view.space.mapped.gather(start.astype(np.uint64), self._job.view.pointer_bytes)
        usual = np.where(big, 4 * padding, padding)  # recorded: 64 or 32 bytes from 1 MiB on, and at large blocks
        likely = there & (word >= padding) & (word <= 4 * padding) & (word % np.uint64(padding) == 0)
        return np.where(likely, word.astype(np.int64), usual)

    def _large(self, padding: int) -> None:
        """The large blocks; their number of unused bytes is the low half of the address in their metadata."""
        job = self._job
        blocks = [
            (block, found)
            for block in job.heap.large_blocks or ()
            if (found := unused_of(job.view, self._layout, block))
        ]
        start = np.array([block.list_entry for block, _ in blocks], np.int64)
        size = np.array([block.commit_bytes for block, _ in blocks], np.int64)
        lead = self._leads(start, padding, start > 0)
        unused = np.array([found.bytes for _, found in blocks], np.int64)
        known = np.array([found.is_known for _, found in blocks], bool)
        extra = np.array([found.has_extra for _, found in blocks], bool) & known
        spare = np.minimum(np.where(known, unused, 0) + lead, size)
        if not writes_header(self._layout):
            lead = np.zeros(len(start), np.int64)  # recorded 14393: the padding of a large block lies behind it
        tags = (tag(BlockKind.LARGE, busy=True) | extra * EXTRA).astype(np.uint16)
        doubt(tags, ~known, Trust.GUESS)
        self._add(start, size, spare, lead, tags)

    def _add(
        self, start: NDArray[np.int64], size: NDArray[np.int64], spare: NDArray[np.integer], lead: NDArray[np.integer],
        tags: NDArray[np.integer] | int,
    ) -> None:  # fmt: skip
        marks = np.broadcast_to(np.asarray(tags), start.shape)
        self._job.columns.append(self._job.heap.index, start, size // UNIT, spare, lead // UNIT, marks)

    def _count_uncommitted(self, first: int, ranges: Ranges) -> None:
        """Bytes of the new rows that are not committed: of those outside subsegments, and of free ones."""
        table, walked = self._job.columns.since(first), self._job.walked
        kind = table.kind
        walked.uncommitted_bytes += self._uncommitted(table, (kind != BlockKind.VS) & (kind != BlockKind.LFH))
        lfh = ranges.of(ranges.kind == RangeKind.LFH)
        is_whole = bool((self._committed.bytes(lfh.start, lfh.start + lfh.size) == lfh.size).all())
        # a free chunk holds whole uncommitted pages or none
        may = table.size8 >= np.uint32(PAGE // UNIT)
        if not is_whole:
            may |= kind == BlockKind.LFH
        walked.uncommitted_free_bytes += self._uncommitted(table, may & ~table.is_busy)

    def _uncommitted(self, table: BlockTable, which: NDArray[np.bool_]) -> int:
        rows = np.flatnonzero(which)
        start = table.entry[rows].astype(np.int64)
        end = start + table.entry_sizes(rows).astype(np.int64)
        return int((end - start).sum() - self._committed.bytes(start, end).sum())


_INTERNAL = tag(BlockKind.PAGES) | BUSY | INTERNAL


def _windows(ranges: Ranges) -> list[Ranges]:
    """The ranges, ascending, in parts of some megabytes."""
    before = np.cumsum(ranges.size) // _WINDOW_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(before)) + 1).tolist(), len(ranges.start)]
    return [ranges.of(slice(low, high)) for low, high in pairwise(cuts) if high > low]
