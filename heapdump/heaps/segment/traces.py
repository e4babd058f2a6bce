"""Allocation stacks of the blocks of segment heaps (docs/reference/heap-structures.md §4.1).

Behind the user data, on the next granule, stands `_SEGMENT_HEAP_EXTRA`; the address of the stack's record follows it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Walk
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.segment.keys import padding_fact
from heapdump.heaps.segment.padding import writes_padding_header
from heapdump.kernels.row import BUSY, EXTRA, KIND_MASK
from heapdump.layouts import Layout, load
from heapdump.process.model import View

_WIDE_EXTRA = 0x10000000
"""_SEGMENT_HEAP.GlobalFlags: on x64 one more granule lies in front of the extra."""


def trace_reader(view: View, heap: Heap, walk: Walk) -> TraceReader | None:
    """Reads the addresses of stack records; None for a heap without a layout. The walk's facts tell the heap's padding."""
    if heap.layout is None:
        return None
    layout, padding = load(heap.layout), padding_fact(walk.facts.get(heap.index, {}))
    return lambda rows: _record_addresses(view, layout, walk.table, rows, _distances(view, heap, layout, padding))


def _distances(view: View, heap: Heap, layout: Layout, padding: int) -> tuple[int, int]:
    """Bytes from the granule behind the user data to the address of the record: (of large allocations, of other blocks).

    Up to 15063 the padding of a large allocation lies between its user data and its extra (recorded).
    """
    distance = layout["_SEGMENT_HEAP_EXTRA"].size
    flags = view.space.try_integer(heap.address + layout["_SEGMENT_HEAP"].offset("GlobalFlags"), 4) or 0
    if flags & _WIDE_EXTRA and view.pointer_bytes == 8:
        distance += view.granularity
    return distance + (0 if writes_padding_header(layout) else padding), distance


def _record_addresses(
    view: View, layout: Layout, table: BlockTable, rows: NDArray[np.int64], distances: tuple[int, int]
) -> NDArray[np.uint64]:
    """The address of the stack record of each row; (n,) uint64, 0 for rows without an extra."""
    out, granule = np.zeros(len(rows), np.uint64), np.uint64(view.granularity)
    with_extra = np.flatnonzero(table.tags[rows] & np.uint16(BUSY | EXTRA) == np.uint16(BUSY | EXTRA))
    chosen = rows[with_extra]
    end = table.addresses(chosen) + table.sizes(chosen)
    extra = (end + granule - np.uint64(1)) // granule * granule
    is_large = table.tags[chosen] & np.uint16(KIND_MASK) == BlockKind.LARGE
    distance = np.where(is_large, *(np.uint64(one) for one in distances))
    out[with_extra], _ = view.space.mapped.gather(extra + distance, view.pointer_bytes)
    return out
