"""Damage to members of _HEAP: each is an error at its bytes, and the heap loses no block."""

from __future__ import annotations

from functools import cache

import pytest

from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_layout import heap_layout
from tests.heaps.nt.lfh_plans import Plan, back_end_rows, back_end_truth, lfh_rows, lfh_truth
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.heaps.test_check import lookaside_heap
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
        "BlocksIndex": (at.blocks_index, pointer),
        "TotalFreeSize": (at.total_free, 4),
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
        kind = "free_list" if member == "TotalFreeSize" else "segment"
        assert [(f.kind, f.address) for f in errors] == [(kind, place)]
        assert {row[:4] for row in lfh_rows(snapshot)} == {row[:4] for row in lfh_truth(heap)}
        assert back_end_rows(snapshot) == back_end_truth(heap)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@pytest.mark.parametrize(
    ("member", "new", "severity"),
    [("lock", b"AAAAAAAA", "error"), ("lock", bytes(8), "warning"), ("flags", b"\x03", "warning"), ("flags", b"AAAA", "warning")],
    ids=["lock elsewhere", "no lock", "not serialised", "letters"],
)  # fmt: skip
def test_flags_and_lock_bear_witness_for_each_other(open_built, generation, member, new, severity):
    """ForceFlags repeats a part of Flags; a heap has a lock unless it is HEAP_NO_SERIALIZE."""
    heap = heap_of(generation, [("busy", 100), ("free", 9), ("busy", 50)]).build()
    at = heap_layout(generation.arch, generation.build)
    place = generation.base + (at.lock if member == "lock" else at.flags)
    with open_built(poke(process_of(generation, heap).build(), (place, new[: at.pointer]))) as snapshot:
        found = [f.finding for f in snapshot.explained_findings]
        assert [(f.kind, f.severity, f.address) for f in found] == [("segment", severity, place)]
        assert {user for user, _ in back_end_rows(snapshot)} == {block.user for block in heap.truth.busy}


@pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790)], ids=str)
@pytest.mark.parametrize("new", [b"\0", b"\2", b"A"], ids=["none", "lfh", "letter"])
@pytest.mark.parametrize("member", ["front_end", "front_end_type"])
def test_lookaside_lists_are_found_in_the_first_block(open_built, generation, member, new):
    """Blocks on these lists are free, though their headers say busy."""
    built, _, _ = lookaside_heap(generation)
    at = heap_layout(generation.arch, generation.build)
    length, place = 1 if member == "front_end_type" else at.pointer, generation.base + getattr(at, member)
    with open_built(built) as snapshot:
        assert not snapshot.explained_findings
        sound = back_end_rows(snapshot)
    with open_built(poke(built, (place, new * length))) as snapshot:
        assert [(f.finding.kind, f.finding.address) for f in snapshot.explained_findings] == [("segment", place)]
        assert back_end_rows(snapshot) == sound


def test_a_damaged_signature_before_vista_is_an_error_and_costs_no_block(open_built):
    generation = Generation("x86", 2600)
    heap = heap_of(generation, [("busy", 100), ("free", 9), ("busy", 50), ("virtual", 0x80000)]).build()
    with open_built(poke(process_of(generation, heap).build(), (generation.base + 8, b"HEAP"))) as snapshot:
        errors = [f.finding for f in snapshot.explained_findings if f.finding.severity == "error"]
        assert [(f.kind, f.address) for f in errors] == [("segment", generation.base + 8)]
        assert {user for user, _ in back_end_rows(snapshot)} == {block.user for block in heap.truth.busy}
