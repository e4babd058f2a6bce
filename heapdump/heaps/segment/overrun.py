"""What a block that was written over its end still tells of its size.

The last two bytes of a chunk say how much of it was not asked for. Where they are overwritten together with the header
behind them, the size is inferred from the bytes that did it: the run of equal or periodic bytes across the border begins
where the program's own bytes end (seen in every recorded overflow of a VS block).
"""

from __future__ import annotations

import numpy as np

from heapdump.blocks.heap import Trust
from heapdump.blocks.table import doubt
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.kernels.row import BUSY, EXTRA, UNIT

_PERIODS = (1, 2, 4, 8)
_LOOK_BACK = 64


def mend_overrun(job: SegmentHeapJob, address: int) -> None:
    """Corrects the last row's size where its chunk ends at a damaged header and its own count was overwritten."""
    table = job.columns.since(0)
    row = len(table) - 1
    entry, size, lead = int(table.entry[row]), int(table.size8[row]) * UNIT, int(table.header8[row]) * UNIT
    if entry + size != address:
        return
    doubt(table.tags, slice(row, None), Trust.GUESS)  # the damage may as well be its own size
    if not table.tags[row] & BUSY:
        return
    start = _run_start(job, max(entry + lead, address - _LOOK_BACK), address)
    unused = address - start
    if start < address and unused != int(table.unused[row]) - lead and unused < 2 * job.view.granularity:
        table.unused[row] = lead + unused
        table.tags[row] &= np.uint16(0xFFFF & ~EXTRA)


def _run_start(job: SegmentHeapJob, low: int, border: int) -> int:
    """First address of the periodic bytes that reach over the border; the border itself where there are none."""
    behind = 16
    data = job.view.space.try_read(low, border + behind - low)
    if data is None:
        return border
    for period in _PERIODS:
        at = border - low + behind - period
        while at > 0 and data[at - 1] == data[at - 1 + period]:
            at -= 1
        if at <= border - low - 2:
            return low + at
    return border
