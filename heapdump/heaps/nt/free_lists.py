"""The free lists of one NT heap: 128 by size before Vista, one in the order of sizes since (heap-structures.md §2.4)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import HeapKind
from heapdump.heaps.linked_list import walk_list
from heapdump.heaps.nt.entry import BUSY_FLAG, decoded
from heapdump.heaps.nt.entry_format import EntryFormat, entry_format_of, signed
from heapdump.heaps.nt.segments import ring_findings
from heapdump.process.model import Process, View
from heapdump.spans import SpanMap


def read_free_lists(process: Process, view: View, heap: Heap) -> FreeLists | None:
    """What is linked, from both ends where a list is broken; None for heaps of other kinds. O(entries), some µs each."""
    if heap.kind != HeapKind.NT or heap.layout is None:
        return None
    entry_format = entry_format_of(view, heap)
    field = entry_format.layout["_HEAP"].fields["FreeLists"]
    segments = SpanMap((segment.span, segment.address) for segment in heap.segments)
    headers: dict[int, int] = {}

    def accepts(node: int) -> bool:
        """True for a node inside a segment; keeps its header."""
        entry = node - entry_format.granule
        raw = view.space.try_integer(entry + 8 * entry_format.word_index, 8)
        if raw is None or node % entry_format.granule or segments.at(entry) is None:
            return False
        headers[node] = raw
        return True

    findings: list[Finding] = []
    nodes: list[int] = []
    is_whole = True
    for i in range(field.count):
        ring = walk_list(view.space, heap.address + field.offset + i * 2 * view.pointer_bytes, accepts)
        ring_findings(
            process, "free_list", heap.address, ring, f"free list {i}" if field.count > 1 else "free list", findings, []
        )
        nodes += ring.nodes
        is_whole = is_whole and ring.is_closed
    header = decoded(entry_format, np.array([signed(headers[node]) for node in nodes], np.int64))
    entry = np.array(nodes, np.int64) - entry_format.granule
    free = (header.flags & BUSY_FLAG) == 0
    return FreeLists(
        entry[free], header.size[free] * entry_format.granule, is_whole and bool(free.all()), tuple(findings)
    )


def all_linked(view: View, heap: Heap, entry_format: EntryFormat, entries: NDArray[np.int64]) -> bool:
    """Whether the one free list of a later heap is a whole ring of exactly these entries, ascending by size: at once.

    False where it is not, or before Vista: `read_free_lists` tells what is wrong. Some 0.2 µs an entry.
    """
    field = entry_format.layout["_HEAP"].fields["FreeLists"]
    if entry_format.is_pre_vista or field.count != 1:
        return False
    pointer, granule = view.pointer_bytes, entry_format.granule
    head = heap.address + field.offset
    nodes = np.sort(np.append(entries + granule, head)).astype(np.uint64)
    following, there = view.space.mapped.gather(nodes, pointer)
    before, also = view.space.mapped.gather(nodes + np.uint64(pointer), pointer)
    at = np.minimum(np.searchsorted(nodes, following), len(nodes) - 1)
    if not (there.all() and also.all() and (nodes[at] == following).all() and (before[at] == nodes).all()):
        return False
    links, here, steps = at.tolist(), int(np.searchsorted(nodes, np.uint64(head))), 1
    start = here
    while (here := links[here]) != start and steps < len(nodes):
        steps += 1
    return steps == len(nodes) and here == start
