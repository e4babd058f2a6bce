"""Adds rows for everything that consists of whole pages: the heap's own structures, page ranges, large allocations.

A subsegment is an internal row of kind PAGES, and its VS chunks or LFH blocks lie inside. A free page range has a row
for each of its committed runs.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import ExtentKind, LargeBlock
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust, tag
from heapdump.heaps.segment.committed import Committed
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.large_nodes import LargeUnused, unused_of
from heapdump.heaps.segment.padding import writes_padding_header
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.kernels.row import EXTRA, UNIT
from heapdump.spans import Span
from heapdump.trust import Trust
from heapdump.wording import plural

_INTERNAL_TAG = tag(BlockKind.PAGES, busy=True, internal=True)
_MUCH_PADDING_BYTES = 1 << 20
"""From this size on, the padding of a block is four times as long (recorded, 17763 and 19041); in bytes."""


def add_own_structures(walk: SegmentWalk, committed: Committed) -> None:
    """Adds an internal row for each committed run of the heap's own structures."""
    own = [extent.span for extent in walk.heap.extents if extent.kind is ExtentKind.STRUCTURES]
    _add_runs(walk, [run for span in own for run in committed.runs(span.start, span.end)], _INTERNAL_TAG)


def add_page_ranges(walk: SegmentWalk, committed: Committed, ranges: Ranges, padding: int) -> None:
    """Adds rows for free ranges, for subsegments and internal ranges, and for blocks of whole pages."""
    free = ranges.of_kind(RangeKind.FREE)
    runs = [
        run for start, size in zip(free.start.tolist(), free.size.tolist(), strict=True)
        for run in committed.runs(start, start + size)
    ]  # fmt: skip
    _add_runs(walk, runs, tag(BlockKind.PAGES))
    internal = ranges.of((ranges.kind != RangeKind.FREE) & (ranges.kind != RangeKind.PAGES))
    none = np.zeros(len(internal.start), np.int64)
    _add(walk, internal.start, internal.size, none, none, none + _INTERNAL_TAG)
    pages = ranges.of_kind(RangeKind.PAGES)
    header, is_read = _padding_bytes(walk, pages.start, padding, pages.size - pages.unused >= _MUCH_PADDING_BYTES)
    has_extra = pages.extra & pages.is_size_possible
    tags = (tag(BlockKind.PAGES, busy=True) | has_extra * EXTRA).astype(np.uint16)
    lower_trust(tags, ~pages.is_sound, Trust.DERIVED)
    lower_trust(tags, ~pages.is_size_possible | ~is_read, Trust.GUESS)
    unused = np.minimum(np.where(pages.is_size_possible, pages.unused, 0) + header, pages.size)
    _add(walk, pages.start, pages.size, unused, header, tags)


def add_large_allocations(walk: SegmentWalk, committed: Committed, padding: int) -> None:
    """Adds rows for large allocations whose node is in the dump.

    Where Windows counts other committed pages for all of them together, those whose committed run has another length
    than their size become guesses.
    """
    found = [(block, _unused(walk, block)) for block in walk.heap.large_blocks or ()]
    blocks = [(block, unused) for block, unused in found if unused is not None]
    start = np.array([block.list_entry for block, _ in blocks], np.int64)
    size = np.array([block.commit_bytes for block, _ in blocks], np.int64)
    is_possible = np.array([unused.is_possible for _, unused in blocks], bool)
    has_extra = np.array([unused.has_extra for _, unused in blocks], bool) & is_possible
    header, is_read = _padding_bytes(walk, start, padding, np.ones(len(start), bool))
    unused_bytes = np.where(is_possible, np.array([unused.bytes for _, unused in blocks], np.int64), 0)
    unused_bytes = np.minimum(unused_bytes + header, size)
    if not writes_padding_header(walk.layout):
        header = np.zeros(len(start), np.int64)  # 14393 has the padding behind the user data (recorded)
    tags = (tag(BlockKind.LARGE, busy=True) | has_extra * EXTRA).astype(np.uint16)
    lower_trust(tags, np.array([block.trust is not Trust.EXACT for block, _ in blocks], bool), Trust.DERIVED)
    lower_trust(tags, np.array([block.trust is Trust.GUESS for block, _ in blocks], bool), Trust.GUESS)
    is_confirmed = np.array([unused.is_confirmed for _, unused in blocks], bool)
    lower_trust(tags, ~(is_possible & is_read & is_confirmed), Trust.GUESS)
    if walk.heap.counters.virtual_bytes not in (None, walk.heap.large_committed_bytes):
        lower_trust(tags, ~_fill_their_runs(walk, committed, start, size), Trust.GUESS)
    _add(walk, start, size, unused_bytes, header, tags)


def _unused(walk: SegmentWalk, block: LargeBlock) -> LargeUnused | None:
    """The unused bytes of an allocation; None where its node is not in the dump or not known."""
    return LargeUnused(0, False, False) if block.metadata is None else unused_of(walk.view, walk.layout, block)


def _fill_their_runs(
    walk: SegmentWalk, committed: Committed, start: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(n,) True for allocations that end where the committed run ends, or where another allocation begins."""
    fills = np.ones(len(start), bool)
    for i, (at, length) in enumerate(zip(start.tolist(), size.tolist(), strict=True)):
        own = walk.process.regions.allocation(at)
        run = next(committed.runs(at, own.end), None) if own is not None else None
        fills[i] = run is None or run.size == length or at + length in start
    return fills


def _padding_bytes(
    walk: SegmentWalk, start: NDArray[np.int64], padding: int, is_long: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """((n,) int64 bytes of padding in front of the user data of blocks at these addresses; (n,) True where sure).

    The first word of the padding header names it; where that is impossible, `padding` is used. Where the dump lacks the
    word, the padding is a guess, which a gap says.

    Args:
        walk: the walk of the heap.
        start: (n,) addresses of the blocks.
        padding: padding bytes of the heap.
        is_long: (n,) True for blocks whose padding is usually four times as long.
    """
    if not padding or not writes_padding_header(walk.layout):
        return np.full(len(start), padding, np.int64), np.ones(len(start), bool)
    word, is_present = walk.mapped.gather(start.astype(np.uint64), walk.pointer_bytes)
    usual = np.where(is_long, 4 * padding, padding)
    possible = is_present & (word >= padding) & (word <= 4 * padding) & (word % np.uint64(padding) == 0)
    if not is_present.all():
        count, first = plural(int((~is_present).sum()), "block"), int(start[~is_present][0])
        where = f"{count} of whole pages from {first:#x} on"
        walk.add_gap(f"{walk.name}: the padding headers of {where} are not in the dump: their addresses are guesses")
    return np.where(possible, word.astype(np.int64), usual), is_present


def _add_runs(walk: SegmentWalk, runs: list[Span], tags: int) -> None:
    """Adds a row without header and without unused bytes for each run."""
    start = np.array([run.start for run in runs], np.int64)
    size, none = np.array([run.size for run in runs], np.int64), np.zeros(len(runs), np.int64)
    _add(walk, start, size, none, none, none + tags)


def _add(
    walk: SegmentWalk, start: NDArray[np.int64], size: NDArray[np.int64], unused: NDArray[np.integer],
    header: NDArray[np.integer], tags: NDArray[np.integer],
) -> None:  # fmt: skip
    """Adds n rows: address, occupied bytes, unused bytes, bytes in front of the user data, tags; (n,) each."""
    walk.columns.append(walk.heap.index, start, size // UNIT, unused, header // UNIT, tags)
