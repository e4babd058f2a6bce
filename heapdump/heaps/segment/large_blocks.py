"""Large blocks of segment heaps: the tree of their metadata (heap-structures.md §6.6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE, DiscoveryContext, is_missing
from heapdump.heaps.integers import address_limit
from heapdump.heaps.segment.page_ranges import EXTRA_ROOM
from heapdump.layouts import Layout
from heapdump.memory import limits
from heapdump.memory.regions import State
from heapdump.process.model import Process, View
from heapdump.spans import Span

_ENCODED = 1
_BOUNDARY = 0x10000
_MOST_BYTES = 1 << 34
_SLOT = 1 << 20
"""Newer builds reserve large blocks in multiples of this."""


def read_large_blocks(
    context: DiscoveryContext, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[tuple[LargeBlock, ...] | None, bool]:
    """(blocks ascending by address, or None where the tree's root is not in the dump; whether none can be missing)."""
    process, view = context.process, context.view
    tree = heap + layout["_SEGMENT_HEAP"].offset("LargeAllocMetadata")
    root, least = view.space.try_pointer(tree), view.space.try_pointer(tree + view.pointer_bytes)
    if root is None or least is None:
        notes.append(f"the tree of large blocks of heap {heap:#x} is not in the dump")
        return None, False
    encoded = bool(least & _ENCODED)
    blocks, seen, whole = dict[int, LargeBlock](), {0}, True
    pending = [(root ^ tree if encoded else root, tree)] if root else []
    while pending and len(seen) < limits.MAX_LIST_NODES:
        node, parent = pending.pop()
        block = None if node in seen else read_block(process, view, layout, node)
        names_parent = node not in seen and not encoded and _parent(view, node) == (0 if parent == tree else parent)
        if block is None or block.list_entry in blocks:
            whole = False
            if names_parent:
                _wrong_block(layout, heap, node, findings, notes)
            elif is_missing(process, node) or is_missing(process, node + layout["_HEAP_LARGE_ALLOC_DATA"].size - 1):
                notes.append(
                    f"the node {node:#x} in the tree of large blocks of heap {heap:#x} is not in the dump: blocks may be missing"
                )
            else:
                _broken(view, heap, parent, node, findings, notes)
            if not names_parent:
                continue
        else:
            blocks[block.list_entry] = _checked(process, heap, block, findings, notes)
            _report_unused(view, layout, heap, block, findings)
        seen.add(node)
        fields = view.struct("_HEAP_LARGE_ALLOC_DATA", node, layout) or {}
        children = (child for child in (fields["Left"], fields["Right"]) if child)
        pending += [(child ^ node if encoded else child, node) for child in children]
    kept = _disjoint(layout, heap, [blocks[address] for address in sorted(blocks)], findings, notes)
    return kept, whole and len(kept) == len(blocks)


def _disjoint(
    layout: Layout, heap: int, blocks: list[LargeBlock], findings: list[Finding], notes: list[str]
) -> tuple[LargeBlock, ...]:
    """The blocks, ascending, without those that begin inside another one."""
    kept: list[LargeBlock] = []
    for block in blocks:
        if not kept or kept[-1].list_entry + kept[-1].commit_bytes <= block.list_entry:
            kept.append(block)
            continue
        place = (block.metadata or 0) + layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")
        message = f"the large block at {block.list_entry:#x} of heap {heap:#x} lies inside the one at {kept[-1].list_entry:#x} and is left out"
        findings.append(
            Finding("large_metadata", "error", heap, place, 8, message, "memory of its own", f"{block.list_entry:#x}")
        )
        notes.append(message)
    return tuple(kept)


def _checked(process: Process, heap: int, block: LargeBlock, findings: list[Finding], notes: list[str]) -> LargeBlock:
    """The block with the committed bytes that the memory map shows, where its metadata says more (damage)."""
    if not process.regions.is_complete_map:
        return block
    end = block.list_entry + block.commit_bytes
    shown = process.regions.committed_bytes(Span(block.list_entry, end))
    if shown == block.commit_bytes:
        return block
    message = (
        f"the large block at {block.list_entry:#x} of heap {heap:#x} says {block.commit_bytes:,} bytes committed, "
        f"the memory map {shown:,}, which are counted"
    )
    node = block.metadata or 0
    findings.append(
        Finding("large_metadata", "error", heap, node, 8, message, f"{shown:#x}", f"{block.commit_bytes:#x}")
    )
    notes.append(message)
    return replace(block, commit_bytes=shown, reserve_bytes=max(shown, min(block.reserve_bytes, block.commit_bytes)))


def _parent(view: View, node: int) -> int | None:
    """The parent that a node names: behind its two children, with its colour in the lowest bit."""
    parent = view.space.try_pointer(node + 2 * view.pointer_bytes)
    return None if parent is None else parent & ~3


def _wrong_block(layout: Layout, heap: int, node: int, findings: list[Finding], notes: list[str]) -> None:
    """A node of the tree, which names its parent, whose block cannot be: those below it are read."""
    struct = layout["_HEAP_LARGE_ALLOC_DATA"]
    place = node + struct.offset("VirtualAddress")
    message = f"the node at {node:#x} in the tree of large blocks of heap {heap:#x} names no large block"
    findings.append(
        Finding(
            "large_metadata", "error", heap, place, node + struct.size - place, message, "its place and size", "others"
        )
    )
    notes.append(f"{message}: that block is missing")


def _broken(view: View, heap: int, parent: int, node: int, findings: list[Finding], notes: list[str]) -> None:
    message = f"the tree of large blocks of heap {heap:#x} is broken: the node {node:#x} named at {parent:#x} is none"
    wanted = "the metadata of a large block"
    findings.append(
        Finding("large_metadata", "error", heap, parent, 2 * view.pointer_bytes, message, wanted, f"{node:#x}")
    )
    notes.append(f"{message}; more large blocks may be missing behind it")


def read_block(process: Process, view: View, layout: Layout, node: int) -> LargeBlock | None:
    """The large block whose metadata lies at `node`; None where its place and size cannot be true."""
    fields = view.struct("_HEAP_LARGE_ALLOC_DATA", node, layout)
    if fields is None or node % view.pointer_bytes:
        return None
    address, unused = fields["VirtualAddress"] & ~(_BOUNDARY - 1), fields["VirtualAddress"] & (_BOUNDARY - 1)
    size = fields["AllocatedPages"] & ~(PAGE - 1)
    if not address or not unused <= size or not 0 < size < _MOST_BYTES or address + size > address_limit(view):
        return None
    regions = process.regions
    if regions.is_complete_map:
        i = regions.index_at(address)
        if i is None or regions.state[i] != State.MEM_COMMIT:
            return None
    return LargeBlock(address, size, reserved(process, address, size), node)


@dataclass(frozen=True, slots=True)
class Unused:
    """The bytes of a large block that were not asked for; `is_known` False where they can be none: more than a page.

    `has_extra`: something of the heap's stands in front of them.
    """

    bytes: int
    has_extra: bool

    @property
    def is_known(self) -> bool:
        """What is left of a page, and what the heap puts behind the block."""
        return self.bytes < PAGE + EXTRA_ROOM * self.has_extra


def unused_of(view: View, layout: Layout, block: LargeBlock) -> Unused | None:
    """What the metadata of a large block says of its unused bytes; None where it is not in the dump."""
    fields = view.struct("_HEAP_LARGE_ALLOC_DATA", block.metadata, layout) if block.metadata is not None else None
    return (
        None
        if fields is None
        else Unused(fields["VirtualAddress"] & (_BOUNDARY - 1), bool(fields["AllocatedPages"] & 1))
    )


def _report_unused(view: View, layout: Layout, heap: int, block: LargeBlock, findings: list[Finding]) -> None:
    unused = unused_of(view, layout, block)
    if unused is not None and not unused.is_known:
        place = (block.metadata or 0) + layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")
        message = (
            f"heap {heap:#x}: the large block at {block.list_entry:#x} says {unused.bytes:,} bytes of it are not used"
        )
        findings.append(
            Finding("large_metadata", "error", heap, place, 2, message, f"less than {PAGE:,}", f"{unused.bytes:,}")
        )


def reserved(process: Process, address: int, size: int) -> int:
    """Bytes reserved for a large block: with the reserved rest of its MiB, or of its own reservation, behind it."""
    whole = process.regions.allocation(address)
    i = process.regions.index_at(address + size)
    if whole is None or i is None or process.regions.state[i] != State.MEM_RESERVE or address + size not in whole:
        return size
    end = min(int(process.regions.end[i]), whole.end)
    return (end if whole.start == address else min(end, -(-(address + size) // _SLOT) * _SLOT)) - address
