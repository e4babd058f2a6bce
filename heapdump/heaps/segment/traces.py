"""Reads the allocation stacks of blocks of segment heaps (docs/reference/heap-structures.md §4.1).

On the granule behind the user data stands `_SEGMENT_HEAP_EXTRA`, followed by the address of the record of the stack.
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
"""Bit of _SEGMENT_HEAP.GlobalFlags: on x64 one more granule lies in front of the extra."""


def trace_reader(view: View, heap: Heap, walk: Walk) -> TraceReader | None:
    """The reader of the addresses of stack records; None for a heap without a layout."""
    if heap.layout is None:
        return None
    layout, padding = load(heap.layout), padding_fact(walk.facts.get(heap.index, {}))
    return lambda rows: _record_addresses(view, heap, layout, walk.table, rows, padding)


def extra_addresses(
    view: View, heap: Heap, layout: Layout, table: BlockTable, rows: NDArray[np.int64], padding: int
) -> NDArray[np.uint64]:
    """(n,) uint64 address of the extra of each row; every row must have one.

    It lies on the granule behind the user data. Up to 15063 the padding of a large allocation lies between them
    (recorded).
    """
    granule = np.uint64(view.granularity)
    end = table.addresses(rows) + table.sizes(rows)
    extra = (end + granule - np.uint64(1)) // granule * granule
    flags = view.space.try_integer(heap.address + layout["_SEGMENT_HEAP"].offset("GlobalFlags"), 4) or 0
    if flags & _WIDE_EXTRA and view.pointer_bytes == 8:
        extra += granule
    if not writes_padding_header(layout):
        extra[table.tags[rows] & np.uint16(KIND_MASK) == BlockKind.LARGE] += np.uint64(padding)
    return extra


def _record_addresses(
    view: View, heap: Heap, layout: Layout, table: BlockTable, rows: NDArray[np.int64], padding: int
) -> NDArray[np.uint64]:
    """(n,) uint64 address of the stack record of each row; 0 for rows without an extra."""
    out = np.zeros(len(rows), np.uint64)
    with_extra = np.flatnonzero(table.tags[rows] & np.uint16(BUSY | EXTRA) == np.uint16(BUSY | EXTRA))
    extra = extra_addresses(view, heap, layout, table, rows[with_extra], padding)
    record = extra + np.uint64(layout["_SEGMENT_HEAP_EXTRA"].size)
    out[with_extra], _ = view.space.mapped.gather(record, view.pointer_bytes)
    return out
