"""Large blocks: the VirtualAllocdBlocks list, the same in every version of the NT heap (heap-structures.md §2.6)."""

from __future__ import annotations

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import LargeBlock
from heapdump.heaps.base import PAGE, Context
from heapdump.heaps.nt_segments import address_limit, ring_findings
from heapdump.layouts import Layout
from heapdump.memory.regions import State
from heapdump.process.model import Process, View


def read_large_blocks(
    context: Context, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
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
        block = _block(process, view, layout, node)
        if block is not None:
            blocks[node] = block
        return block is not None

    ring = context.ring(head, accepts)
    ring_findings("virtual_list", heap, ring, "large-block list", findings, notes)
    return tuple(blocks[node] for node in ring.nodes), ring.is_closed


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
