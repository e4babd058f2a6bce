"""Makes the entries that cover headers of segments internal, whatever their UnusedBytes say (Vista and later).

UnusedBytes is not part of the checksum. The address of these entries is known, so their UnusedBytes must be 1.
"""

from __future__ import annotations

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.header_word import HEADER_CODE, RUN_END_CODE
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import BUSY, INTERNAL


def mark_segment_headers(context: WalkContext, window: Window, first_row: int) -> None:
    """Makes rows from `first_row` on that cover a segment's header internal; another UnusedBytes than 1 is an error."""
    entry_format = context.entry_format
    if entry_format.is_pre_vista:
        return
    runs = {part.run.start for part in window.run_parts if part.is_first}
    headers = [segment.address for segment in context.heap.segments if segment.address in runs]
    if not headers:
        return
    rows = context.columns.since(first_row)
    wrong = np.flatnonzero(
        np.isin(rows.entry, np.array(headers, np.uint64)) & (rows.tags & np.uint16(BUSY | INTERNAL) == BUSY)
    )
    rows.tags[wrong] |= np.uint16(INTERNAL)
    for entry in rows.entry[wrong].tolist():
        place = entry + entry_format.word_offset + 7
        code = context.space.try_integer(place, 1)
        if code in (None, HEADER_CODE, RUN_END_CODE):
            continue
        message = f"{context.name}: the entry header at {entry:#x} is damaged (count of unused bytes)"
        wanted, found = f"{HEADER_CODE:02x}", f"{code:02x}"
        context.log.add_finding(Finding("entry_header", "error", context.address, place, 1, message, wanted, found))
