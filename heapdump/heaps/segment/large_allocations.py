"""Large allocations of a segment heap: the tree of their metadata (docs/reference/heap-structures.md §6.6).

Each has committed memory of its own at a multiple of 64 KiB, and a node in a red-black tree whose root lies in the heap's
header. Their records are `LargeBlock`s, as those of large blocks of NT heaps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE, is_missing
from heapdump.heaps.integers import address_limit
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import contexts
from heapdump.heaps.segment.page_ranges import EXTRA_ROOM
from heapdump.layouts import Layout
from heapdump.memory import limits
from heapdump.memory.regions import State
from heapdump.process.model import Process, View
from heapdump.spans import Span

_ENCODED_BIT = 1
"""Bit 0 of the tree's Min member: links are XORed with the address of the word, or node, that holds them."""

_ALIGNMENT = 0x10000
_MOST_BYTES = 1 << 34
_RESERVED_STEP = 1 << 20
"""Bytes of which the reservation of a large allocation is a multiple (recorded, 17763 and later)."""


@dataclass(frozen=True, slots=True)
class LargeUnused:
    """The unused bytes of a large allocation, as its metadata says: committed minus requested bytes.

    `has_extra`: an extra of the heap's own, which holds the allocation stack, stands behind the user data. `is_confirmed`:
    False where the metadata names other committed bytes than the record of the block, which has those of the memory map.
    """

    bytes: int
    has_extra: bool
    is_confirmed: bool

    @property
    def is_possible(self) -> bool:
        """False for more than a page and an extra: memory is committed by pages."""
        return self.bytes < PAGE + EXTRA_ROOM * self.has_extra


def read_large_allocations(discovery: SegmentDiscovery) -> tuple[tuple[LargeBlock, ...] | None, bool]:
    """(records ascending by address, None where the root of the tree is not in the dump; whether none is missing)."""
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
    blocks = _without_overlaps(discovery, [found.blocks[address] for address in sorted(found.blocks)])
    return blocks, found.is_complete and len(blocks) == len(found.blocks)


class _Tree:
    """The tree of one heap. `blocks`: address → record; `is_complete`: False where a node could not be read."""

    def __init__(self, discovery: SegmentDiscovery, address: int, *, is_encoded: bool) -> None:
        """`address`: of the tree's two members in the heap's header."""
        self._discovery, self._address, self._is_encoded = discovery, address, is_encoded
        self.blocks: dict[int, LargeBlock] = {}
        self.is_complete = True

    def read(self, root: int) -> None:
        """Reads all nodes from the root on; `root`: the member of the header as it is."""
        read = {0}
        pending = [(self._decoded(root, self._address), self._address)] if root else []
        while pending and len(read) < limits.MAX_LIST_NODES:
            node, parent = pending.pop()
            if self._accepts(node, parent, is_known=node in read):
                read.add(node)
                pending += [(child, node) for child in self._children(node)]

    def _decoded(self, link: int, holder: int) -> int:
        """The node that a link leads to; `holder`: address of the node, or the tree, that holds the link."""
        return link ^ holder if self._is_encoded else link

    def _children(self, node: int) -> Iterator[int]:
        fields = self._discovery.view.struct("_HEAP_LARGE_ALLOC_DATA", node, self._discovery.layout)
        links = () if fields is None else (fields["Left"], fields["Right"])
        return (self._decoded(link, node) for link in links if link)

    def _accepts(self, node: int, parent: int, *, is_known: bool) -> bool:
        """Adds the record of a node; False where its children cannot be read either. What does not hold is reported."""
        discovery = self._discovery
        block = None if is_known else read_block(discovery.process, discovery.view, discovery.layout, node)
        if block is not None and block.list_entry not in self.blocks:
            self.blocks[block.list_entry] = _with_mapped_bytes(discovery, block)
            _report_unused(discovery, block)
            return True
        self.is_complete = False
        if not is_known and self._names_parent(node, parent):
            _report_node(discovery, node)
            return True
        last = node + discovery.layout["_HEAP_LARGE_ALLOC_DATA"].size - 1
        if is_missing(discovery.process, node) or is_missing(discovery.process, last):
            discovery.notes.append(
                f"the node {node:#x} in the tree of large blocks of heap {discovery.heap:#x} is not in the dump: "
                "blocks may be missing"
            )
        else:
            _report_link(discovery, parent, node)
        return False

    def _names_parent(self, node: int, parent: int) -> bool:
        """True where all bytes of the node are in the dump, and ParentValue is the address of its parent, 0 in the root.

        Bits 0 and 1 of ParentValue hold the colour. In an encoded tree it was never recorded.
        """
        view = self._discovery.view
        if self._is_encoded or view.struct("_HEAP_LARGE_ALLOC_DATA", node, self._discovery.layout) is None:
            return False
        value = view.space.try_pointer(node + 2 * view.pointer_bytes)
        return value is not None and value & ~3 == (0 if parent == self._address else parent)


