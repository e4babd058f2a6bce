"""Walks one segment heap: own structures, page ranges, VS chunks and LFH blocks in subsegments, large allocations.

The walk uses keys and rules that earlier heaps of the view have shown (`keys`). Structures:
docs/reference/heap-structures.md §6.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import HeapJob, WalkLog
from heapdump.heaps.segment.committed import Committed
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.delayed_frees import delayed_frees, free_delayed
from heapdump.heaps.segment.extra_records import check_marks
from heapdump.heaps.segment.header import assumed_contexts, contexts
from heapdump.heaps.segment.headless_subsegments import headless_subsegments
from heapdump.heaps.segment.keys import Keys
from heapdump.heaps.segment.lfh_blocks import LfhBlocks
from heapdump.heaps.segment.lfh_coding import LfhReading, read_lfh_subsegments
from heapdump.heaps.segment.padding import padding_of, writes_padding_header
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges, joined, read_ranges
from heapdump.heaps.segment.page_rows import add_large_allocations, add_own_structures, add_page_ranges
from heapdump.heaps.segment.range_codes import with_kinds
from heapdump.heaps.segment.range_contents import with_content_kind
from heapdump.heaps.segment.signature import decoded_signatures, possible_heap_keys
from heapdump.heaps.segment.undescribed_ranges import undescribed_subsegments, undescribed_units
from heapdump.heaps.segment.vs_free_tree import check_free_tree, is_unlinked
from heapdump.heaps.segment.vs_key import vs_key_of
from heapdump.heaps.segment.vs_subsegments import VsSubsegments, read_vs_subsegments
from heapdump.heaps.segment.vs_walk import VsWalk
from heapdump.kernels.row import UNIT
from heapdump.layouts import load
from heapdump.trust import Trust
from heapdump.wording import plural

_WINDOW_BYTES = 32 << 20
"""Bytes of page ranges that are walked together. Walking by windows makes rows come out nearly sorted."""

_SAMPLE_RANGES = 24
"""The most ranges of one kind that are walked to find the padding."""

_ENOUGH_CHUNKS = 24
_KEY_SEGMENTS = 4
"""The most segments whose signatures are read for the HeapKey."""

VsReading = tuple[VsSubsegments, int | None]
"""(VS subsegments, their key or None)."""


def walk_segment_heap(job: HeapJob, keys: Keys) -> None:
    """Adds the rows, findings, gaps and facts of one heap to the job. `keys`: those of the view, which it extends."""
    if job.heap.layout is None:
        job.log.headers += 1  # a heap that does not verify has integrity 0
        job.log.add_gap(f"heap {job.heap.address:#x}: no known layout of segment heaps holds: its blocks are missing")
        return
    walk = SegmentWalk(job.process, job.view, job.heap, load(job.heap.layout), keys, job.columns, job.log, job.workload)
    committed, first = Committed(job.process.regions), len(job.columns)
    add_own_structures(walk, committed)
    ranges = with_content_kind(walk, with_kinds(walk, read_ranges(walk)))
    likely = _likely_vs_keys(walk)
    ranges = _with_undescribed_subsegments(walk, ranges, likely)
    padding = _padding(walk, ranges, likely)
    delayed = delayed_frees(walk)
    for window in _windows(ranges):
        start = len(job.columns)
        vs, lfh = _read_subsegments(walk, window, likely)
        add_page_ranges(walk, committed, window, padding)
        _add_blocks(walk, vs, lfh, padding)
        free_delayed(walk, start, delayed)
        _count_uncommitted(walk, committed, start, window)
        job.columns.sort(start)
        job.advance(int(window.size.sum()))
    add_large_allocations(walk, committed, padding)
    job.columns.sort(first)
    if keys.padding_bytes is None and not writes_padding_header(walk.layout):
        _doubt_padding(walk, first)
    check_free_tree(walk, first, padding, delayed.addresses)
    check_marks(walk, first, padding)
    job.log.facts.update(keys.facts(padding))


def _likely_vs_keys(walk: SegmentWalk) -> list[int]:
    """The possible HeapKeys by the signatures of the first segments, each once."""
    keys: list[int] = []
    heap = walk.heap.address
    lists = contexts(walk.view, walk.layout, heap) or assumed_contexts(walk.layout, heap)
    for segment in walk.heap.segments[:_KEY_SEGMENTS]:
        for context in lists:
            if context.segment_bytes == segment.span.size:
                for decoded in decoded_signatures(walk.view, walk.layout, context.anchor, segment.address):
                    keys += possible_heap_keys(walk.view, decoded)
    return list(dict.fromkeys(keys))


def _read_subsegments(walk: SegmentWalk, ranges: Ranges, likely: Sequence[int]) -> tuple[VsReading, LfhReading | None]:
    """The VS and LFH subsegments in these ranges. `likely`: VS keys to try first."""
    vs = read_vs_subsegments(walk, ranges.of_kind(RangeKind.VS))
    key = vs_key_of(walk, vs, likely)
    return (vs, key), read_lfh_subsegments(walk, ranges.of_kind(RangeKind.LFH))


def _add_blocks(walk: SegmentWalk, vs: VsReading, lfh: LfhReading | None, padding: int) -> None:
    """Rows of all VS chunks and LFH blocks."""
    subsegments, key = vs
    if key is not None and len(subsegments.start):
        VsWalk(walk, key, padding).add_rows(subsegments)
    if lfh is not None:
        LfhBlocks(walk, *lfh, padding).add_rows()


def _with_undescribed_subsegments(walk: SegmentWalk, ranges: Ranges, likely: Sequence[int]) -> Ranges:
    """The ranges, and the subsegments whose descriptors the dump lacks: those in which a trial finds nothing wrong."""
    found = list[Ranges]()
    for search in (undescribed_subsegments, headless_subsegments):
        end = 0
        if search is headless_subsegments and any(undescribed_units(walk, ranges)):
            _padding(walk, ranges, likely)  # which finds the keys of chunks
        for one in search(walk, ranges):
            if int(one.start[0]) >= end and _is_subsegment(walk, one, likely):
                found.append(one)
                end = int(one.start[0] + one.size[0])
        for one in found:
            ranges = ranges if np.isin(one.start, ranges.start).any() else joined(ranges, one)
    if found:
        count = f"{plural(len(found), 'subsegment')} without page descriptor in the dump"
        walk.add_gap(f"{walk.name}: {count} told by their own headers, or chunks: more blocks may be missing there")
    return ranges


def _is_subsegment(walk: SegmentWalk, one: Ranges, likely: Sequence[int]) -> bool:
    """True where a trial finds blocks in the range, and nothing wrong.

    Free chunks of a subsegment that was given back are in no tree.
    """
    trial = replace(walk, columns=BlockColumns(), log=WalkLog())
    _add_blocks(trial, *_read_subsegments(trial, one, likely), 0)
    return len(trial.columns) > 0 and not trial.log.findings and not _is_given_back(trial)


def _is_given_back(walk: SegmentWalk) -> bool:
    """True where the tree of free chunks lacks most of the free chunks in the rows, and at least one."""
    table = walk.columns.since(0)
    free = table.entry[(table.kind == BlockKind.VS) & ~table.is_busy & (table.entry_size > np.uint64(walk.granule))]
    return 2 * int(is_unlinked(walk, free).sum()) > len(free)


def _padding(walk: SegmentWalk, ranges: Ranges, likely: Sequence[int]) -> int:
    """The padding bytes of the heap, by the blocks of some subsegments.

    These are walked with padding 0; their rows and findings are dropped. VS chunks are preferred, because each header
    confirms the place of the next.
    """
    trial = replace(walk, columns=BlockColumns(), log=WalkLog())
    for kind in (RangeKind.VS, RangeKind.LFH):
        same_kind = ranges.of_kind(kind)
        sample = same_kind.of(slice(None, None, max(1, len(same_kind.start) // _SAMPLE_RANGES)))
        if len(sample.start):
            _add_blocks(trial, *_read_subsegments(trial, sample, likely), 0)
    table, pages = trial.columns.since(0), ranges.of_kind(RangeKind.PAGES)
    busy = table.is_busy & (table.kind == BlockKind.VS)
    if busy.sum() < _ENOUGH_CHUNKS:
        busy = table.is_busy
    address = np.concatenate([table.address[busy], pages.start.astype(np.uint64)])
    size = np.concatenate([table.size[busy], (pages.size - pages.unused).astype(np.uint64)])
    if not len(address):
        address = np.array([block.list_entry for block in walk.heap.large_blocks or ()], np.uint64)
        size = np.full(len(address), 1 << 20, np.uint64)
    return padding_of(walk, address, size)


def _doubt_padding(walk: SegmentWalk, first: int) -> None:
    """Makes the busy rows from `first` on derived: too few blocks show whether the heap has padding."""
    table = walk.columns.since(first)
    lower_trust(table.tags, table.is_busy & ~table.is_internal, Trust.DERIVED)


def _count_uncommitted(walk: SegmentWalk, committed: Committed, first: int, ranges: Ranges) -> None:
    """Adds up the uncommitted bytes of the rows from `first` on that lie in segments, and of the free ones among them.

    Only free ranges and free VS chunks can contain uncommitted pages.
    """
    table = walk.columns.since(first)
    kind, lfh = table.kind, ranges.of_kind(RangeKind.LFH)
    in_segment = (kind != BlockKind.VS) & (kind != BlockKind.LFH)
    walk.log.uncommitted_bytes += _uncommitted_bytes(committed, table, in_segment)
    may = table.size8 >= np.uint32(PAGE // UNIT)
    if not (committed.bytes(lfh.start, lfh.start + lfh.size) == lfh.size).all():
        may |= kind == BlockKind.LFH
    walk.log.uncommitted_free_bytes += _uncommitted_bytes(committed, table, may & ~table.is_busy)


def _uncommitted_bytes(committed: Committed, table: BlockTable, which: NDArray[np.bool_]) -> int:
    rows = np.flatnonzero(which)
    start = table.entry[rows].astype(np.int64)
    end = start + table.entry_sizes(rows).astype(np.int64)
    return int((end - start).sum() - committed.bytes(start, end).sum())


def _windows(ranges: Ranges) -> Iterator[Ranges]:
    """The ranges, ascending, in groups of about _WINDOW_BYTES."""
    window = np.cumsum(ranges.size) // _WINDOW_BYTES
    cuts = [0, *(np.flatnonzero(np.diff(window)) + 1).tolist(), len(ranges.start)]
    return (ranges.of(slice(low, high)) for low, high in pairwise(cuts) if high > low)
