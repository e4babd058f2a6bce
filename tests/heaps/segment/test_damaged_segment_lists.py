"""Damage to the lists of segments and their contexts: two witnesses are left for what one damaged word hides."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from heapdump.blocks.kind import HeapKind
from heapdump.heaps.candidates import reservations_with
from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import GENERATIONS, SegmentLayout, segment_layout
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH, built, findings
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, without_memory, word

WITH_CONTEXTS = pytest.mark.parametrize("generation", [g for g in GENERATIONS if g[1] > 16299], ids=str)


def three_segments(generation) -> tuple[BuiltDump, SegmentTruth, SegmentLayout]:
    """A heap with a VS subsegment in each of three segments."""
    arch, build = generation
    base = BASES[arch]
    heap = SegmentHeapBuilder(arch=arch, build=build, base=base, seed=1)
    for number in range(3):
        heap.segment(base + 0x400000 + number * 0x100000)
        heap.chunks([40] * 500)
        heap.pages(5000)
    made = heap.build()
    return made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth, segment_layout(arch, build)


def context(truth, layout: SegmentLayout) -> int:
    return truth.address + (layout.contexts or 0)


@EACH
@pytest.mark.parametrize("place", ["first segment", "last segment", "forward head", "backward head"])
def test_a_damaged_link_is_a_finding_and_hides_no_segment(open_built, generation, place):
    dump, truth, layout = three_segments(generation)
    pointer, head = layout.pointer, context(truth, layout) + layout.head
    at = {
        "first segment": truth.segments[0][0] + pointer, "last segment": truth.segments[-1][0],
        "forward head": head, "backward head": head + pointer,
    }[place]  # fmt: skip
    with open_built(poke(dump, (at, word(peek(dump, at, pointer) ^ 0x5A000, pointer)))) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert findings(snapshot) == ["segment"]
        (finding,) = snapshot.heaps[0].findings
        # as many segments as the heap counts: none is missing
        assert finding.address == at and snapshot.heaps[0].is_fully_walked


@EACH
@pytest.mark.parametrize("number", [0, 1, 2])
def test_an_absent_segment_header_hides_no_other_segment(open_built, generation, number):
    dump, truth, _layout = three_segments(generation)
    start, end = truth.segments[number]
    with open_built(without_memory(dump, (start, start + 0x1000))) as snapshot:
        found = blocks(snapshot)
        assert {a for a in truth.busy if not start <= a < end} <= set(found) <= set(truth.busy)
        assert findings(snapshot) == [] and snapshot.heaps[0].notes


@WITH_CONTEXTS
@pytest.mark.parametrize("member", ["mask", "shift", "pages", "heap"])
def test_a_damaged_member_of_a_context_is_a_finding(open_built, generation, member):
    dump, truth, layout = three_segments(generation)
    places = {"mask": 2, "shift": layout.shift, "pages": layout.shift + 1, "heap": layout.context_heap + 1}
    at = context(truth, layout) + places[member]
    with open_built(poke(dump, (at, bytes([peek(dump, at, 1) ^ 0x41])))) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert findings(snapshot) == ["segment"]


@WITH_CONTEXTS
@pytest.mark.parametrize("other", [1, 4], ids=["twice the unit", "the other unit"])
@pytest.mark.parametrize("member", ["mask", "shift"])
def test_of_two_possible_units_the_third_member_tells(open_built, generation, member, other):
    """The mask or the shift of another unit that exists: one flipped bit is enough."""
    dump, truth, layout = three_segments(generation)
    at = context(truth, layout) + (0 if member == "mask" else layout.shift)
    new = word(-(0x100000 << other), layout.pointer) if member == "mask" else bytes([12 + other])
    with open_built(poke(dump, (at, new))) as snapshot:
        assert blocks(snapshot) == truth.busy
        assert findings(snapshot) == ["segment"]
        assert {(segment.span.start, segment.span.end) for segment in snapshot.heaps[0].segments} == set(truth.segments)


@EACH
def test_a_segment_that_was_unlinked_from_both_sides_is_found_by_its_signature(open_built, generation):
    dump, truth, layout = three_segments(generation)
    first, middle, last = (start for start, _ in truth.segments)
    pointer = layout.pointer
    with open_built(poke(dump, (first, word(last, pointer)), (last + pointer, word(first, pointer)))) as snapshot:
        (finding,) = snapshot.damage.findings
        assert (finding.kind, finding.severity, finding.address) == ("segment", "error", middle)
        assert blocks(snapshot) == truth.busy and snapshot.heaps[0].is_fully_walked


@EACH
@pytest.mark.parametrize("what", ["signature", "lists", "header", "links of the segments"])
def test_a_heap_whose_segments_describe_its_blocks_loses_none(open_built, generation, what):
    """The segments link to the head of the list, and their signatures hold the address of the context."""
    dump, truth, layout = three_segments(generation)
    pointer, size = layout.pointer, 0x1000 if what == "header" else 2 * layout.pointer
    at = {
        "signature": truth.address + 2 * pointer,
        "lists": context(truth, layout) + layout.head,
        "header": truth.address,
    }
    changes = [(at[what], bytes(size))] if what in at else [(start, bytes(size)) for start, _ in truth.segments]
    with open_built(poke(dump, *changes)) as snapshot:
        (heap,) = snapshot.heaps
        assert blocks(snapshot) == truth.busy and heap.kind is HeapKind.SEGMENT
        assert "segment" in findings(snapshot)
        assert {(segment.span.start, segment.span.end) for segment in heap.segments} == set(truth.segments)


@EACH
def test_counts_that_hold_are_no_finding(open_built, generation):
    dump, _, _ = three_segments(generation)
    with open_built(dump) as snapshot:
        assert snapshot.damage.findings == ()


@EACH
@pytest.mark.parametrize("number", [0, 1])
def test_of_two_segments_the_damaged_one_is_told(open_built, generation, number):
    """By the process' key, which ntdll has."""
    arch, build = generation
    base = BASES[arch]
    heap = SegmentHeapBuilder(arch=arch, build=build, base=base, seed=1)
    for each in range(2):
        heap.segment(base + 0x400000 + each * 0x100000)
        heap.chunks([40] * 500)
    made = heap.build()
    process = made.add_to(ProcessBuilder(arch=arch, build=build))
    segments = [start for start, _ in made.truth.segments]
    at, size = segments[number] + (0x10 if arch == "x64" else 8), 8 if arch == "x64" else 4
    key = process.plan.ntdll + 0x1F4000 + 0x100  # in its data
    with open_built(poke(process.build(), (key, word(heap._heap_key, size)), (at, b"AAAA"))) as snapshot:
        assert len(segments) == 2
        assert [finding.address for heap in snapshot.heaps for finding in heap.findings] == [at]


