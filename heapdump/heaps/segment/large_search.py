"""Searches memory for large allocations of a segment heap to which its tree does not lead any more.

The nodes of all large allocations lie in a heap of ntdll's own. A node names the address of the allocation and its
committed bytes, which the memory map confirms. Windows also counts the committed pages of all large allocations of a
heap (docs/reference/heap-structures.md §6.1, §6.6). So nodes can be recognised without their tree. A last missing
allocation can even be recognised without its node, by its committed bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

import numpy as np

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.large_nodes import read_block
from heapdump.memory.regions import Kind, State
from heapdump.spans import Span
from heapdump.trust import Trust

_ALIGNMENT = 0x10000
_MiB = 1 << 20
_MOST_SCANNED_BYTES = 256 << 20
_BYTES_AT_ONCE = 16 << 20
_SPARE_BITS = 0xF00
"""Bits of AllocatedPages that are always 0; below them are flags and the alignment of the guard page."""


def unlinked_blocks(
    discovery: SegmentDiscovery, known: Mapping[int, LargeBlock], others: Set[int], damaged: Set[int]
) -> list[LargeBlock]:
    """Allocations that the heap counts but that are not `known`, ascending by address.

    Empty without a complete memory map, and where more is found than the heap counts.

    Args:
        discovery: the heap.
        known: address of an allocation → its record.
        others: addresses of the allocations of other heaps.
        damaged: addresses of nodes that name no possible allocation.
    """
    missing = counted_bytes(discovery) - sum(block.commit_bytes for block in known.values())
    if missing <= 0 or not discovery.process.regions.is_complete_map:
        return []
    found: dict[int, LargeBlock] = {}
    nodes = {block.metadata for block in known.values()}
    for span in _places(discovery, [node for node in (*nodes, *damaged) if node is not None]):
        for block in nodes_in(discovery, span):
            if block.list_entry not in known and block.list_entry not in others and block.metadata not in nodes:
                found.setdefault(block.list_entry, replace(block, trust=Trust.DERIVED))
        if sum(block.commit_bytes for block in found.values()) >= missing:
            break
    rest = missing - sum(block.commit_bytes for block in found.values())
    if rest < 0:
        return []
    if rest:
        found |= {block.list_entry: block for block in _unnamed(discovery, {*known, *found, *others}, rest)}
    return [found[address] for address in sorted(found)]


def counted_bytes(discovery: SegmentDiscovery) -> int:
    """Committed bytes of all large allocations by the heap's counter; 0 where it has none."""
    fields = discovery.view.struct("_SEGMENT_HEAP", discovery.heap, discovery.layout) or {}
    return fields.get("LargeCommittedPages", 0) * PAGE


def _places(discovery: SegmentDiscovery, nodes: list[int]) -> Iterator[Span]:
    """Memory that may hold nodes: around the known nodes; without any, `all_places`."""
    near = sorted({node // _MiB for node in nodes})
    yield from (Span(mib * _MiB, (mib + 1) * _MiB) for mib in near) if near else all_places(discovery)


def all_places(discovery: SegmentDiscovery) -> Iterator[Span]:
    """Committed private memory, in pieces, up to the most bytes that are scanned; no region that exceeds them."""
    regions, scanned = discovery.process.regions, 0
    rows = np.flatnonzero((regions.state == State.MEM_COMMIT) & (regions.type == Kind.MEM_PRIVATE))
    for row in rows.tolist():
        span = Span(int(regions.start[row]), int(regions.end[row]))
        if scanned + span.size > _MOST_SCANNED_BYTES:
            continue
        scanned += span.size
        yield from (Span(at, min(at + _BYTES_AT_ONCE, span.end)) for at in range(span.start, span.end, _BYTES_AT_ONCE))


def nodes_in(discovery: SegmentDiscovery, span: Span) -> Iterator[LargeBlock]:
    """Records of the nodes in a span whose allocation is committed memory of exactly the size that they name."""
    view, regions = discovery.view, discovery.process.regions
    offset = discovery.layout["_HEAP_LARGE_ALLOC_DATA"].offset("VirtualAddress")
    starts = regions.start[(regions.state == State.MEM_COMMIT) & (regions.start % _ALIGNMENT == 0)]
    for start, words in view.space.mapped.words(span, view.pointer_bytes):
        address, pages = words[:-1], words[1:]
        likely = (pages >= PAGE) & (pages & np.uint64(_SPARE_BITS) == 0)
        likely &= np.isin(address & ~np.uint64(_ALIGNMENT - 1), starts)
        for i in np.flatnonzero(likely).tolist():
            block = read_block(discovery.process, view, discovery.layout, start + i * view.pointer_bytes - offset)
            if block is not None and _run_bytes(discovery, block.list_entry) == block.commit_bytes:
                yield block


def _unnamed(discovery: SegmentDiscovery, known: Set[int], size: int) -> list[LargeBlock]:
    """The record, as a guess, of the only private allocation of `size` committed bytes that no node names; or none."""
    regions, heaps = discovery.process.regions, set(discovery.view.heap_addresses)
    is_start = (regions.state == State.MEM_COMMIT) & (regions.type == Kind.MEM_PRIVATE)
    is_start &= (regions.start == regions.allocation_base) & (regions.start % _ALIGNMENT == 0)
    places = [
        at for at in regions.start[is_start].tolist()
        if at not in known and at not in heaps and _run_bytes(discovery, at) == size
    ]  # fmt: skip
    return [LargeBlock(at, size, size, None, Trust.GUESS) for at in places] if len(places) == 1 else []


def _run_bytes(discovery: SegmentDiscovery, address: int) -> int:
    """Bytes of the committed run from an address on, cut at the end of its reservation."""
    regions = discovery.process.regions
    own, i = regions.allocation(address), regions.index_at(address)
    end = address
    while own is not None and i is not None and i < len(regions) and end < own.end:
        if regions.state[i] != State.MEM_COMMIT or int(regions.start[i]) > end:
            break
        end, i = int(regions.end[i]), i + 1
    return end - address
