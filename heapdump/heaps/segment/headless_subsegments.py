"""Finds VS subsegments of which the dump lacks both the page descriptor and the header, by their chunks.

Every busy chunk names the number of pages from its subsegment to it (`vs_page_offsets`), so several of them name the
subsegment. Its chunks end where the last of them ends, one unit before its range (docs/reference/heap-structures.md
§6.4).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.integers import signed64
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.undescribed_ranges import undescribed_range, undescribed_units
from heapdump.heaps.segment.vs_chunks import VsChunks
from heapdump.heaps.segment.vs_page_offsets import page_offset_byte
from heapdump.kernels.row import UNIT
from heapdump.kernels.vs_chain import ChunkCoding
from heapdump.spans import Span

_LEAST_VOTES = 3
"""Number of busy chunks that must name the same subsegment: each does so by chance once in 256."""


def headless_subsegments(walk: SegmentWalk, ranges: Ranges) -> Iterator[Ranges]:
    """Ranges of VS subsegments without descriptor and header in the dump, ascending, one at a time.

    None overlaps `ranges`. Nothing without the key of chunk headers and that of page offsets.
    """
    if walk.keys.vs_key is None or walk.keys.vs_page_offset_key is None:
        return
    for unit, start, end in undescribed_units(walk, ranges):
        is_missing = ~walk.mapped.gather(start.astype(np.uint64), walk.pointer_bytes)[1]
        first = np.append(True, (np.diff(start) != unit) | (np.diff(end) != 0))
        for low in np.flatnonzero(first).tolist():
            run = slice(low, low + int(np.append(np.flatnonzero(first[low + 1 :]), len(start) - low - 1)[0]) + 1)
            if is_missing[run].any():
                yield from _in_run(walk, Span(int(start[low]), int(end[low])), unit, start[run][is_missing[run]])


def _in_run(walk: SegmentWalk, run: Span, unit: int, missing: NDArray[np.int64]) -> Iterator[Ranges]:
    """The subsegments in a run of units without range; `missing`: (n,) those of its units that the dump lacks."""
    words, _ = walk.mapped.words64(run)
    key = walk.keys.vs_key or 0
    coding = ChunkCoding(
        walk.granule // UNIT, signed64(key) if walk.pointer_bytes == 8 else key & 0xFFFFFFFF, padding=0
    )
    chunks, low = VsChunks(words, run.start, run.size // walk.granule, coding), run.start
    votes = _named_subsegments(walk, chunks)
    for start in sorted(set(votes) & set(missing.tolist())):
        places = votes[start]
        end = _chain_end(walk, chunks, max(places)) if len(places) >= _LEAST_VOTES and start >= low else 0
        if end and end % unit == 0 and end + unit <= run.end:
            yield undescribed_range(start, end + unit - start, RangeKind.VS, unit)
            low = end + unit


def _named_subsegments(walk: SegmentWalk, chunks: VsChunks) -> dict[int, list[int]]:
    """Address that may be a subsegment → granules of the sound, busy chunks that name it."""
    sound = np.array([place for place, _ in chunks.sound_from(0, ())], np.int64)
    found: dict[int, list[int]] = {}
    if not len(sound):
        return found
    address = (chunks.base + sound * chunks.granule_bytes).astype(np.uint64)
    word, is_present = walk.mapped.gather(address + np.uint64(walk.pointer_bytes), 4)
    here = page_offset_byte(address, address, walk.keys.vs_page_offset_key or 0)  # that of a chunk in the first page
    pages = ((word ^ here) & np.uint64(0xFF)).astype(np.int64)
    start = (address & ~np.uint64(PAGE - 1)).astype(np.int64) - pages * PAGE
    for place, at in zip(sound[is_present].tolist(), start[is_present].tolist(), strict=True):
        if chunks.header(place).busy:
            found.setdefault(at, []).append(place)
    return found


def _chain_end(walk: SegmentWalk, chunks: VsChunks, at: int) -> int:
    """The end of the chunks behind the one at granule `at`; 0 where the dump lacks a header before it."""
    size = 0
    while at < chunks.end:
        header = chunks.header(at)
        if (size and header.previous_size != size) or not 0 < header.size <= chunks.end - at or header.busy > 1:
            break
        if walk.view.space.try_pointer(chunks.address(at)) is None:
            break
        at, size = at + header.size, header.size
    return chunks.address(at)
