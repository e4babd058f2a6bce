"""Where the blocks of a segment heap say which stack allocated them (heap-structures.md §4.1, §11).

Behind the user data, on the next granule, stands _SEGMENT_HEAP_EXTRA, and behind that the address of the stack's record.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Walk
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.segment.keys import PADDING
from heapdump.heaps.segment.padding import writes_header
from heapdump.kernels.row import BUSY, EXTRA, KIND_MASK
from heapdump.layouts import load
from heapdump.process.model import View

_MOST_PADDING = 0x40
_WIDE_EXTRA = 0x10000000
"""_SEGMENT_HEAP.GlobalFlags: one more granule stands before the extra on x64 (heap-structures.md §4.1)."""


def read_stack_numbers(view: View, heap: Heap, walk: Walk) -> TraceReader:
    """The reader of stack numbers; for the padding it relies on what the walk of the heap inferred."""
    padding = walk.facts.get(heap.index, {}).get(PADDING)
    known = padding if type(padding) is int and 0 < padding <= _MOST_PADDING else 0
    return lambda rows: _numbers(view, heap, walk.table, known, rows)


def _numbers(view: View, heap: Heap, table: BlockTable, padding: int, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    out = np.zeros(len(rows), np.uint64)
    if heap.layout is None:
        return out
    layout, granule = load(heap.layout), np.uint64(view.granularity)
    with_extra = np.flatnonzero(table.tags[rows] & np.uint16(BUSY | EXTRA) == np.uint16(BUSY | EXTRA))
    mine = rows[with_extra]
    place = (table.addresses(mine) + table.sizes(mine) + granule - np.uint64(1)) // granule * granule
    if not writes_header(layout):
        # the padding of a large block lies behind its user data there (three blocks of recorded 15063)
        large = (table.tags[mine] & np.uint16(KIND_MASK)) == BlockKind.LARGE
        place += np.where(large, np.uint64(padding), np.uint64(0))
    flags = view.space.try_integer(heap.address + layout["_SEGMENT_HEAP"].offset("GlobalFlags"), 4) or 0
    if flags & _WIDE_EXTRA and view.pointer_bytes == 8:
        place += granule
    out[with_extra], _ = view.space.mapped.gather(
        place + np.uint64(layout["_SEGMENT_HEAP_EXTRA"].size), view.pointer_bytes
    )
    return out
