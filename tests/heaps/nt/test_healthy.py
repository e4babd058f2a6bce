"""Healthy NT heaps of every generation come out as the builder wrote them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump.snapshot import open_dump
from heapdump.trust import Trust
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.plans import (
    ACTIONS,
    FIXED,
    GENERATIONS,
    REPRESENTATIVES,
    Generation,
    assert_equals,
    heap_of,
    process_of,
)


@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
def test_fixed_heaps_of_every_generation_equal_their_truth(open_built, generation):
    heaps = []
    for i, actions in enumerate(FIXED):
        base = generation.base + i * 0x4000000
        heaps.append(heap_of(generation, actions, base=base, index=i, lock_collisions=i).build())
    with open_built(process_of(generation, *heaps)) as snapshot:
        assert [heap.index for heap in snapshot.heaps] == [0, 1, 2, 3, 4]
        assert [heap.role for heap in snapshot.heaps] == ["process", *["private"] * 4]
        for heap, built in zip(snapshot.heaps, heaps, strict=True):
            assert_equals(heap, built)


@pytest.mark.property
@pytest.mark.parametrize("generation", GENERATIONS, ids=str)
@settings(max_examples=15)
@given(actions=ACTIONS, lock=st.integers(0, 1 << 20))
def test_a_random_heap_of_every_generation_equals_its_truth(open_built, generation, actions, lock):
    built = heap_of(generation, actions, lock_collisions=lock).build()
    with open_built(process_of(generation, built)) as snapshot:
        (heap,) = snapshot.heaps
        assert_equals(heap, built)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@pytest.mark.parametrize("flags", [0x2, 0x3, 0x1002, 0x1003, 0x40001062, 0x58000062])
def test_flags_and_class_come_out_as_they_are(open_built, generation, flags):
    built = heap_of(generation, FIXED[2], flags=flags).build()
    with open_built(process_of(generation, built)) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.flags == flags
        assert_equals(heap, built)
        if not generation.is_classic:
            assert heap.stack_traces == bool(flags & 0x08000000)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
def test_the_front_end_is_named(open_built, generation):
    front_end = "lookaside" if generation.is_classic else "lfh"
    built = heap_of(generation, FIXED[2], front_end=front_end).build()
    with open_built(process_of(generation, built)) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.front_end == front_end
        assert_equals(heap, built)


@pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
def test_a_heap_whose_entries_are_not_encoded_is_a_heap_as_well(open_built, generation):
    built = heap_of(generation, FIXED[3], encoded=False).build()
    with open_built(process_of(generation, built)) as snapshot:
        assert_equals(snapshot.heaps[0], built)


@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
def test_a_fixed_size_heap_has_no_guard_page(open_built, generation):
    built = heap_of(generation, FIXED[2], flags=0x1000).build()
    assert built.truth.segments[0][1] == generation.base + 0x100000
    with open_built(process_of(generation, built)) as snapshot:
        assert_equals(snapshot.heaps[0], built)


def test_many_segments_and_large_blocks_are_all_found(open_built):
    heap = NtHeapBuilder(base=0x28A65B00000, flags=0x1002)
    for i in range(1, 60):
        heap.segment(0x28A65B00000 + i * 0x200000, 0x80000)
        heap.busy(100)
    for i in range(500):
        heap.virtual(0x30000000000 + i * 0x200000 + i % 16 * 0x1000, 0x100000)
    built = heap.build()
    with open_built(process_of(Generation("x64", 19041), built)) as snapshot:
        assert_equals(snapshot.heaps[0], built)


@pytest.mark.parametrize(
    ("generation", "version"),
    [
        (Generation("x64", 14393), (17763, 500)),
        (Generation("x64", 14393), (19041, 508)),
        (Generation("x64", 19041), (14393, 447)),
        (Generation("x64", 19041), (9600, 1)),
        (Generation("x64", 9600), (14393, 1)),
        (Generation("x64", 7601), (19041, 508)),
        (Generation("x64", 19041), (7601, 1)),
        (Generation("x64", 3790), (7601, 1)),
        (Generation("x64", 7601), (3790, 1)),
        (Generation("x86", 14393), (19041, 508)),
        (Generation("x86", 19041), (9200, 1)),
        (Generation("x86", 9600), (14393, 447)),
        (Generation("x86", 2600), (7601, 1)),
        (Generation("x86", 7601), (2600, 5512)),
        (Generation("x64", 19041), (31337, 1)),
        (Generation("x64", 22000), (22621, 1)),
    ],
    ids=lambda value: str(value),
)
@pytest.mark.parametrize("actions", FIXED, ids=range(len(FIXED)))
def test_a_wrong_build_number_is_seen_through_and_the_trust_is_derived(open_built, generation, version, actions):
    built = heap_of(generation, actions).build()
    with open_built(process_of(generation, built, version=version)) as snapshot:
        assert_equals(snapshot.heaps[0], built, trust=Trust.DERIVED)


@pytest.mark.parametrize("build", [7601, 19041])
def test_both_halves_of_a_wow64_process_have_their_heaps(open_built, build):
    narrow = [heap_of(Generation("x86", build), FIXED[i], base=0x8000000 + i * 0x4000000).build() for i in (0, 3, 4)]
    wide = [heap_of(Generation("x64", build), FIXED[i], base=0x40000000 + i * 0x4000000).build() for i in (1, 2)]
    process = ProcessBuilder(arch="wow64", build=build)
    for built in narrow:
        process.heap(built)
    for built in wide:
        process.heap(built, view="x64")
    with open_built(process) as snapshot:
        assert [h.view for h in snapshot.heaps] == ["x64", "x64", "x86", "x86", "x86"]
        assert [h.index for h in snapshot.heaps] == [0, 1, 2, 3, 4]
        assert [h.role for h in snapshot.heaps] == ["process", "private", "process", "private", "private"]
        for heap, built in zip(snapshot.heaps, (*wide, *narrow), strict=True):
            assert_equals(heap, built)


def test_a_dump_without_memory_map_has_the_same_heaps(open_built):
    generation = Generation("x64", 19041)
    built = heap_of(generation, FIXED[4]).build()
    process = process_of(generation, built)
    process.dump.drop(16)
    with open_built(process) as snapshot:
        (heap,) = snapshot.heaps
        assert [(s.span.start, s.span.end) for s in heap.segments] == [*built.truth.segments]
        assert len(heap.large_blocks or ()) == len(built.truth.large)
        assert heap.free_bytes == built.truth.free_bytes
        assert heap.findings == ()


def test_a_packed_dump_has_the_same_heaps(write_dump):
    import gzip

    generation = Generation("x64", 19041)
    built = heap_of(generation, FIXED[3]).build()
    with open_dump(write_dump(gzip.compress(process_of(generation, built).build().data))) as snapshot:
        assert_equals(snapshot.heaps[0], built)
