"""Structures of recorded dumps as `struct` decodes them, against what the walkers found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from heapdump.analyses.by_hand.known_bytes import read_known
from heapdump.analyses.by_hand.struct_rows import StructReader
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.layouts.members import all_structs
from heapdump.process.types import LayoutTypes
from heapdump.snapshot import Snapshot, open_dump
from tests.recordings import Recorded, dumps

NAMES = sorted(
    {*dumps("oracle/*/basic"), *dumps("oracle/*/segment-ust"), *dumps("oracle/*/page*"), *dumps("hard/*/*")[::12]}
)
SAMPLES = 40


def view(snapshot: Snapshot, heap: Heap, name: str, address: int) -> dict[str, Any]:
    """Field → value of a structure at an address."""
    own = snapshot.view_of(heap)
    source = LayoutTypes(all_structs(heap.layout or ""), own.pointer_bytes)
    found = source.struct(name)
    assert found is not None, name
    memory = read_known(own.space, address, found.size)
    return {row.field: row.value for row in StructReader(source, snapshot.decoded).rows(found, memory)}


def rows_of(snapshot: Snapshot, heap: Heap, *kinds: BlockKind) -> list[Any]:
    """Some blocks of the program of these kinds, whose trust is exact."""
    table = snapshot.walk.table
    found = np.flatnonzero((table.heap == heap.index) & np.isin(table.kind, kinds) & ~table.is_internal)
    return [block for block in table.blocks(found[:: max(1, len(found) // SAMPLES)]) if block.trust == "exact"]


def nt_heap(snapshot: Snapshot, heap: Heap) -> int:
    """Compares an NT heap; how many structures."""
    granule, header = snapshot.view_of(heap).granularity, view(snapshot, heap, "_HEAP", heap.address)
    assert header["Flags"] == heap.flags
    if heap.counters.free_bytes is not None:
        assert header["TotalFreeSize"] * granule == heap.counters.free_bytes
    entries = rows_of(snapshot, heap, BlockKind.BACKEND)
    for block in entries:
        fields = view(snapshot, heap, "_HEAP_ENTRY", block.entry)
        assert fields["Size"] * granule == block.entry_size, hex(block.entry)
        assert fields["Flags"] & 1 == (block.state == "busy")
        if block.state == "busy" and 4 < fields["UnusedBytes"] < 0x3F:
            assert block.entry_size - fields["UnusedBytes"] == block.size
    for large in heap.large_blocks or ():
        fields = view(snapshot, heap, "_HEAP_VIRTUAL_ALLOC_ENTRY", large.list_entry)
        assert (fields["CommitSize"], fields["ReserveSize"]) == (large.commit_bytes, large.reserve_bytes)
    for segment in heap.segments:
        fields = view(snapshot, heap, "_HEAP_SEGMENT", segment.address)
        assert fields["Heap"] == heap.address
        assert fields["NumberOfPages"] * 0x1000 == segment.span.size
    return len(entries) + len(heap.segments)


def segment_heap(snapshot: Snapshot, heap: Heap) -> int:
    """Compares a segment heap."""
    assert view(snapshot, heap, "_SEGMENT_HEAP", heap.address)["Signature"] == 0xDDEEDDEE
    granule, chunks = snapshot.view_of(heap).granularity, rows_of(snapshot, heap, BlockKind.VS)
    for block in chunks:
        fields = view(snapshot, heap, "_HEAP_VS_CHUNK_HEADER", block.entry)
        assert fields["Sizes.UnsafeSize"] * granule == block.entry_size, hex(block.entry)
    return len(chunks)


def page_heap(snapshot: Snapshot, heap: Heap) -> int:
    """Compares a page heap."""
    nodes = snapshot.page_nodes(heap)
    assert view(snapshot, heap, "_DPH_HEAP_ROOT", heap.address + 0x1000)["Signature"] == 0xFFEEDDCC
    blocks = rows_of(snapshot, heap, BlockKind.PAGE) if nodes is not None else []
    for block in blocks:
        place = nodes.at(block.address) if nodes is not None else None
        if nodes is not None and place is not None:
            fields = view(snapshot, heap, "_DPH_HEAP_BLOCK", int(nodes.node[place]))
            assert fields["pUserAllocation"] == block.address
            assert fields["nUserRequestedSize"] == block.size
    return len(blocks)


COMPARE = {"nt": nt_heap, "segment": segment_heap, "page": page_heap}


@pytest.mark.real
@pytest.mark.parametrize("name", NAMES)
def test_structures_agree_with_the_walk(name: str, recorded: Recorded) -> None:
    with open_dump(recorded(f"{name}.dmp.xz")) as snapshot:
        heaps = [heap for heap in snapshot.heaps if heap.layout is not None and heap.trust == "exact"]
        compared = sum(COMPARE[heap.kind](snapshot, heap) for heap in heaps if heap.kind in COMPARE)
        assert compared > 0
