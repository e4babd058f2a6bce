"""The free lists of one NT heap: before Vista 128 by size, then one, ascending by size.

Source: docs/reference/heap-structures.md §2.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.integers import signed64
from heapdump.heaps.link_damage import link_damage
from heapdump.heaps.linked_list import walk_list
from heapdump.heaps.nt.context import HeapContext, heap_context
from heapdump.heaps.nt.header_word import BUSY_FLAG, decode_headers
from heapdump.process.model import Process, View
from heapdump.spans import SpanMap


def read_free_lists(process: Process, view: View, heap: Heap) -> FreeLists | None:
    """The entries on the lists, from both ends where one is broken; None for heaps of other kinds. Some µs an entry."""
    if heap.kind != HeapKind.NT or heap.layout is None:
        return None
    context = heap_context(view, heap)
    granule, field = context.entry_format.granule, context.layout["_HEAP"].fields["FreeLists"]
    segments = SpanMap((segment.span, segment.address) for segment in heap.segments)
    words: dict[int, int] = {}

    def accepts(node: int) -> bool:
        """True for a node inside a segment, whose header word goes to `words`."""
        word = context.header_word(node - granule)
        if word is None or node % granule or segments.at(node - granule) is None:
            return False
        words[node] = word
        return True

    findings: list[Finding] = []
    nodes: list[int] = []
    is_complete = True
    for i in range(field.count):
        linked = walk_list(view.space, heap.address + field.offset + i * 2 * view.pointer_bytes, accepts)
        name = f"free list {i}" if field.count > 1 else "free list"
        findings += link_damage(process, "free_list", heap.address, linked, name)[0]
        nodes += linked.nodes
        is_complete = is_complete and linked.is_closed
    header = decode_headers(context.entry_format, np.array([signed64(words[node]) for node in nodes], np.int64))
    entry = np.array(nodes, np.int64) - granule
    free = (header.flags & BUSY_FLAG) == 0
    return FreeLists(entry[free], header.size[free] * granule, is_complete and bool(free.all()), tuple(findings))


def links_exactly(context: HeapContext, entries: NDArray[np.int64]) -> bool:
    """True when the one free list of Vista and later holds exactly these entries and every link holds.

    False where it does not, and before Vista: `read_free_lists` finds what is wrong. Some 0.2 µs an entry.
    """
    field = context.layout["_HEAP"].fields["FreeLists"]
    if context.entry_format.is_pre_vista or field.count != 1:
        return False
    space, pointer = context.space, context.view.pointer_bytes
    head = context.address + field.offset
    nodes = np.sort(np.append(entries + context.entry_format.granule, head)).astype(np.uint64)
    flink, has_flink = space.mapped.gather(nodes, pointer)
    blink, has_blink = space.mapped.gather(nodes + np.uint64(pointer), pointer)
    target = np.minimum(np.searchsorted(nodes, flink), len(nodes) - 1)
    if not (has_flink.all() and has_blink.all() and (nodes[target] == flink).all() and (blink[target] == nodes).all()):
        return False
    links, start, steps = target.tolist(), int(np.searchsorted(nodes, np.uint64(head))), 1
    here = start
    while (here := links[here]) != start and steps < len(nodes):
        steps += 1
    return steps == len(nodes) and here == start
