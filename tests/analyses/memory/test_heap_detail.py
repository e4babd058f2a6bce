"""LFH buckets and free classes of one heap, from tables made by hand."""

from __future__ import annotations

import numpy as np

from heapdump.analyses.blocks.locate import locate
from heapdump.analyses.memory.heap_detail import heap_detail
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, tag
from heapdump.blocks.walk import Walk
from heapdump.dump.lists import RANGE
from heapdump.memory.space import AddressSpace
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.empty_source import EmptySource


def test_subsegments_are_counted_by_the_carriers_of_a_bucket(open_built):
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(8)
    user_blocks, lfh_block = tag(BlockKind.BACKEND, busy=True, internal=True), tag(BlockKind.LFH)
    busy = tag(BlockKind.LFH, busy=True)
    rows = [(0x1000, 64, user_blocks), (0x1040, 4, busy), (0x1060, 4, lfh_block), (0x2000, 64, user_blocks), (0x2040, 4, busy),
            (0x3000, 64, user_blocks), (0x3040, 8, busy), (0x3080, 8, busy)]  # fmt: skip
    entry, size8, tags = (np.array(column) for column in zip(*rows, strict=True))
    table = BlockTable(
        entry.astype(np.uint64), size8.astype(np.uint32), np.full(len(rows), 16, np.uint32), np.full(len(rows), 2, np.uint8),
        np.zeros(len(rows), np.uint16), tags.astype(np.uint16),
    )  # fmt: skip
    with open_built(ProcessBuilder().heap(heap.build())) as snapshot:
        lists = FreeLists(np.array([1, 2, 3]), np.array([32, 48, 4096]), is_complete=True, findings=())
        detail = heap_detail(snapshot.heaps[0], Walk(lambda: table, {}, (), ()), lists)
    assert [(b.entry_size, b.subsegments, b.busy, b.free) for b in detail.buckets] == [(32, 2, 2, 1), (64, 1, 2, 0)]
    assert [b.occupancy for b in detail.buckets] == [2 / 3, 1.0]
    assert [(c.low, c.high, c.blocks, c.bytes, c.smallest, c.largest) for c in detail.free_classes] == [
        (32, 64, 2, 80, 32, 48), (4096, 8192, 1, 4096, 4096, 4096),
    ]  # fmt: skip


def test_the_last_slots_bytes_behind_it_are_its_own():
    """lfh of 26100: the last slot of a subsegment ends 8 bytes behind its entry, where only the carrier is."""
    rows = [(0x1000, 64, 0, tag(BlockKind.BACKEND, busy=True, internal=True)),
            *((0x1040 + 32 * i, 4, 8, tag(BlockKind.LFH, busy=True)) for i in range(6)),
            (0x1200, 8, 16, tag(BlockKind.BACKEND, busy=True))]  # fmt: skip
    entry, size8, unused, tags = (np.array(column) for column in zip(*rows, strict=True))
    table = BlockTable(
        entry.astype(np.uint64), size8.astype(np.uint32), unused.astype(np.uint32), np.full(len(rows), 2, np.uint8),
        np.zeros(len(rows), np.uint16), tags.astype(np.uint16),
    )  # fmt: skip
    space = AddressSpace(EmptySource(), np.empty(0, RANGE), 8)
    found = locate(table, space, 0x10F4)
    assert found.block is not None
    assert (found.block.entry, found.relation, found.offset) == (0x10E0, "user", 4)
    found = locate(table, space, 0x1102)
    assert found.block is not None
    assert (found.block.entry, found.relation, found.offset) == (0x10E0, "user", 0x12)
    found = locate(table, space, 0x1108)
    assert found.block is not None and found.block.is_internal and found.relation == "header"
