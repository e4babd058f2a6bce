"""What a page heap records of its blocks, and which allocation stacks these have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import BlockTable
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.page.nodes import read_nodes
from heapdump.layouts import load
from heapdump.process.model import View


def page_nodes(view: View, heap: Heap) -> PageNodes | None:
    """The page heap's own records of its blocks; None for other heaps, and where its structures are not known."""
    if heap.kind != HeapKind.PAGE or heap.layout is None:
        return None
    return read_nodes(view, load(heap.layout), heap.address + PAGE, view.space.total_bytes).nodes


def page_traces(view: View, heap: Heap, table: BlockTable) -> TraceReader:
    """Reads stack numbers: of a freed block that of the stack which freed it."""
    nodes = page_nodes(view, heap)

    def numbers(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stack number of each row, 0 where none is recorded."""
        out = np.zeros(len(rows), np.uint64)
        if nodes is None or heap.layout is None:
            return out
        address, kind = table.address[rows], table.kind[rows]
        if len(nodes):
            full = np.flatnonzero(kind == BlockKind.PAGE)
            at = np.minimum(np.searchsorted(nodes.user, address[full]), len(nodes) - 1)
            out[full] = np.where(nodes.user[at] == address[full], nodes.trace[at], 0)
        light = np.flatnonzero(kind == BlockKind.LIGHT)
        place = load(heap.layout)["_DPH_BLOCK_INFORMATION"].offset("StackTrace")
        out[light], _ = view.space.mapped.gather(table.entry[rows[light]] + np.uint64(place), view.pointer_bytes)
        return out

    return numbers
