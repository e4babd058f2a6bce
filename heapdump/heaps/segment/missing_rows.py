"""Rows of blocks whose last bytes the dump does not hold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heapdump.blocks.table import lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.spans import Span
from heapdump.trust import Trust


def doubt_missing(walk: SegmentWalk, first: int, missing: Sequence[Span]) -> None:
    """Makes busy rows from `first` on guesses where one of their last two bytes, the unused bytes, is not in the dump.

    Bytes that are missing because they are not committed are no reason for doubt.
    """
    table, regions = walk.columns.since(first), walk.process.regions
    count_at = table.entry + table.entry_size - np.uint64(2)
    lacks_count = np.zeros(len(table), bool)
    for span in missing:
        if regions.committed_bytes(span) or not regions.is_complete_map:
            lacks_count |= (count_at >= np.uint64(span.start)) & (count_at < np.uint64(span.end))
    lacks_count &= table.is_busy
    if lacks_count.any():
        lower_trust(table.tags, lacks_count, Trust.GUESS)
        place = int(table.entry[lacks_count][0])
        walk.add_gap(f"{walk.name}: {int(lacks_count.sum()):,} blocks from {place:#x} on are not whole in the dump")
