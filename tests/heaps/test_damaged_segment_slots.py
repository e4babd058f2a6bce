"""Damage to LFH subsegments of segment heaps: what the bitmap, the counts and the offsets still tell."""

from __future__ import annotations

import numpy as np

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.patching import poke, word

BASE = 0x20000000000


def test_a_block_doubted_twice_is_a_guess(open_built):
    """Its last bytes are overwritten and its subsegment counts other free blocks."""
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([40] * 900)
    for size in (64, 80, 96):
        sub = heap.slots(size, [20] * heap.most_slots(size, 1))
    truth = heap.build()
    dump = truth.add_to(ProcessBuilder(build=19041)).build()
    block = min(address for address in truth.truth.busy if address > sub)
    with open_built(poke(dump, (block + 94, word(0x1234, 2)), (sub + 0x20, word(7, 2)))) as snapshot:
        table = snapshot.walk.table
        trust = {b.address: b.trust for b in table.blocks(np.arange(len(table))) if b.address in truth.truth.busy and b.entry > sub}
        assert trust.pop(block) == "guess"
        assert {*trust.values()} == {"derived"}
