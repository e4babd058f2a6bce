"""Memory of a heap that is not in the dump: its bytes, and the rows whose sizes cannot be read because of it."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.unused_bytes import count_places
from heapdump.heaps.nt.windows import Window, committed_runs
from heapdump.kernels.row import BUSY
from heapdump.process.model import Process, View
from heapdump.trust import Trust


def missing_bytes(process: Process, view: View, heap: Heap) -> int:
    """Bytes of the committed runs of a heap that are not in the dump, but committed by the memory map.

    In 8 and later, committed runs contain decommitted pages of free entries; these do not count.
    """
    runs = [run for segment in heap.segments for run in committed_runs(segment)]
    starts, ends = (np.array([getattr(run, side) for run in runs], np.uint64) for side in ("start", "end"))
    present = view.space.mapped.bytes_present(starts, ends)
    total = 0
    for i in np.flatnonzero(present < ends - starts).tolist():
        size = runs[i].size
        if process.regions.is_complete_map:
            size = process.regions.committed_bytes(runs[i], readable=True)
        total += max(0, size - int(present[i]))
    return total


def doubt_unread_sizes(context: HeapContext, window: Window, rows: BlockTable) -> None:
    """Makes busy rows guesses where their number of unused bytes is not in the dump.

    Their size is then the largest that the header allows. `rows`: of the window.
    """
    if not window.missing or not len(rows):
        return
    entry_format, bits = context.entry_format, context.entry_format.bits
    entry = rows.entry.view(np.int64)
    bases = window.bases(entry)
    word = window.words[(entry - bases) // 8 + entry_format.word_index]
    code = word >> bits.unused & 0xFF
    place, least = count_places(entry_format, entry, rows.entry_size.astype(np.int64), code)
    is_busy = (rows.tags & np.uint16(BUSY)) != 0
    unread = is_busy & (place >= 0) & window.lacks(place) & (~window.lacks(entry + entry_format.word_offset))
    if not unread.any():
        return
    rows.unused[unread] = np.minimum(np.maximum(least, rows.header8 * 8), rows.entry_size)[unread]
    lower_trust(rows.tags, unread, Trust.GUESS)
