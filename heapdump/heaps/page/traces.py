"""Reads the nodes of a page heap, and the allocation stacks of its blocks (docs/reference/heap-structures.md §5.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import BlockTable
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.page.nodes import read_nodes
from heapdump.heaps.page.structures import members, root_of
from heapdump.layouts import load
from heapdump.process.model import View


def page_nodes(view: View, heap: Heap) -> PageNodes | None:
    """The nodes of a page heap; None for heaps of other kinds, and where its structures are not known."""
    if heap.kind != HeapKind.PAGE or heap.layout is None:
        return None
    return read_nodes(view, load(heap.layout), root_of(heap.address)).nodes


def page_traces(view: View, heap: Heap, table: BlockTable) -> TraceReader:
    """The reader of stack numbers: of the stack that allocated a busy block, or that freed a freed block."""
    nodes = page_nodes(view, heap)

    def numbers(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stack number of each row, 0 where none is recorded."""
        out = np.zeros(len(rows), np.uint64)
        if nodes is None or heap.layout is None:
            return out
        address, kind = table.address[rows], table.kind[rows]
        if len(nodes):
            full = np.flatnonzero(kind == BlockKind.PAGE)
            i = np.minimum(np.searchsorted(nodes.user, address[full]), len(nodes) - 1)
            out[full] = np.where(nodes.user[i] == address[full], nodes.trace[i], 0)
        light = np.flatnonzero(kind == BlockKind.LIGHT)
        information = load(heap.layout)["_DPH_BLOCK_INFORMATION"]
        out[light] = members(view, information, table.entry[rows[light]], "StackTrace")
        return out

    return numbers
