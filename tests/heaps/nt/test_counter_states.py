"""Entries whose headers and links are destroyed: Windows' counter of free bytes says which of them are free."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_layout import heap_layout
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import poke, word

EACH = pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
ACTIONS = [*[("busy", 100)] * 8, ("free", 11), *[("busy", 60)] * 8, ("free", 20), *[("busy", 300)] * 4]


def damaged(generation: Generation, victims: list[int]) -> tuple[BuiltHeap, BuiltDump]:
    """The heap, and a dump in which these entries have no header, and the free list is empty."""
    heap = heap_of(generation, ACTIONS).build()
    at = heap_layout(generation.arch, generation.build)
    head = generation.base + at.free_lists
    entries = [*(block.entry for block in heap.truth.busy), *(block.entry for block in heap.truth.free)]
    changes = [(entries[i] + at.granule - 8, b"A" * 8) for i in victims]
    return heap, poke(process_of(generation, heap).build(), (head, word(head, at.pointer) * 2), *changes)


def states(snapshot: Snapshot) -> dict[int, tuple[bool, str]]:
    """Entry → (busy, trust)."""
    table = snapshot.walk.table
    return {b.entry: (b.state == "busy", b.trust.value) for b in table.blocks(np.arange(len(table)))}


@EACH
def test_the_counter_says_which_entries_are_free(open_built, generation):
    heap, dump = damaged(generation, [1, 12, len(heap_of(generation, ACTIONS).build().truth.busy)])
    with open_built(dump) as snapshot:
        found = states(snapshot)
        assert {block.entry for block in heap.truth.free} == {entry for entry, (busy, _) in found.items() if not busy}
        assert {block.entry for block in heap.truth.busy} <= {entry for entry, (busy, _) in found.items() if busy}
        assert found[heap.truth.free[0].entry] == (False, "guess")
        assert found[heap.truth.busy[1].entry] == (True, "guess")
        gaps = [gap for gap in snapshot.walk.gaps if f"{heap.truth.free[0].entry:#x}" in gap]
        assert gaps and "assumed free, as TotalFreeSize counts them" in gaps[0]


@EACH
def test_a_counter_that_no_choice_of_entries_explains_decides_nothing(open_built, generation):
    heap, dump = damaged(generation, [1, len(heap_of(generation, ACTIONS).build().truth.busy)])
    at = heap_layout(generation.arch, generation.build)
    with open_built(poke(dump, (generation.base + at.total_free, word(77, 4)))) as snapshot:
        assert states(snapshot)[heap.truth.free[0].entry] == (True, "guess")
