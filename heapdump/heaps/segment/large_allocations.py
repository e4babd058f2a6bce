"""Reads the large allocations of a segment heap from the tree of their nodes (docs/reference/heap-structures.md §6.6).

Each allocation has committed memory of its own at a multiple of 64 KiB, and a node in a red-black tree whose root lies
in the heap's header. Their records are `LargeBlock`s, like those of large blocks of NT heaps.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from dataclasses import replace

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import SIGNATURE, contexts
from heapdump.heaps.segment.large_headless import blocks_without_root
from heapdump.heaps.segment.large_nodes import unused_of
from heapdump.heaps.segment.large_places import PlacedBlock, placed_blocks
from heapdump.heaps.segment.large_search import counted_bytes, unlinked_blocks
from heapdump.heaps.segment.large_tree import ENCODED_BIT, LargeTree, address_place
from heapdump.heaps.segment.locks import lock_words
from heapdump.spans import Span
from heapdump.trust import Trust

_MOST_OTHER_HEAPS = 64
"""The most other heaps of the process whose trees are read when large allocations are searched."""


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
        return _without_root(discovery, segments), False
    lists = contexts(view, discovery.layout, heap)
    if not root and not (lists and all(view.space.try_pointer(one.list_head) for one in lists)):
        discovery.notes.append(f"the header of heap {heap:#x} is damaged: whether it has large blocks is not known")
        return (), False
    found = LargeTree(discovery, tree, is_encoded=bool(least & ENCODED_BIT))
    found.read(root)
    _place(discovery, found, segments)
    if not _add_unlinked(discovery, found):
        discovery.notes.extend((*found.notes, *_missing_bytes(discovery, found)))
    blocks = _without_overlaps(discovery, [found.blocks[address] for address in sorted(found.blocks)])
    return blocks, found.is_complete and len(blocks) == len(found.blocks)


def _without_root(discovery: SegmentDiscovery, segments: Set[int]) -> tuple[LargeBlock, ...] | None:
    """The allocations that their nodes alone tell, None for none; the note says that others may be missing."""
    others = {*_others(discovery), *segments, *discovery.view.heap_addresses}
    blocks = _without_overlaps(discovery, blocks_without_root(discovery, others))
    listed = f"{len(blocks):,} with {sum(block.commit_bytes for block in blocks):,} bytes are told by their nodes"
    discovery.notes.append(
        f"the tree of large blocks of heap {discovery.heap:#x} is not in the dump: "
        + (f"{listed}, others may be missing" if blocks else "its large blocks are not known")
    )
    return blocks or None


def _missing_bytes(discovery: SegmentDiscovery, tree: LargeTree) -> Iterator[str]:
    """How many bytes of allocations Windows counts that are not listed, in words; nothing where none is missing."""
    missing = counted_bytes(discovery) - sum(block.commit_bytes for block in tree.blocks.values())
    if missing > 0 and not tree.is_complete:
        yield f"heap {discovery.heap:#x}: {missing:,} bytes of large blocks that Windows counts are not listed"


def _place(discovery: SegmentDiscovery, tree: LargeTree, segments: Set[int]) -> None:
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


def _report_place(discovery: SegmentDiscovery, tree: LargeTree, placed: PlacedBlock) -> None:
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
        "large_metadata", address_place(discovery.layout, node), discovery.view.pointer_bytes,
        place, f"{placed.named.list_entry:#x}",
    )  # fmt: skip
    discovery.report(damaged, message)


def _add_unlinked(discovery: SegmentDiscovery, tree: LargeTree) -> bool:
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
            nodes = LargeTree(other, tree, is_encoded=bool(least & ENCODED_BIT))
            nodes.read(root)
            found |= {block.list_entry for block in nodes.records.values()}
    return found


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
        place, found = address_place(discovery.layout, block.metadata or 0), f"{block.list_entry:#x}"
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


def _report_unused(discovery: SegmentDiscovery, block: LargeBlock) -> None:
    unused = unused_of(discovery.view, discovery.layout, block)
    if unused is None or unused.is_possible:
        return
    where = f"the large block at {block.list_entry:#x}"
    message = f"heap {discovery.heap:#x}: {where} says {unused.bytes:,} bytes of it are not used"
    place = address_place(discovery.layout, block.metadata or 0)
    damaged = DamagedBytes("large_metadata", place, 2, f"less than {PAGE:,}", f"{unused.bytes:,}")
    discovery.report(damaged, message)