def _without_overlaps(discovery: SegmentDiscovery, blocks: list[LargeBlock]) -> tuple[LargeBlock, ...]:
    """The records, ascending, without those that begin inside another one; each of those is a finding."""
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
    """The record with the committed bytes of the memory map where the metadata names another number, which is damage."""
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
    """Address of the member with the allocation's address and its unused bytes."""
    return node + layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")


def _report_node(discovery: SegmentDiscovery, node: int) -> None:
    """A node that names its parent and has no possible allocation: its children are read."""
    place = _address_place(discovery.layout, node)
    length = node + discovery.layout["_HEAP_LARGE_ALLOC_DATA"].size - place
    message = f"the node at {node:#x} in the tree of large blocks of heap {discovery.heap:#x} names no large block"
    damaged = DamagedBytes("large_metadata", place, length, "its place and size", "others")
    discovery.report(damaged, message, note=f"{message}: that block is missing")


def _report_link(discovery: SegmentDiscovery, parent: int, node: int) -> None:
    """A link of the tree that leads to no node."""
    message = f"the tree of large blocks of heap {discovery.heap:#x} is broken: the node {node:#x} named at {parent:#x} is none"
    length = 2 * discovery.view.pointer_bytes
    damaged = DamagedBytes("large_metadata", parent, length, "the metadata of a large block", f"{node:#x}")
    discovery.report(damaged, message, note=f"{message}; more large blocks may be missing behind it")


def _report_unused(discovery: SegmentDiscovery, block: LargeBlock) -> None:
    unused = unused_of(discovery.view, discovery.layout, block)
    if unused is None or unused.is_possible:
        return
    message = f"heap {discovery.heap:#x}: the large block at {block.list_entry:#x} says {unused.bytes:,} bytes of it are not used"
    place = _address_place(discovery.layout, block.metadata or 0)
    damaged = DamagedBytes("large_metadata", place, 2, f"less than {PAGE:,}", f"{unused.bytes:,}")
    discovery.report(damaged, message)


def read_block(process: Process, view: View, layout: Layout, node: int) -> LargeBlock | None:
    """The record of the allocation whose metadata lies at `node`; None where its address and size are not possible."""
    fields = view.struct("_HEAP_LARGE_ALLOC_DATA", node, layout)
    if fields is None or node % view.pointer_bytes:
        return None
    address, unused = fields["VirtualAddress"] & ~(_ALIGNMENT - 1), fields["VirtualAddress"] & (_ALIGNMENT - 1)
    size = fields["AllocatedPages"] & ~(PAGE - 1)
    if not address or not unused <= size or not 0 < size < _MOST_BYTES or address + size > address_limit(view):
        return None
    regions = process.regions
    if regions.is_complete_map:
        i = regions.index_at(address)
        if i is None or regions.state[i] != State.MEM_COMMIT:
            return None
    return LargeBlock(address, size, _reserved_bytes(process, address, size), node)


def unused_of(view: View, layout: Layout, block: LargeBlock) -> LargeUnused | None:
    """The unused bytes of a large allocation; None where its metadata is not in the dump."""
    fields = view.struct("_HEAP_LARGE_ALLOC_DATA", block.metadata, layout) if block.metadata is not None else None
    if fields is None:
        return None
    is_confirmed = fields["AllocatedPages"] & ~(PAGE - 1) == block.commit_bytes
    return LargeUnused(fields["VirtualAddress"] & (_ALIGNMENT - 1), bool(fields["AllocatedPages"] & 1), is_confirmed)


def _reserved_bytes(process: Process, address: int, size: int) -> int:
    """Bytes reserved for a large allocation: the committed ones, and the reserved memory behind them.

    That ends with the reservation where the allocation begins it, else at the next multiple of 1 MiB.
    """
    reservation = process.regions.allocation(address)
    end = address + size
    i = process.regions.index_at(end)
    if reservation is None or i is None or process.regions.state[i] != State.MEM_RESERVE or end not in reservation:
        return size
    limit = min(int(process.regions.end[i]), reservation.end)
    if reservation.start != address:
        limit = min(limit, -(-end // _RESERVED_STEP) * _RESERVED_STEP)
    return limit - address
