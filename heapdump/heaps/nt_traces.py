"""Where blocks of an NT heap say which stack allocated them (heap-structures.md §4.1).

A front prefix holds a pointer (7 and later), HEAP_ENTRY_EXTRA behind the user data an index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.records import Heap, HeapKind
from heapdump.blocks.table import BlockKind, BlockTable
from heapdump.heaps.walked import NumbersOf
from heapdump.process.model import View

_EXTRA = 0x02  # entry flag: HEAP_ENTRY_EXTRA with an index behind the user data
_STUB = 0x0502  # EntryOffset 2, code 5: the header behind a front prefix


def nt_traces(view: View, heap: Heap, table: BlockTable) -> NumbersOf:
    """Reads stack numbers."""
    return lambda rows: _numbers(view, table, rows)


def _numbers(view: View, table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    granule, pointer = view.granularity, view.pointer_bytes
    out = np.zeros(len(rows), np.uint64)
    tags = table.tags[rows]
    busy = table.is_busy[rows]
    address = table.entry[rows] + table.lead[rows].astype(np.uint64) * np.uint64(8)
    prefixed = np.flatnonzero(busy & (table.lead[rows].astype(np.int64) * 8 == 3 * granule))
    stubs, _ = view.space.gather(address[prefixed] - np.uint64(2), 2)
    prefixed = prefixed[stubs == _STUB]
    out[prefixed], _ = view.space.gather(address[prefixed] - np.uint64(4 * pointer), pointer)
    extra = np.flatnonzero(busy & (out == 0) & ((tags >> 8 & _EXTRA) != 0))
    end = table.entry[rows[extra]] + table.units[rows[extra]].astype(np.uint64) * np.uint64(8)
    large = (tags[extra] & 0xF) == BlockKind.VIRTUAL
    place = np.where(large, table.entry[rows[extra]] - np.uint64(2 * granule), end - np.uint64(granule))
    out[extra], _ = view.space.gather(place, 2)
    return out


TRACES = (HeapKind.NT, nt_traces)
