"""LFH blocks whose user blocks are lost: their headers tell them, where the entry and its header are missing or damaged."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder
from tests.builders.nt_heap_truth import SubsegmentTruth
from tests.heaps.nt.lfh_plans import EACH, Plan, Row, back_end_rows, back_end_truth, lfh_rows, lfh_truth
from tests.heaps.nt.plans import Generation, process_of
from tests.patching import poke, without_memory

LAYOUT = (("lfh", 4, 40), ("busy", 300, 0), ("lfh", 5, 40), ("busy", 100, 0), ("busy", 50, 0), ("lfh", 9, 20))


def lost_part(generation: Generation, sub: SubsegmentTruth) -> tuple[int, int]:
    """The entry of the user blocks, their header, and the header of the first block."""
    granule = 16 if generation.arch == "x64" else 8
    return sub.user_blocks - granule, sub.blocks[0].entry + granule


def rest_of(sub: SubsegmentTruth, rows: set[Row], trust: str) -> set[Row]:
    """Rows of `sub` but its first block, with another trust."""
    first, last = sub.blocks[1].entry, sub.blocks[-1].entry
    return {(*row[:4], trust) for row in rows if first <= row[0] <= last}


def assert_told_by_headers(snapshot: Snapshot, sub: SubsegmentTruth, truth: set[Row]) -> None:
    """All blocks of `sub` but the first are there, derived; all others as built; no more."""
    lost = {row for row in truth if sub.blocks[0].entry <= row[0] <= sub.blocks[-1].entry}
    assert lfh_rows(snapshot) == (truth - lost) | rest_of(sub, truth, "derived")
    said = (
        f"1 header of LFH user blocks are lost; {len(sub.blocks) - 1:,} of their blocks were told by their own headers"
    )
    assert any(said in gap for gap in snapshot.walk.gaps)


def built(generation: Generation, number: int) -> tuple[BuiltDump, SubsegmentTruth, set[Row]]:
    heap = Plan(generation, LAYOUT, seed=5).heap()
    return Plan(generation, LAYOUT, seed=5).process(heap).build(), heap.truth.lfh[number], lfh_truth(heap)


@EACH
@pytest.mark.parametrize("number", [0, 1, 2])
def test_blocks_of_missing_user_blocks_are_told_by_their_headers(open_built, generation, number):
    """Also where the first ones of the heap are missing, which give the key to others."""
    dump, sub, truth = built(generation, number)
    with open_built(without_memory(dump, lost_part(generation, sub))) as snapshot:
        assert_told_by_headers(snapshot, sub, truth)
        assert not snapshot.explained_findings


@EACH
def test_blocks_of_overwritten_user_blocks_are_told_by_their_headers(open_built, generation):
    """What looks like one busy block is the heap's own then."""
    dump, sub, truth = built(generation, 1)
    start, end = lost_part(generation, sub)
    with open_built(poke(dump, (start, b"A" * (end - start)))) as snapshot:
        assert_told_by_headers(snapshot, sub, truth)
        assert any(f.severity == "error" and start <= f.address < end for f in snapshot.walk.findings)
        assert sub.user_blocks not in {user for user, _ in back_end_rows(snapshot)}


@EACH
def test_free_headers_of_a_former_life_are_no_blocks(open_built, generation):
    """The LFH gives user blocks back when no block is busy: what is lost may be anything by now."""
    heap = NtHeapBuilder(
        arch=generation.arch, build=generation.build, base=generation.base, flags=0x1002, front_end="lfh"
    )
    for asked in ([-1] * 40, [20] * 40):
        heap.busy(64)
        heap.subsegment(4, asked)
    built_heap = heap.build()
    free, busy = built_heap.truth.lfh
    dump = process_of(generation, built_heap).build()
    with open_built(without_memory(dump, lost_part(generation, free))) as snapshot:
        assert lfh_rows(snapshot) == {row for row in lfh_truth(built_heap) if row[0] >= busy.blocks[0].entry}
        assert not snapshot.explained_findings


def test_the_block_of_the_lookaside_lists_is_told_by_the_lists_that_are_there(open_built):
    """XP keeps that block when the LFH replaces the lists; here most of it is missing."""
    generation = Generation("x86", 2600)
    heap = Plan(generation, LAYOUT, seed=5).heap()
    user, size = heap.truth.internal[0].user, heap.truth.internal[0].size
    dump = Plan(generation, LAYOUT, seed=5).process(heap).build()
    with open_built(without_memory(dump, (user + 0x400, user + size))) as snapshot:
        assert user not in {found for found, _ in back_end_rows(snapshot)}


def test_zones_of_xp_are_the_heaps_own_whatever_is_left_of_their_subsegments(open_built):
    """No flag marks them; here all user blocks that lead to their subsegments are missing."""
    generation = Generation("x86", 2600)
    plan = Plan(generation, LAYOUT, seed=5)
    heap = plan.heap()
    lost = [lost_part(generation, sub) for sub in heap.truth.lfh]
    with open_built(without_memory(plan.process(heap).build(), *lost)) as snapshot:
        assert back_end_rows(snapshot) <= back_end_truth(heap)


@pytest.mark.property
@pytest.mark.parametrize("generation", [g for g in EACH.args[1] if str(g) != "x64-3790"], ids=str)
@given(seed=st.integers(0, 1 << 30), share=st.sampled_from([0.02, 0.1, 0.3]), size=st.sampled_from([0x400, 0x3000]))
def test_fragments_of_a_heap_with_an_lfh_give_no_error_and_no_invented_block(open_built, generation, seed, share, size):
    """Anything may be missing, the header of the heap as well: bytes that are not there are no evidence."""
    heap = Plan(generation, LAYOUT, seed=5).heap()
    dump, draw = built(generation, 0)[0], random.Random(seed)
    holes = []
    for start, memory in heap.memory:
        at = start
        while at < start + len(memory):
            end = min(at + draw.randrange(1, size), start + len(memory))
            holes += [(at, end)] if draw.random() < share else []
            at = end
    holes = sorted(draw.sample(holes, min(len(holes), 60)))  # more of them take long to cut
    with open_built(without_memory(dump, *holes)) as snapshot:
        assert [found.finding.message for found in snapshot.explained_findings if found.finding.is_error] == []
        truth = {row[0]: row[1:4] for row in lfh_truth(heap)}
        found = {row[0]: row[1:] for row in lfh_rows(snapshot)}
        assert set(found) <= set(truth)
        assert {entry for entry, row in found.items() if row[3] == "exact" and row[:3] != truth[entry]} == set()
        # before Vista nothing but their contents marks the heap's own blocks
        own = {block.user for block in heap.truth.internal if generation.is_classic}
        assert {user for user, _ in back_end_rows(snapshot)} <= {user for user, _ in back_end_truth(heap)} | own
        missing = {entry for entry, row in truth.items() if entry not in found}
        assert not missing or snapshot.walk.gaps or any(heap.notes for heap in snapshot.heaps)
