"""Finds impossible counts of unused bytes at the end of blocks: the program wrote behind its requested bytes.

The last two bytes of a VS chunk, or of an LFH block, hold the number of its unused bytes. In every recorded heap these
are:

- VS chunk: less than two granules; three or four granules more where the heap's own extra stands behind the user data.
- LFH block: less than the distance to the next smaller LFH size of the build. Sizes are a granule apart, or 1/16 of the
  power of two below them where that is more.

Nothing shows that a damaged count is wrong when it is possible.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.kernels.row import EXTRA, TRUST_GUESS, TRUST_MASK, UNIT
from heapdump.spans import Span
from heapdump.trust import Trust

_GRANULES, _GRANULES_OF_EXTRA = 2, 4
_LFH_STEPS = 16
"""The most sizes of LFH blocks between two powers of two."""

_MANY = 8
"""From this many chunks on, the majority defines how the build writes counts."""


def report_counts(
    walk: SegmentWalk,
    first: int,
    missing: Sequence[Span],
    damaged_headers: Sequence[int] = (),
    *,
    are_reported: bool = False,
) -> None:
    """Adds a finding for each row from `first` on with an impossible count; the row becomes a guess of the whole block.

    Args:
        walk: the walk of the heap.
        first: the first row; rows are as a kernel has written them.
        missing: memory that is not in the dump.
        damaged_headers: addresses of headers whose damage was reported; counts next to them are not examined.
        are_reported: True where one finding stands for all of these rows already.
    """
    table = walk.columns.since(first)
    count_at = table.entry + table.entry_size - np.uint64(2)
    bad = impossible_counts(walk, table) & ~np.isin(table.entry, np.array(damaged_headers, np.uint64))
    bad &= ~np.isin(count_at + np.uint64(2), np.array(damaged_headers, np.uint64))
    bad &= ~lacks_count(table, missing)
    rows = np.flatnonzero(bad)
    if 2 * len(rows) > max(_MANY, int(table.is_busy.sum())):
        return
    table.unused[rows] = table.header8[rows].astype(np.uint32) * np.uint32(UNIT)
    table.tags[rows] &= np.uint16(0xFFFF & ~EXTRA)
    lower_trust(table.tags, bad, Trust.GUESS)
    if are_reported:
        return
    values, _ = walk.mapped.gather(count_at[rows], 2)
    for at, value in zip(count_at[rows][: walk.most_reports].tolist(), values.tolist(), strict=False):
        message = f"{walk.name}: the count of unused bytes at the end of a block, at {at:#x}, is damaged"
        walk.report(DamagedBytes("tail_fill", at, 2, "a number of unused bytes", f"{value:#06x}"), message)


def lacks_count(table: BlockTable, missing: Sequence[Span]) -> NDArray[np.bool_]:
    """(n,) True for rows one of whose last two bytes lies in a missing span."""
    count_at, lacks = table.entry + table.entry_size - np.uint64(2), np.zeros(len(table), bool)
    for span in missing:
        lacks |= (count_at + np.uint64(2) > np.uint64(span.start)) & (count_at < np.uint64(span.end))
    return lacks


def impossible_counts(walk: SegmentWalk, table: BlockTable) -> NDArray[np.bool_]:
    """(n,) True for busy VS and LFH rows with more unused bytes than a block can have; rows as a kernel writes them."""
    behind = table.unused.astype(np.int64) - table.header8.astype(np.int64) * UNIT
    has_extra = (table.tags & np.uint16(EXTRA)) > 0
    most = (_GRANULES + _GRANULES_OF_EXTRA * has_extra) * walk.granule - 1
    is_lfh = table.kind == BlockKind.LFH
    block_bytes = table.size8[is_lfh].astype(np.int64) * UNIT
    most[is_lfh] = most_unused_of_lfh(block_bytes, walk.granule, has_extra[is_lfh])
    bad = (table.tags & np.uint16(TRUST_MASK) == np.uint16(TRUST_GUESS)) | (behind > most)
    impossible: NDArray[np.bool_] = bad & table.is_busy & ~table.is_internal
    return impossible


def most_unused_of_lfh(
    block_bytes: NDArray[np.int64] | int, granule: int, has_extra: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """(n,) the most unused bytes of LFH blocks of these sizes: the distance to the next smaller LFH size."""
    below = np.left_shift(
        1, np.frexp(np.asarray(block_bytes) - 1)[1].astype(np.int64) - 1
    )  # power of two under the size
    most: NDArray[np.int64] = np.maximum(below // _LFH_STEPS, granule) + _GRANULES_OF_EXTRA * granule * has_extra
    return most
