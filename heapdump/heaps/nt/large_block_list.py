"""Reads the list of large blocks, VirtualAllocdBlocks, of every version (docs/reference/heap-structures.md §2.6)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.integers import address_limit
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.heaps.nt.header_key import HeaderKey, header_key
from heapdump.heaps.nt.missing_nodes import behind_missing, nodes_behind, nodes_with_key
from heapdump.memory import limits
from heapdump.memory.regions import State
from heapdump.spans import Span


def read_large_blocks(reader: HeapReader) -> tuple[tuple[LargeBlock, ...] | None, bool]:
    """(blocks in list order, or None where the head is not in the dump; True when no block can be missing).

    A broken list is followed from both ends, and behind nodes that are not in the dump (`missing_nodes`). Blocks that
    no link reaches are found by the key of the heap.
    """
    head = reader.address + reader.layout["_HEAP"].offset("VirtualAllocdBlocks")
    if reader.view.space.try_pointer(head) is None:
        reader.notes.append(f"the large-block list of heap {reader.address:#x} is not in the dump")
        return None, False
    blocks: dict[int, LargeBlock] = {}

    def accepts(node: int) -> bool:
        """True for the node of a large block, which goes to `blocks`."""
        block = _block(reader, node)
        if block is not None:
            blocks[node] = block
        return block is not None

    linked = reader.discovery.walk_list(head, accepts)
    size = reader.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock")
    reader.add_link_damage("virtual_list", linked, "large-block list", (0, size))
    nodes = list(linked.nodes)
    if not linked.is_closed:
        nodes += behind_missing(reader.discovery, head, linked, accepts)
        nodes += _with_key(reader, {head, *nodes}, accepts)[: max(0, limits.MAX_LIST_NODES - len(nodes))]
    return tuple(_checked(reader, blocks[node]) for node in nodes), linked.is_closed


def large_blocks_without_head(reader: HeapReader, key: HeaderKey | None) -> tuple[LargeBlock, ...]:
    """The large blocks of a heap whose own header is not in the dump: by links to its head, and by its key.

    `key`: None where it is not known.
    """
    found: dict[int, LargeBlock] = {}

    def accepts(node: int) -> bool:
        """True for the node of a large block, which goes to `found`."""
        block = _block(reader, node)
        if block is not None:
            found[node] = block
        return block is not None

    head = reader.address + reader.layout["_HEAP"].offset("VirtualAllocdBlocks")
    nodes = nodes_behind(reader.discovery, [head], {head}, accepts)
    if key is not None:
        nodes += nodes_with_key(reader.discovery, reader.layout, key, {head, *nodes}, accepts)
    return tuple(found[node] for node in nodes)


def _with_key(reader: HeapReader, own: Collection[int], accepts: Callable[[int], bool]) -> list[int]:
    """Nodes on no list, by the key of the heap; none before Vista. `own`: the head of the list and the known nodes."""
    if "Encoding" not in reader.layout["_HEAP"]:
        return []
    key = header_key(reader.view.space, reader.address, reader.layout)
    return nodes_with_key(reader.discovery, reader.layout, key, own, accepts)


def _checked(reader: HeapReader, block: LargeBlock) -> LargeBlock:
    """The block; where its CommitSize differs from the memory map, which is damage, with the bytes of the map.

    CommitSize is all that is committed from the list entry to the end of the reservation (§2.6).
    """
    regions = reader.process.regions
    if not regions.is_complete_map:
        return block
    own = regions.allocation(block.list_entry)
    end = block.list_entry + block.commit_bytes if own is None else own.end
    mapped = regions.committed_bytes(Span(block.list_entry, end))
    if mapped == block.commit_bytes:
        return block
    message = (
        f"the large block at {block.list_entry:#x} of heap {reader.address:#x} says {block.commit_bytes:,} bytes "
        f"committed, the memory map {mapped:,}, which are counted"
    )
    place = block.list_entry + reader.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("CommitSize")
    expected, found = f"{mapped:#x}", f"{block.commit_bytes:#x}"
    reader.add_damage(Finding("virtual_list", "error", reader.address, place, 8, message, expected, found), message)
    return replace(block, commit_bytes=mapped)


def _block(reader: HeapReader, node: int) -> LargeBlock | None:
    """The large block whose list entry lies at `node`; None where its sizes are not possible.

    The list entry lies on a 64 KiB boundary up to Windows 7; from 8 on a random number of pages into the reservation
    (§2.6; every recorded dump from 9600 on).
    """
    view, regions = reader.view, reader.process.regions
    struct = reader.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"]
    data = view.space.try_read(node, struct.offset("BusyBlock"))
    if data is None or node % PAGE:
        return None
    fields = struct.decode(data, view.pointer_bytes)
    commit, reserve = fields["CommitSize"], fields["ReserveSize"]
    if not 0 < commit <= reserve or commit % PAGE or reserve % PAGE or node + reserve > address_limit(view):
        return None
    if regions.is_complete_map:
        i = regions.index_at(node)
        if i is None or regions.state[i] != State.MEM_COMMIT:
            return None
    return LargeBlock(node, commit, reserve)
