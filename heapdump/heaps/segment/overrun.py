"""Estimates the requested size of a VS chunk that was overrun.

The last two bytes of a chunk hold the number of its unused bytes. An overrun that reaches the next header overwrites
them. In every recorded overrun of a VS block, the bytes across the border of the two chunks repeat with a period of 1,
2, 4 or 8 bytes. The repetition begins at the end of the requested bytes.
"""

from __future__ import annotations

import numpy as np

from heapdump.blocks.table import lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.kernels.row import BUSY, EXTRA, UNIT
from heapdump.trust import Trust

_PERIODS = (1, 2, 4, 8)
_MOST_BYTES_BEFORE = 64
_BYTES_BEHIND = 16
_LEAST_BYTES_BEFORE = 2


def correct_overrun_row(walk: SegmentWalk, header: int) -> None:
    """Corrects the unused bytes of the last row, whose chunk ends at the damaged header at address `header`.

    The row becomes a guess, because its own size may be damaged instead.
    """
    table = walk.columns.since(0)
    row = len(table) - 1
    entry, header_bytes = int(table.entry[row]), int(table.header8[row]) * UNIT
    if entry + int(table.size8[row]) * UNIT != header:
        return
    lower_trust(table.tags, slice(row, None), Trust.GUESS)
    if not table.tags[row] & BUSY:
        return
    start = _repetition_start(walk, max(entry + header_bytes, header - _MOST_BYTES_BEFORE), header)
    unused = header - start
    if start < header and unused != int(table.unused[row]) - header_bytes and unused < 2 * walk.granule:
        table.unused[row] = header_bytes + unused
        table.tags[row] &= np.uint16(0xFFFF & ~EXTRA)


def _repetition_start(walk: SegmentWalk, low: int, border: int) -> int:
    """The first address from `low` on of bytes that repeat across `border`; `border` where none do."""
    data = walk.view.space.try_read(low, border + _BYTES_BEHIND - low)
    if data is None:
        return border
    for period in _PERIODS:
        at = border - low + _BYTES_BEHIND - period
        while at > 0 and data[at - 1] == data[at - 1 + period]:
            at -= 1
        if at <= border - low - _LEAST_BYTES_BEFORE:
            return low + at
    return border