@EACH
@pytest.mark.parametrize("length", [1, 2])
def test_a_segment_that_only_its_neighbours_name_keeps_its_blocks(open_built, generation, length):
    """One write over its backward link and its signature: a link to it, and its page descriptors, are left."""
    dump, truth, layout = three_segments(generation)
    middle, pointer = truth.segments[1][0], layout.pointer
    with open_built(poke(dump, (middle + pointer + 1, bytes(length * pointer - 1)))) as snapshot:
        assert blocks(snapshot) == truth.busy and snapshot.heaps[0].is_fully_walked
        assert set(findings(snapshot)) == {"segment"} and len(snapshot.heaps[0].findings) == length


@EACH
def test_a_signature_damaged_in_the_busy_bit_of_chunk_headers_turns_no_state(open_built, generation):
    """Under the key that it gives all chains hold, but what is busy is free, and neighbours of each other."""
    dump, _, truth = built(generation)
    at, bit = (0x16, 1) if generation[0] == "x64" else (0xB, 0x80)
    changes = [(start + at, bytes([peek(dump, start + at, 1) ^ bit])) for start, _ in truth.segments]
    with open_built(poke(dump, *changes)) as snapshot:
        assert blocks(snapshot) == truth.busy


def test_a_heap_in_the_reservation_of_another_is_found_without_a_list(open_built):
    """On 26100 the list of heaps is a ring, which ends where a heap is not in the dump."""
    base = BASES["x64"]
    heap = SegmentHeapBuilder(base=base + 0x10000, build=26100, seed=5)
    heap.segment(base + 0x400000)
    heap.chunks([100] * 60)
    process = heap.build().add_to(ProcessBuilder(build=26100))
    process.region(base, 0x10000).memory(base, bytes(0x10000))
    dump = process.build()
    own = struct.pack("<QQ", base + 0x10000, base + 0x10000)  # BaseAddress, AllocationBase
    assert dump.data.count(own) == 1
    shared = replace(dump, data=dump.data.replace(own, struct.pack("<QQ", base + 0x10000, base)))
    with open_built(shared) as snapshot:
        array = peek(dump, (snapshot.process.views[0].peb or 0) + 0xF0)
    with open_built(without_memory(shared, (array, array + 0x100))) as snapshot:
        (view,) = snapshot.process.views
        assert list(reservations_with(snapshot.process, view, (0xDDEEDDEE,))) == []
        assert list(reservations_with(snapshot.process, view, (0xDDEEDDEE,), is_shared=True)) == [base + 0x10000]
