"""Large blocks: the VirtualAllocdBlocks list, the same in every version of the NT heap (heap-structures.md §2.6)."""

from __future__ import annotations

from dataclasses import replace

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE, DiscoveryContext
from heapdump.heaps.nt.segments import address_limit, ring_findings
from heapdump.layouts import Layout
from heapdump.memory.regions import State
from heapdump.process.model import Process, View
from heapdump.spans import Span


def read_large_blocks(
    context: DiscoveryContext, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[tuple[LargeBlock, ...] | None, bool]:
    """(blocks in list order, or None where the list's head is not in the dump; whether none can be missing).

    A broken list is followed from both of its ends.
    """
    process, view = context.process, context.view
    head = heap + layout["_HEAP"].offset("VirtualAllocdBlocks")
    if view.space.try_pointer(head) is None:
        notes.append(f"the large-block list of heap {heap:#x} is not in the dump")
        return None, False
    blocks: dict[int, LargeBlock] = {}

    def accepts(node: int) -> bool:
        """True for a large block's node; keeps the block."""
        block = _block(process, view, layout, node)
        if block is not None:
            blocks[node] = block
        return block is not None

    ring = context.ring(head, accepts)
    ring_findings(process, "virtual_list", heap, ring, "large-block list", findings, notes)
    commit = layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("CommitSize")
    found = tuple(_checked(process, heap, blocks[node], commit, findings, notes) for node in ring.nodes)
    return found, ring.is_closed


def _checked(
    process: Process, heap: int, block: LargeBlock, commit: int, findings: list[Finding], notes: list[str]
) -> LargeBlock:
    """The block with the committed bytes that the memory map shows, where its CommitSize says more (damage)."""
    if not process.regions.is_complete_map:
        return block
    shown = process.regions.committed_bytes(Span(block.list_entry, block.list_entry + block.commit_bytes))
    if shown == block.commit_bytes:
        return block
    message = (
        f"the large block at {block.list_entry:#x} of heap {heap:#x} says {block.commit_bytes:,} bytes committed, "
        f"the memory map {shown:,}, which are counted"
    )
    place = block.list_entry + commit
    findings.append(
        Finding("virtual_list", "error", heap, place, 8, message, f"{shown:#x}", f"{block.commit_bytes:#x}")
    )
    notes.append(message)
    return replace(block, commit_bytes=shown)


def _block(process: Process, view: View, layout: Layout, node: int) -> LargeBlock | None:
    """The large block whose list entry lies at `node`; None where its sizes cannot be true.

    The entry lies on a page boundary: on 64 KiB up to Windows 7, from 8 on some random pages into the reservation
    (seen in every recorded dump from 9600 on; the reference asks for 64 KiB everywhere).
    """
    struct = layout["_HEAP_VIRTUAL_ALLOC_ENTRY"]
    data = view.space.try_read(node, struct.offset("BusyBlock"))
    if data is None or node % PAGE:
        return None
    fields = struct.decode(data, view.pointer_bytes)
    commit, reserve = fields["CommitSize"], fields["ReserveSize"]
    if not 0 < commit <= reserve or commit % PAGE or reserve % PAGE or node + reserve > address_limit(view):
        return None
    regions = process.regions
    if regions.is_complete_map:
        i = regions.index_at(node)
        if i is None or regions.state[i] != State.MEM_COMMIT:
            return None
    return LargeBlock(node, commit, reserve)
