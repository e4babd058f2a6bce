"""Reads the large allocations of a segment heap from the tree of their nodes (docs/reference/heap-structures.md §6.6).

Each allocation has committed memory of its own at a multiple of 64 KiB, and a node in a red-black tree whose root lies
in the heap's header. Their records are `LargeBlock`s, like those of large blocks of NT heaps.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE, is_missing
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import SIGNATURE, contexts
from heapdump.heaps.segment.large_nodes import read_block, unused_of
from heapdump.heaps.segment.large_places import PlacedBlock, placed_blocks
from heapdump.heaps.segment.large_search import counted_bytes, unlinked_blocks
from heapdump.heaps.segment.locks import lock_words
from heapdump.layouts import Layout
from heapdump.memory import limits
from heapdump.spans import Span
from heapdump.trust import Trust

_MOST_OTHER_HEAPS = 64
"""The most other heaps of the process whose trees are read when large allocations are searched."""

_ENCODED_BIT = 1
"""Bit 0 of the tree's Min member: links are XORed with the address of the word, or node, that holds them."""


def read_large_allocations(
    discovery: SegmentDiscovery, segments: Set[int]
) -> tuple[tuple[LargeBlock, ...] | None, bool]:
    """(records ascending by address, None where the tree's root is not in the dump; True where none is missing).

    `segments`: addresses of the heap's segments.
    """
    view, heap = discovery.view, discovery.heap
    tree = heap + discovery.layout["_SEGMENT_HEAP"].offset("LargeAllocMetadata")
    root, least = view.space.try_pointer(tree), view.space.try_pointer(tree + view.pointer_bytes)
    if root is None or least is None:
        discovery.notes.append(f"the tree of large blocks of heap {heap:#x} is not in the dump")
        return None, False
    lists = contexts(view, discovery.layout, heap)
    if not root and not (lists and all(view.space.try_pointer(one.list_head) for one in lists)):
        discovery.notes.append(f"the header of heap {heap:#x} is damaged: whether it has large blocks is not known")
        return (), False
    found = _Tree(discovery, tree, is_encoded=bool(least & _ENCODED_BIT))
    found.read(root)
    _place(discovery, found, segments)
    if not _add_unlinked(discovery, found):
        discovery.notes.extend(found.notes)
    blocks = _without_overlaps(discovery, [found.blocks[address] for address in sorted(found.blocks)])
    return blocks, found.is_complete and len(blocks) == len(found.blocks)


def _place(discovery: SegmentDiscovery, tree: _Tree, segments: Set[int]) -> None:
    """Puts the allocations at their places, each with the bytes of the memory map, and reports damage.

    Where a thread holds the lock of the tree, the order of the tree is no witness.
    """
    named, view = tree.in_order(), discovery.view
    placed = [PlacedBlock(block) for block in named]
    if not lock_words(discovery.process, view, discovery.layout, discovery.heap):
        taken = {*view.heap_addresses, *segments}
        is_counted = counted_bytes(discovery) == sum(block.commit_bytes for block in named)
        placed = placed_blocks(discovery.process.regions, named, taken, are_sizes_counted=is_counted)
    tree.blocks.clear()
    for one in placed:
        if one.named is not None:
            _report_place(discovery, tree, one)
        if one.block is not None:
            tree.blocks.setdefault(one.block.list_entry, _with_mapped_bytes(discovery, one.block))
            _report_unused(discovery, one.block)


def _report_place(discovery: SegmentDiscovery, tree: _Tree, placed: PlacedBlock) -> None:
    """Adds a finding about a node that names the place of something else."""
    assert placed.named is not None
    node, block = placed.named.metadata or 0, placed.block
    if block is None:
        tree.add_damaged(node)
        return
    place = "a guess" if block.trust is Trust.GUESS else f"{block.list_entry:#x}"
    message = (
        f"the node at {node:#x} in the tree of large blocks of heap {discovery.heap:#x} names "
        f"{placed.named.list_entry:#x}, which contradicts the tree or the memory map: its block is taken to be at "
        f"{block.list_entry:#x}"
    )
    damaged = DamagedBytes(
        "large_metadata", _address_place(discovery.layout, node), discovery.view.pointer_bytes,
        place, f"{placed.named.list_entry:#x}",
    )  # fmt: skip
    discovery.report(damaged, message)


def _add_unlinked(discovery: SegmentDiscovery, tree: _Tree) -> bool:
    """Adds allocations to which the tree does not lead; True where all that the heap counts are known then.

    Nothing is searched where a thread holds the lock of the tree, because it may be changing it. Where no node of the
    tree is damaged, each added allocation is a finding.
    """
    view, process, heap = discovery.view, discovery.process, discovery.heap
    missing = counted_bytes(discovery) - sum(block.commit_bytes for block in tree.blocks.values())
    if missing <= 0 or lock_words(process, view, discovery.layout, heap):
        return False
    unlinked = unlinked_blocks(discovery, tree.blocks, _others(discovery), tree.damaged)
    for block in unlinked:
        tree.blocks[block.list_entry] = block
        if block.metadata is None:
            discovery.notes.append(
                f"the large block at {block.list_entry:#x} of heap {heap:#x} has no node: its size is a guess"
            )
        if tree.is_complete:
            message = f"the tree of large blocks of heap {heap:#x} does not lead to the one at {block.list_entry:#x}"
            damaged = DamagedBytes(
                "large_metadata", block.metadata or tree.address, view.pointer_bytes, "linked", "not linked"
            )
            discovery.report(damaged, message)
    if sum(block.commit_bytes for block in unlinked) != missing:
        return False
    tree.is_complete = True
    return True


