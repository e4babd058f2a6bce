"""The second witness of busy VS chunks: their header holds the page that they begin in.

    EncodedSegmentPageOffset = u8(page offset ^ key ^ chunk)

Page offset: pages from the subsegment to the chunk at address `chunk`; key: that of the sizes word. It holds for every busy
chunk of all recorded heaps (14393 to 26100, x64 and x86). Free chunks hold a link of their tree there. So a free chunk whose
busy bits were set, and a write in front of user data that misses the sizes word, are seen.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import doubt
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.vs_subsegments import VsSubsegments
from heapdump.trust import Trust

_PAGE_SHIFT = np.uint64(12)
_BYTE = np.uint64(0xFF)
_ENOUGH_CHUNKS = 8
"""Busy chunks that show whether a build writes page offsets."""

_MOST_REPORTS = 16
"""Chunks of one call that become findings."""


def report_page_offsets(
    walk: SegmentWalk, first: int, subsegments: VsSubsegments, key: int, excused: Sequence[int]
) -> None:
    """A finding for each busy chunk in the rows from `first` on that holds another page offset; the row becomes a guess.

    `excused`: addresses of headers whose damage is reported. Nothing where most chunks of the view hold other bytes.
    """
    table = walk.columns.since(first)
    rows = np.flatnonzero((table.kind == BlockKind.VS) & table.is_busy & ~table.is_internal)
    chunk = table.entry[rows]
    found, is_present = walk.mapped.gather(chunk + np.uint64(walk.pointer_bytes), 1)
    start = subsegments.start[np.searchsorted(subsegments.start, chunk.astype(np.int64), side="right") - 1]
    expected = page_offset_byte(chunk, start.astype(np.uint64), key)
    wrong = is_present & (found != expected)
    if not _has_page_offsets(walk, int(is_present.sum()), int(wrong.sum())):
        return
    wrong &= ~np.isin(chunk, np.array(excused, np.uint64))
    is_wrong = np.zeros(len(table), bool)
    is_wrong[rows[wrong]] = True
    doubt(table.tags, is_wrong, Trust.GUESS)
    for i in np.flatnonzero(wrong)[:_MOST_REPORTS].tolist():
        at = int(chunk[i])
        message = f"{walk.name}: the chunk header at {at:#x} is damaged: it is busy, and the page that it names is another one"
        damaged = DamagedBytes(
            "vs_chunk", at + walk.pointer_bytes, 1, f"{int(expected[i]):02x}", f"{int(found[i]):02x}"
        )
        walk.report(damaged, message)
        walk.count_headers(0, -1)


def page_offset_byte(chunk: NDArray[np.uint64], subsegment: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """The byte that a busy chunk holds; addresses of the chunks and of a byte in the first page of their subsegments; (n,)."""
    page = (chunk >> _PAGE_SHIFT) - (subsegment >> _PAGE_SHIFT)
    return (page ^ np.uint64(key & 0xFF) ^ chunk) & _BYTE


def _has_page_offsets(walk: SegmentWalk, count: int, wrong: int) -> bool:
    """True where chunks of this view hold page offsets; enough chunks of one heap decide for the later ones."""
    if count >= _ENOUGH_CHUNKS:
        walk.keys.vs_has_page_offsets = 2 * wrong < count
    return walk.keys.vs_has_page_offsets or (count > 0 and wrong == 0)
