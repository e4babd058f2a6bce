"""Reads the nodes of the tree of large allocations of a segment heap (docs/reference/heap-structures.md §6.6)."""

from __future__ import annotations

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import is_partly_missing
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.large_nodes import read_block
from heapdump.layouts import Layout
from heapdump.memory import limits

ENCODED_BIT = 1
"""Bit 0 of the tree's Min member: links are XORed with the address of the word, or node, that holds them."""


class LargeTree:
    """The tree of one heap.

    Attributes:
        records: address of a node → record of its allocation, at the place that the node names.
        blocks: address of the allocation → record; filled when the places are known.
        is_complete: False where a node could not be read.
        damaged: addresses of nodes that name no possible allocation.
        notes: sentences about what is missing because of that.
    """

    def __init__(self, discovery: SegmentDiscovery, address: int, *, is_encoded: bool) -> None:
        """`address`: of the tree (Root, Min) in the heap's header; `is_encoded`: links are XORed, see ENCODED_BIT."""
        self._discovery, self.address, self._is_encoded = discovery, address, is_encoded
        self.records: dict[int, LargeBlock] = {}
        self.blocks: dict[int, LargeBlock] = {}
        self.damaged: set[int] = set()
        self.notes: list[str] = []
        self.is_complete = True
        self._root = 0
        self._links: dict[int, tuple[int, int]] = {}

    def read(self, root: int) -> None:
        """Reads all nodes. `root`: the member Root of the tree, not decoded."""
        read = {0}
        self._root = self._decoded(root, self.address) if root else 0
        pending = [(self._root, self.address)] if root else []
        while pending and len(read) < limits.MAX_LIST_NODES:
            node, parent = pending.pop()
            if self._accepts(node, parent, is_known=node in read):
                read.add(node)
                pending += [(child, node) for child in self._children(node) if child]

    def in_order(self) -> list[LargeBlock]:
        """The records in the order of the tree, from left to right."""
        found, pending = list[LargeBlock](), [(self._root, False)]
        done = {0}
        while pending:
            node, is_left_done = pending.pop()
            if is_left_done:
                found += [self.records[node]] if node in self.records else []
            elif node not in done and node in self._links:
                done.add(node)
                left, right = self._links[node]
                pending += [(right, False), (node, True), (left, False)]
        return found

    def add_damaged(self, node: int) -> None:
        """Reports a node that names no possible allocation."""
        self.is_complete = False
        self.damaged.add(node)
        self.notes.append(_report_node(self._discovery, node))

    def _decoded(self, link: int, holder: int) -> int:
        """The node that a link leads to. `holder`: address of the node, or of the tree, that holds the link."""
        return link ^ holder if self._is_encoded else link

    def _children(self, node: int) -> tuple[int, int]:
        """(left child, right child); 0 for none."""
        fields = self._discovery.view.struct("_HEAP_LARGE_ALLOC_DATA", node, self._discovery.layout) or {}
        left, right = (self._decoded(link, node) if link else 0 for link in (fields.get("Left"), fields.get("Right")))
        self._links[node] = left, right
        return left, right

    def _accepts(self, node: int, parent: int, *, is_known: bool) -> bool:
        """Adds the record of a node and reports damage; False where its children cannot be read."""
        discovery = self._discovery
        block = None if is_known else read_block(discovery.process, discovery.view, discovery.layout, node)
        if block is not None:
            self.records[node] = block
            return True
        self.is_complete = False
        if not is_known and self._names_parent(node, parent):
            self.add_damaged(node)
            return True
        if is_partly_missing(discovery.process, node, discovery.layout["_HEAP_LARGE_ALLOC_DATA"].size):
            self.notes.append(
                f"the node {node:#x} in the tree of large blocks of heap {discovery.heap:#x} is not in the dump: "
                "blocks may be missing"
            )
        else:
            self.notes.append(_report_link(discovery, parent, node))
        return False

    def _names_parent(self, node: int, parent: int) -> bool:
        """True where the whole node is in the dump and ParentValue names its parent, 0 for the root.

        Bits 0 and 1 of ParentValue are the colour. How an encoded tree stores it was never recorded.
        """
        view = self._discovery.view
        if self._is_encoded or view.struct("_HEAP_LARGE_ALLOC_DATA", node, self._discovery.layout) is None:
            return False
        value = view.space.try_pointer(node + 2 * view.pointer_bytes)
        return value is not None and value & ~3 == (0 if parent == self.address else parent)


def address_place(layout: Layout, node: int) -> int:
    """The address of VirtualAddress in a node, which holds the allocation's address and its unused bytes."""
    return node + layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")


def _report_node(discovery: SegmentDiscovery, node: int) -> str:
    """Adds a finding about a node that names its parent but no possible allocation. Returns the gap, in words."""
    place = address_place(discovery.layout, node)
    length = node + discovery.layout["_HEAP_LARGE_ALLOC_DATA"].size - place
    message = f"the node at {node:#x} in the tree of large blocks of heap {discovery.heap:#x} names no large block"
    damaged = DamagedBytes("large_metadata", place, length, "its place and size", "others")
    discovery.report(damaged, message)
    return f"{message}: that block is missing"


def _report_link(discovery: SegmentDiscovery, parent: int, node: int) -> str:
    """Adds a finding about a link of the tree that leads to no node. Returns the gap, in words."""
    heap = discovery.heap
    message = f"the tree of large blocks of heap {heap:#x} is broken: the node {node:#x} named at {parent:#x} is none"
    length = 2 * discovery.view.pointer_bytes
    damaged = DamagedBytes("large_metadata", parent, length, "the metadata of a large block", f"{node:#x}")
    discovery.report(damaged, message)
    return f"{message}; more large blocks may be missing behind it"