def _others(discovery: SegmentDiscovery) -> set[int]:
    """Addresses of the large allocations of other heaps of the view."""
    view, found = discovery.view, set[int]()
    struct = discovery.layout["_SEGMENT_HEAP"]
    for heap in view.heap_addresses[:_MOST_OTHER_HEAPS]:
        if heap == discovery.heap or view.space.try_integer(heap + struct.offset("Signature"), 4) != SIGNATURE:
            continue
        tree = heap + struct.offset("LargeAllocMetadata")
        root, least = view.space.try_pointer(tree), view.space.try_pointer(tree + view.pointer_bytes)
        if root and least:
            other = SegmentDiscovery(discovery.shared, discovery.layout, heap)
            nodes = _Tree(other, tree, is_encoded=bool(least & _ENCODED_BIT))
            nodes.read(root)
            found |= {block.list_entry for block in nodes.records.values()}
    return found


class _Tree:
    """The tree of one heap.

    Attributes:
        records: address of a node → record of its allocation, at the place that the node names.
        blocks: address of the allocation → record; filled when the places are known.
        is_complete: False where a node could not be read.
        damaged: addresses of nodes that name no possible allocation.
        notes: sentences about what is missing because of that.
    """

    def __init__(self, discovery: SegmentDiscovery, address: int, *, is_encoded: bool) -> None:
        """`address`: of the tree (Root, Min) in the heap's header; `is_encoded`: links are XORed, see _ENCODED_BIT."""
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
        last = node + discovery.layout["_HEAP_LARGE_ALLOC_DATA"].size - 1
        if is_missing(discovery.process, node) or is_missing(discovery.process, last):
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


def _without_overlaps(discovery: SegmentDiscovery, blocks: list[LargeBlock]) -> tuple[LargeBlock, ...]:
    """The records, ascending; those that begin inside another one are left out, with a finding for each."""
    accepted: list[LargeBlock] = []
    for block in blocks:
        if not accepted or accepted[-1].list_entry + accepted[-1].commit_bytes <= block.list_entry:
            accepted.append(block)
            continue
        message = (
            f"the large block at {block.list_entry:#x} of heap {discovery.heap:#x} lies inside the one at "
            f"{accepted[-1].list_entry:#x} and is left out"
        )
        place, found = _address_place(discovery.layout, block.metadata or 0), f"{block.list_entry:#x}"
        damaged = DamagedBytes("large_metadata", place, 8, "memory of its own", found)
        discovery.report(damaged, message, note=message)
    return tuple(accepted)


def _with_mapped_bytes(discovery: SegmentDiscovery, block: LargeBlock) -> LargeBlock:
    """The record; where its committed bytes differ from the memory map, which is damage, with the bytes of the map."""
    regions = discovery.process.regions
    if not regions.is_complete_map:
        return block
    named = Span(block.list_entry, block.list_entry + block.commit_bytes)
    own = regions.allocation(block.list_entry)
    mapped = regions.committed_bytes(named if own is None else named & own or named)
    if mapped == block.commit_bytes:
        return block
    message = (
        f"the large block at {block.list_entry:#x} of heap {discovery.heap:#x} says {block.commit_bytes:,} bytes "
        f"committed, the memory map {mapped:,}, which are counted"
    )
    damaged = DamagedBytes("large_metadata", block.metadata or 0, 8, f"{mapped:#x}", f"{block.commit_bytes:#x}")
    discovery.report(damaged, message, note=message)
    return replace(block, commit_bytes=mapped, reserve_bytes=max(mapped, min(block.reserve_bytes, block.commit_bytes)))


def _address_place(layout: Layout, node: int) -> int:
    """The address of VirtualAddress in a node, which holds the allocation's address and its unused bytes."""
    return node + layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")


def _report_node(discovery: SegmentDiscovery, node: int) -> str:
    """Adds a finding about a node that names its parent but no possible allocation. Returns the gap, in words."""
    place = _address_place(discovery.layout, node)
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


def _report_unused(discovery: SegmentDiscovery, block: LargeBlock) -> None:
    unused = unused_of(discovery.view, discovery.layout, block)
    if unused is None or unused.is_possible:
        return
    where = f"the large block at {block.list_entry:#x}"
    message = f"heap {discovery.heap:#x}: {where} says {unused.bytes:,} bytes of it are not used"
    place = _address_place(discovery.layout, block.metadata or 0)
    damaged = DamagedBytes("large_metadata", place, 2, f"less than {PAGE:,}", f"{unused.bytes:,}")
    discovery.report(damaged, message)
