"""Damage to members of _HEAP: each is an error at its bytes, and the heap loses no block."""

from __future__ import annotations

from functools import cache

import pytest

from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_layout import heap_layout
from tests.heaps.nt.lfh_plans import Plan, back_end_rows, back_end_truth, lfh_rows, lfh_truth
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import poke

EACH = pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
LAYOUT = (("busy", 100, 0), ("lfh", 4, 40), ("lfh", 5, 40), ("busy", 700, 0), ("lfh", 9, 20), ("busy", 50, 0))


@cache
def built(generation: Generation) -> tuple[BuiltDump, BuiltHeap]:
    """A heap with three subsegments."""
    plan = Plan(generation, LAYOUT, seed=5)
    heap = plan.heap()
    return plan.process(heap).build(), heap


def places(generation: Generation) -> dict[str, tuple[int, int]]:
    """Member → (offset, bytes)."""
    at, is_x64 = heap_layout(generation.arch, generation.build), generation.arch == "x64"
    pointer = 8 if is_x64 else 4
    return {
        "SegmentSignature": (2 * pointer, 4),
        "Signature": (at.signature, 4),
        "Heap": (5 * pointer if is_x64 else 0x18, pointer),
        "EncodeFlagMask": (0x7C if is_x64 else 0x4C, 4),
        "Encoding": (0x88 if is_x64 else 0x50, 8),
        "FrontEndHeap": (at.front_end, pointer),
    }


@EACH
@pytest.mark.parametrize("member", list(places(REPRESENTATIVES[-1])))
@pytest.mark.parametrize("new", [b"AAAAAAAA", bytes(8)], ids=["letters", "zeros"])
def test_a_damaged_member_is_an_error_and_costs_no_block(open_built, generation, member, new):
    dump, heap = built(generation)
    offset, length = places(generation)[member]
    place = generation.base + offset
    with open_built(poke(dump, (place, new[:length]))) as snapshot:
        errors = [f.finding for f in snapshot.explained_findings if f.finding.severity == "error"]
        assert [(f.kind, f.address) for f in errors] == [("segment", place)]
        assert {row[:4] for row in lfh_rows(snapshot)} == {row[:4] for row in lfh_truth(heap)}
        assert back_end_rows(snapshot) == back_end_truth(heap)


def test_a_damaged_signature_before_vista_is_an_error_and_costs_no_block(open_built):
    generation = Generation("x86", 2600)
    heap = heap_of(generation, [("busy", 100), ("free", 9), ("busy", 50), ("virtual", 0x80000)]).build()
    with open_built(poke(process_of(generation, heap).build(), (generation.base + 8, b"HEAP"))) as snapshot:
        errors = [f.finding for f in snapshot.explained_findings if f.finding.severity == "error"]
        assert [(f.kind, f.address) for f in errors] == [("segment", generation.base + 8)]
        assert {user for user, _ in back_end_rows(snapshot)} == {block.user for block in heap.truth.busy}
