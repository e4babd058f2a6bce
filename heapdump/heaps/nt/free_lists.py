"""Reads the free lists of an NT heap: 128 lists by size before Vista; later one list, ascending by size.

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
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import BUSY_FLAG, decode_headers
from heapdump.memory import limits
from heapdump.process.model import Process, View
from heapdump.spans import Span, SpanMap

_BATCH = 512
"""Nodes that are read at a time."""


def read_free_lists(process: Process, view: View, heap: Heap) -> FreeLists | None:
    """The entries on the free lists; None for heaps of other kinds. A broken list is read from both ends.

    Takes some µs for each entry.
    """
    if heap.kind != HeapKind.NT or heap.layout is None:
        return None
    context = heap_context(view, heap)
    granule, field = context.entry_format.granule, context.layout["_HEAP"].fields["FreeLists"]
    segments = SpanMap((segment.span, segment.address) for segment in heap.segments)
    words: dict[int, int] = {}

    def accepts(node: int) -> bool:
        """True for a node inside a segment whose header is in the dump; its header word is put into `words`."""
        word = context.header_word(node - granule)
        if word is None or node % granule or segments.at(node - granule) is None:
            return False
        words[node] = word
        return True

    def is_unknown(node: int) -> bool:
        """True for a node whose header is not in the dump, or that may lie in a segment that was not found."""
        is_inside = segments.at(node - granule) is not None
        return context.header_word(node - granule) is None if is_inside else not heap.is_fully_walked

    findings: list[Finding] = []
    nodes: list[int] = []
    is_complete = True
    for i in range(field.count):
        linked = walk_list(view.space, heap.address + field.offset + i * 2 * view.pointer_bytes, accepts)
        name = f"free list {i}" if field.count > 1 else "free list"
        findings += link_damage(process, "free_list", heap.address, linked, name, is_unknown)[0]
        nodes += linked.nodes
        is_complete = is_complete and linked.is_closed
    header = decode_headers(context.entry_format, np.array([signed64(words[node]) for node in nodes], np.int64))
    entry = np.array(nodes, np.int64) - granule
    free = (header.flags & BUSY_FLAG) == 0
    return FreeLists(entry[free], header.size[free] * granule, is_complete and bool(free.all()), tuple(findings))


def linked_nodes(context: HeapContext) -> frozenset[int]:
    """Nodes that the head of a free list, or a sound free entry on it, links to by Flink or Blink.

    An entry with a damaged header that is among them is free. Takes some µs for each entry.
    """
    field, pointer, found = context.layout["_HEAP"].fields["FreeLists"], context.view.pointer_bytes, set[int]()
    for i in range(field.count):
        head = context.address + field.offset + i * 2 * pointer
        for link in (0, pointer):
            found.update(_sound_chain(context, head, link))
    return frozenset(found)


def _sound_chain(context: HeapContext, head: int, link: int) -> set[int]:
    """The nodes from `head` on along one link, up to and with the first whose entry is not a sound free one.

    `link`: offset of the link in a node.
    """
    granule, space = context.entry_format.granule, context.space
    found: set[int] = set()
    node = space.try_pointer(head + link)
    while node and node != head and node not in found and len(found) < limits.MAX_LIST_NODES:
        found.add(node)
        word = context.header_word(node - granule)
        if word is None or not _is_sound_and_free(context.entry_format, word):
            break
        node = space.try_pointer(node + link)
    return found


def _is_sound_and_free(entry_format: EntryFormat, encoded: int) -> bool:
    """True for the header word, as it lies in memory, of a free entry whose checksum holds."""
    word = encoded ^ entry_format.unsigned_key
    checksum = (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF
    holds = not entry_format.mask or (encoded & entry_format.mask and not checksum)
    return bool(holds and word & 0xFFFF and not word >> entry_format.bits.flags & BUSY_FLAG)


def contradict_links(context: HeapContext, entries: NDArray[np.int64], busy: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) True for free entries whose neighbours on the list are in the dump, but do not link back.

    `entries`: addresses; `busy`: True for busy entries, for which the result is False.
    """
    out = np.zeros(len(entries), bool)
    space, pointer = context.space.mapped, context.view.pointer_bytes
    rows = np.flatnonzero(~busy)
    if not len(rows):
        return out
    nodes = (entries[rows] + context.entry_format.granule).astype(np.uint64)
    for link in (0, pointer):
        other, has_link = space.gather(nodes + np.uint64(link), pointer)
        back, has_back = space.gather(other + np.uint64(pointer - link), pointer)
        out[rows] |= has_link & has_back & (back != nodes)
    return out


def links_exactly(context: HeapContext, entries: NDArray[np.int64]) -> bool:
    """True when the free list of Vista and later holds exactly these entries, and every link holds; False before Vista.

    A fast check, some 0.2 µs for each entry. Where it fails, `read_free_lists` finds the damage.
    """
    field = context.layout["_HEAP"].fields["FreeLists"]
    if context.entry_format.is_pre_vista or field.count != 1:
        return False
    space, pointer = context.space, context.view.pointer_bytes
    head = context.address + field.offset
    nodes = np.sort(np.append(entries + context.entry_format.granule, head)).astype(np.uint64)
    links = np.zeros((2, len(nodes)), np.uint64)
    has_all = True
    for low in range(0, len(nodes), _BATCH):
        part = nodes[low : low + _BATCH]
        for row, offset in enumerate((0, pointer)):
            links[row, low : low + _BATCH], is_present = space.mapped.gather(part + np.uint64(offset), pointer)
            has_all = has_all and bool(is_present.all())
        if len(nodes) > _BATCH:  # each node maps the 64 KiB around it
            space.mapped.forget(Span(int(part[0]) & ~0xFFFF, int(part[-1]) + 0x10000))
    flink, blink = links
    target = np.minimum(np.searchsorted(nodes, flink), len(nodes) - 1)
    if not (has_all and (nodes[target] == flink).all() and (blink[target] == nodes).all()):
        return False
    following, start, steps = target.tolist(), int(np.searchsorted(nodes, np.uint64(head))), 1
    here = start
    while (here := following[here]) != start and steps < len(nodes):
        steps += 1
    return steps == len(nodes) and here == start
