"""Damage to VS chunks of segment heaps: where it is found, and that it costs no chunk beside it."""

from __future__ import annotations

import numpy as np

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.patching import without_memory

BASE = 0x20000000000


def one_subsegment(chunks: int = 900, size: int = 40) -> tuple[BuiltDump, object]:
    """A heap of 19041 with one VS subsegment of equal chunks, and its truth."""
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([size] * chunks)
    built = heap.build()
    return built.add_to(ProcessBuilder(build=19041)).build(), built.truth


def test_two_pages_that_are_absent_leave_guesses_and_no_more(open_built):
    """A chunk behind the first one is derived, and where its last bytes lie in the second one it is a guess."""
    dump, truth = one_subsegment()
    sub = truth.subsegments[0]
    with open_built(without_memory(dump, (sub + 0x2000, sub + 0x3000), (sub + 0x5000, sub + 0x6000))) as snapshot:
        table = snapshot.walk.table
        trusts = {b.trust for b in table.blocks(np.arange(len(table))) if sub < b.entry < sub + 0x10000}
        assert trusts == {"exact", "derived", "guess"}
        assert snapshot.walk.gaps and not snapshot.walk.findings
