"""Finds the large allocations of a segment heap where the dump lacks its header, and with it the root of their tree.

The nodes lie in a heap of ntdll's own and name committed memory of exactly their size, as in `large_search`. Without a
count of Windows that confirms them, their links must: a node names its parent, which names it
(docs/reference/heap-structures.md §6.6). No node names its heap, so nothing is found where two heaps lack their trees.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import dataclass, replace

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.header import SIGNATURE
from heapdump.heaps.segment.large_search import all_places, nodes_in
from heapdump.process.model import View
from heapdump.trust import Trust

_COLOUR = 3
"""Bits of ParentValue that are no address."""


@dataclass(frozen=True, slots=True)
class _NodeLinks:
    """The links of a node; `parent` is 0 for the root."""

    children: tuple[int, int]
    parent: int


def blocks_without_root(discovery: SegmentDiscovery, others: Set[int]) -> list[LargeBlock]:
    """The allocations whose nodes form one tree that belongs to no other heap; ascending by address.

    Trust is derived; that of a root without children is a guess, because a record of a program may look like it. Empty
    without a complete memory map. Links over nodes that the dump lacks are taken as they are.

    Args:
        discovery: the heap.
        others: addresses of the allocations of other heaps, and of segments.
    """
    if not discovery.process.regions.is_complete_map or _is_ambiguous(discovery):
        return []
    found = dict[int, LargeBlock]()
    for span in all_places(discovery):
        found |= {block.metadata or 0: block for block in nodes_in(discovery, span) if block.list_entry not in others}
    nodes = dict(_nodes(discovery, found))
    linked = [at for at in nodes if _is_linked(discovery.view, nodes, at)]
    lone = [at for at in linked if not nodes[at].parent and not any(nodes[at].children)]
    tree = [at for at in linked if at not in lone] or lone
    if sum(not nodes[at].parent for at in tree) > 1 or len({found[at].list_entry for at in tree}) < len(tree):
        return []
    trust = Trust.GUESS if tree == lone else Trust.DERIVED
    return sorted((replace(found[at], trust=trust) for at in tree), key=lambda block: block.list_entry)


def _is_ambiguous(discovery: SegmentDiscovery) -> bool:
    """True where another heap may be the one whose tree is missing."""
    view, tree = discovery.view, discovery.layout["_SEGMENT_HEAP"].offset("LargeAllocMetadata")
    for heap in view.heap_addresses:
        word = view.space.try_integer(heap + 2 * view.pointer_bytes, 4)
        has_no_tree = word == SIGNATURE and view.space.try_pointer(heap + tree) is None
        if heap != discovery.heap and (word is None or has_no_tree):
            return True
    return False


def _nodes(discovery: SegmentDiscovery, found: dict[int, LargeBlock]) -> Iterator[tuple[int, _NodeLinks]]:
    """Address → links of each node that the dump holds."""
    for at in found:
        fields = discovery.view.struct("_HEAP_LARGE_ALLOC_DATA", at, discovery.layout)
        parent = discovery.view.space.try_pointer(at + 2 * discovery.view.pointer_bytes)
        if fields is not None and parent is not None:
            yield at, _NodeLinks((fields["Left"], fields["Right"]), parent & ~_COLOUR)


def _is_linked(view: View, nodes: dict[int, _NodeLinks], at: int) -> bool:
    """True where the parent of a node and its children name it, as far as the dump holds them."""
    node = nodes[at]
    if any(child not in nodes and not _is_missing(view, child) for child in node.children if child):
        return False
    if any(child in nodes and nodes[child].parent != at for child in node.children):
        return False
    if not node.parent:
        return True
    return at in nodes[node.parent].children if node.parent in nodes else _is_missing(view, node.parent)


def _is_missing(view: View, node: int) -> bool:
    """True where a node may lie that the dump lacks."""
    return node % view.pointer_bytes == 0 and view.space.try_pointer(node) is None
