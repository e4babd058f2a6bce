"""The low fragmentation heap of the NT heap: random subsegments of every coding equal the builder's truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.blocks.kind import BlockKind
from heapdump.snapshot import Snapshot
from tests.builders import BuiltHeap, NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.lfh_plans import (
    EACH,
    GENERATIONS,
    TRACE,
    Plan,
    back_end_rows,
    back_end_truth,
    lfh_rows,
    lfh_truth,
    plans,
)
from tests.heaps.nt.plans import Generation, assert_equals
from tests.patching import poke

MODERN = [generation for generation in GENERATIONS if not generation.is_classic]
MIXED = (("lfh", 2, 62), ("busy", 100, 0), ("lfh", 2, 29), ("lfh", 9, 56), ("segment", 0, 0), ("lfh", 9, 20),
         ("busy", 3000, 0), ("lfh", 33, 15), ("lfh", 2, 1))  # fmt: skip


def assert_as_built(snapshot: Snapshot, *heaps: BuiltHeap) -> None:
    walk = snapshot.walk
    assert lfh_rows(snapshot) == lfh_truth(*heaps)
    assert back_end_rows(snapshot) == back_end_truth(*heaps)
    assert (walk.findings, walk.gaps, tuple(snapshot.explained_findings)) == ((), (), ())
    for heap, built in zip(snapshot.heaps, heaps, strict=True):
        assert_equals(heap, built)
        count = walk.counts[heap.index]
        blocks = [block for sub in built.truth.lfh for block in sub.blocks]
        free = [block.entry_size for block in blocks if block.size is None]
        assert (count.integrity, count.lfh_free_blocks, count.lfh_free_bytes) == (1.0, len(free), sum(free))
        assert count.free_bytes == built.truth.free_bytes
        assert all(check.holds for check in count.checks)


@pytest.mark.property
@EACH
@settings(max_examples=8)
@given(data=st.data())
def test_any_heap_is_found_as_it_was_built(open_built, generation, data):
    plan = data.draw(plans(generation))
    built = plan.heap()
    with open_built(plan.process(built)) as snapshot:
        assert_as_built(snapshot, built)


@EACH
def test_every_size_that_a_block_can_hold_is_exact(open_built, generation):
    """Counts of unused bytes that fit the header's byte, and those that do not and lie at the end of the block."""
    granule = 16 if generation.arch == "x64" else 8
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, front_end="lfh")
    for granules in (2, 3, 40):
        most = granules * granule - 8
        least = max(0, granules * granule - 254) if generation.is_classic and granule == 16 else 0
        heap.subsegment(granules, range(least, most + 1))
    built = heap.build()
    with open_built(ProcessBuilder(arch=generation.arch, build=generation.build).heap(built)) as snapshot:
        assert_as_built(snapshot, built)


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_blocks_with_a_front_prefix_are_exact_and_lead_to_their_stack(open_built, generation):
    plan = Plan(generation, (("traced", 7, 36), ("traced", 33, 12), ("lfh", 7, 20)))
    built = plan.heap()
    with open_built(plan.process(built)) as snapshot:
        assert_as_built(snapshot, built)
        pointer = snapshot.process.views[0].pointer_bytes
        traced = [block for sub in built.truth.lfh[:2] for block in sub.blocks if block.size is not None]
        assert {snapshot.process.space.integer(block.entry + 2 * pointer, pointer) for block in traced} == {TRACE}
        assert {block.user - block.entry for block in traced} == {6 * pointer}


@EACH
@pytest.mark.parametrize("state", ["full", "empty"])
def test_full_and_empty_subsegments(open_built, generation, state):
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, front_end="lfh")
    for count in (1, 2, 31, 32, 33, 64, 65, 300):
        heap.subsegment(3, [16 if state == "full" else -1] * count)
    built = heap.build()
    with open_built(ProcessBuilder(arch=generation.arch, build=generation.build).heap(built)) as snapshot:
        assert_as_built(snapshot, built)


@EACH
def test_many_subsegments_of_a_bucket_need_several_zones(open_built, generation):
    plan = Plan(generation, tuple(("lfh", 2 + i % 3, 5) for i in range(70)))
    built = plan.heap()
    zones = len(built.truth.internal) - 70 - (2 if generation.is_classic else 1)
    assert zones >= 3
    with open_built(plan.process(built)) as snapshot:
        assert_as_built(snapshot, built)
        table = snapshot.walk.table
        own = {b.address for b in table.blocks(np.flatnonzero(table.is_internal))}
        context = built.truth.internal[1].user if generation.is_classic else 0
        assert {b.user for b in built.truth.internal} - {context} <= own


@EACH
def test_heaps_of_a_process_share_the_key(open_built, generation):
    """The last one has a single block, which alone would not tell the key before Windows 8."""
    plan = Plan(generation, MIXED, seed=4)
    heaps = [plan.heap(), plan.heap(generation.base + 0x1000000, index=1)]
    heaps.append(Plan(generation, (("lfh", 2, 1),)).heap(generation.base + 0x2000000, index=2))
    with open_built(plan.process(*heaps)) as snapshot:
        assert_as_built(snapshot, *heaps)


@pytest.mark.parametrize("build", [7601, 9200, 19041])
def test_each_view_of_a_wow64_process_has_its_own_key(open_built, build):
    narrow = Plan(Generation("x86", build), MIXED, key=0x7B0DB7DB).heap(0x8000000)
    wide = Plan(Generation("x64", build), MIXED, key=0x1771F16A).heap(0x40000000)
    process = ProcessBuilder(arch="wow64", build=build).heap(narrow).heap(wide, view="x64")
    with open_built(process) as snapshot:
        assert_as_built(snapshot, wide, narrow)


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if str(g) in ("x64-26100", "x86-7601")], ids=str)
def test_compiled_kernels_say_the_same(open_built, generation, monkeypatch):
    plan = Plan(generation, MIXED, seed=9)
    built = plan.heap()
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    with open_built(plan.process(built)) as snapshot:
        assert_as_built(snapshot, built)


@EACH
def test_cached_user_blocks_hold_no_blocks(open_built, generation):
    """On the list of cached user blocks the pointer to the subsegment is a link of that list; all blocks were freed."""
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, base=generation.base, front_end="lfh")
    for state in (16, -1, 16):
        heap.subsegment(4, [state] * 30)
    built = heap.build()
    cached, pointer = built.truth.lfh[1], 8 if generation.arch == "x64" else 4
    process = ProcessBuilder(arch=generation.arch, build=generation.build).heap(built)
    with open_built(poke(process.build(), (cached.user_blocks, bytes(pointer)))) as snapshot:
        assert lfh_rows(snapshot) == lfh_truth(built, without=tuple(b.entry for b in cached.blocks))
        assert snapshot.walk.findings == ()
        table = snapshot.walk.table
        own = {b.address for b in table.blocks(np.flatnonzero(table.is_internal & (table.kind == BlockKind.BACKEND)))}
        assert (cached.user_blocks in own) != generation.is_classic
