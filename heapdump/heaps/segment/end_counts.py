"""Counts of unused bytes at the end of blocks that cannot be: the program wrote behind its requested bytes.

The last two bytes of a VS chunk, or of an LFH block, hold the number of its unused bytes. No block has more of them than it
has bytes. In every recorded heap a VS chunk has less than two granules, and three or four more where the heap's own extra
stands behind the user data. A count that is damaged but possible has no second witness.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import doubt
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.kernels.row import EXTRA, TRUST_GUESS, TRUST_MASK, UNIT
from heapdump.spans import Span
from heapdump.trust import Trust

_GRANULES, _GRANULES_OF_EXTRA = 2, 4
_MANY = 8
"""Chunks from which on a majority says how the build writes counts."""

_MOST_REPORTS = 16
"""Blocks of one call that become findings each."""


def report_counts(walk: SegmentWalk, first: int, missing: Sequence[Span], excused: Sequence[int] = ()) -> None:
    """A finding for each row from `first` on with a count that cannot be; the row becomes a guess of the whole block.

    Rows as a kernel has written them. `missing`: memory that the dump does not hold; `excused`: addresses of headers whose
    damage is reported: the counts beside them say nothing.
    """
    table = walk.columns.since(first)
    count_at = table.entry + table.entry_size - np.uint64(2)
    is_vs = table.kind == BlockKind.VS
    bad = (table.tags & np.uint16(TRUST_MASK) == np.uint16(TRUST_GUESS)) | (is_vs & _is_too_much(walk, first))
    bad &= table.is_busy & ~table.is_internal & ~np.isin(table.entry, np.array(excused, np.uint64))
    bad &= ~np.isin(count_at + np.uint64(2), np.array(excused, np.uint64))
    for span in missing:
        bad &= (count_at + np.uint64(2) <= np.uint64(span.start)) | (count_at >= np.uint64(span.end))
    rows = np.flatnonzero(bad)
    if 2 * len(rows) > max(_MANY, int(table.is_busy.sum())):
        return
    table.unused[rows] = table.header8[rows].astype(np.uint32) * np.uint32(UNIT)
    table.tags[rows] &= np.uint16(0xFFFF & ~EXTRA)
    doubt(table.tags, bad, Trust.GUESS)
    values, _ = walk.mapped.gather(count_at[rows], 2)
    for at, value in zip(count_at[rows][:_MOST_REPORTS].tolist(), values.tolist(), strict=False):
        message = f"{walk.name}: the count of unused bytes at the end of a block, at {at:#x}, is damaged"
        walk.report(DamagedBytes("tail_fill", at, 2, "a number of unused bytes", f"{value:#06x}"), message)


def _is_too_much(walk: SegmentWalk, first: int) -> NDArray[np.bool_]:
    """True for rows with more unused bytes than a VS chunk ever has; (n,)."""
    table = walk.columns.since(first)
    behind = table.unused.astype(np.int64) - table.header8.astype(np.int64) * UNIT
    granules = _GRANULES + _GRANULES_OF_EXTRA * ((table.tags & np.uint16(EXTRA)) > 0)
    too_much: NDArray[np.bool_] = behind >= granules * walk.granule
    return too_much
