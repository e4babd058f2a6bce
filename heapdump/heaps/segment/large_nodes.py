"""Reads the node of a large allocation, _HEAP_LARGE_ALLOC_DATA (docs/reference/heap-structures.md §6.6)."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.heap import LargeBlock
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.integers import address_limit
from heapdump.heaps.segment.page_ranges import EXTRA_ROOM
from heapdump.layouts import Layout
from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process, View

_ALIGNMENT = 0x10000
_MOST_BYTES = 1 << 34
_RESERVED_STEP = 1 << 20
"""The reservation of a large allocation is a multiple of these bytes (recorded, 17763 and later)."""


@dataclass(frozen=True, slots=True)
class LargeUnused:
    """The unused bytes of a large allocation by its node.

    Attributes:
        bytes: committed minus requested bytes.
        has_extra: True where an extra of the heap, with the allocation stack, stands behind the user data.
        is_confirmed: False where the node names other committed bytes than the record, which has those of the memory
            map.
    """

    bytes: int
    has_extra: bool
    is_confirmed: bool

    @property
    def is_possible(self) -> bool:
        """False for a page (and an extra, where it has one) or more, because memory is committed by pages."""
        return self.bytes < PAGE + EXTRA_ROOM * self.has_extra


def read_block(process: Process, view: View, layout: Layout, node: int) -> LargeBlock | None:
    """The record of the allocation with the node at `node`; None where its address or size is not possible."""
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
        if i is None or regions.state[i] != State.MEM_COMMIT or regions.type[i] != Kind.MEM_PRIVATE:
            return None
    return LargeBlock(address, size, _reserved_bytes(process, address, size), node)


def unused_of(view: View, layout: Layout, block: LargeBlock) -> LargeUnused | None:
    """The unused bytes of a large allocation; None where its node is not in the dump."""
    fields = view.struct("_HEAP_LARGE_ALLOC_DATA", block.metadata, layout) if block.metadata is not None else None
    if fields is None:
        return None
    is_confirmed = fields["AllocatedPages"] & ~(PAGE - 1) == block.commit_bytes
    return LargeUnused(fields["VirtualAddress"] & (_ALIGNMENT - 1), bool(fields["AllocatedPages"] & 1), is_confirmed)


def _reserved_bytes(process: Process, address: int, size: int) -> int:
    """Bytes reserved for a large allocation: its committed bytes, and the reserved memory behind them.

    Where the allocation begins a reservation, that memory ends with the reservation; else at the next multiple of 1
    MiB.
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
