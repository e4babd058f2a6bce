"""Damaged segment lists, lists of uncommitted ranges, and random damage of whole heaps."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.kind import HeapKind
from heapdump.layouts import load
from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_layout import heap_layout
from tests.heaps.nt.lfh_plans import back_end_rows
from tests.heaps.nt.plans import FIXED, REPRESENTATIVES, Generation, assert_extents, heap_of, process_of
from tests.patching import peek, poke, position, word

MODERN = [g for g in REPRESENTATIVES if str(g) in ("x64-7601", "x86-19041", "x64-19041")]
LIST_HEADS = {"x64-7601": (0x128, 0x18), "x86-19041": (0xA4, 0x10), "x64-19041": (0x120, 0x18)}
"""Offset of _HEAP.SegmentList, and of SegmentListEntry in a segment."""


def segmented(generation: Generation) -> tuple[BuiltHeap, BuiltDump]:
    actions = [("busy", 100), ("uncommitted", 2), ("busy", 9)]
    for _ in range(3):
        actions += [("segment", 0x80000), ("busy", 100), ("uncommitted", 3), ("busy", 5)]
    heap = heap_of(generation, actions).build()
    return heap, process_of(generation, heap).build()


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize("where", ["head", 0, 1, 3])
@pytest.mark.parametrize("both", [False, True])
def test_a_broken_segment_list_is_mended_by_the_scan_and_is_a_finding(open_built, generation, where, both):
    heap, built = segmented(generation)
    size = 8 if generation.arch == "x64" else 4
    head, entry = LIST_HEADS[str(generation)]
    at = heap.truth.address + head if where == "head" else heap.truth.segments[where][0] + entry
    with open_built(poke(built, (at, word(0x77, size) * (2 if both else 1)))) as snapshot:
        (found,) = snapshot.heaps
        assert sorted((s.span.start, s.span.end) for s in found.segments) == [*heap.truth.segments]
        assert found.segments[0].address == heap.truth.address
        assert sorted((u.start, u.end) for s in found.segments for u in s.uncommitted) == [*heap.truth.uncommitted]
        assert found.committed_bytes == heap.truth.committed_bytes
        assert {f.kind for f in found.findings} == {"segment"}
        assert not found.is_fully_walked


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize("target", ["itself", "the first", "the head"])
def test_a_segment_list_in_a_circle_ends_with_each_segment_once(open_built, generation, target):
    heap, built = segmented(generation)
    size = 8 if generation.arch == "x64" else 4
    head, entry = LIST_HEADS[str(generation)]
    at = heap.truth.segments[2][0] + entry
    value = {"itself": at, "the first": heap.truth.address + entry, "the head": heap.truth.address + head}[target]
    with open_built(poke(built, (at, word(value, size)))) as snapshot:
        (found,) = snapshot.heaps
        assert sorted((s.span.start, s.span.end) for s in found.segments) == [*heap.truth.segments]
        assert {f.kind for f in found.findings} == {"segment"}


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_segment_header_that_names_another_heap_is_left_out(open_built, generation):
    """Where it names none, the member is damaged."""
    heap, built = segmented(generation)
    other = heap_of(generation, [("busy", 100)], base=heap.truth.address + 0x4000000).build()
    built = process_of(generation, heap, other).build()
    at = heap.truth.segments[2][0] + (0x28 if generation.arch == "x64" else 0x18)
    with open_built(poke(built, (at, word(other.truth.address, 8 if generation.arch == "x64" else 4)))) as snapshot:
        found = next(h for h in snapshot.heaps if h.address == heap.truth.address)
        assert sorted(s.span.start for s in found.segments) == [
            s for i, (s, _) in enumerate(heap.truth.segments) if i != 2
        ]
        assert not found.is_fully_walked


def test_a_segment_pointer_of_xp_that_leads_nowhere_is_a_finding(open_built):
    generation = Generation("x86", 2600)
    heap, built = segmented(generation)
    entry = heap.truth.address + 0x58 + 4 * len(heap.truth.segments)  # no header in memory has that number
    with open_built(poke(built, (entry, word(0x99999, 4)))) as snapshot:
        (found,) = snapshot.heaps
        assert [s.span.start for s in found.segments] == [start for start, _ in heap.truth.segments]
        assert [(f.kind, f.address, f.found) for f in found.findings] == [("segment", entry, "0x99999")]
        assert not found.is_fully_walked


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_broken_list_of_uncommitted_ranges_is_a_finding_of_its_kind(open_built, generation):
    heap, built = segmented(generation)
    size = 8 if generation.arch == "x64" else 4
    head = heap.truth.segments[1][0] + (0x60 if size == 8 else 0x38)
    with open_built(poke(built, (head, word(0x31, size)))) as snapshot:
        (found,) = snapshot.heaps
        assert {f.kind for f in found.findings} == {"ucr"}
        assert [f.address for f in found.findings] == [head]
        assert sorted((u.start, u.end) for s in found.segments for u in s.uncommitted) == [*heap.truth.uncommitted]


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_range_outside_of_its_segment_is_not_believed(open_built, generation):
    heap, built = segmented(generation)
    size = 8 if generation.arch == "x64" else 4
    start, end = heap.truth.uncommitted[0]
    raw = built.data.index(word(start, size) + word(end - start, size), position(built, heap.truth.address))
    data = built.data[:raw] + word(heap.truth.segments[0][1], size) + built.data[raw + size :]
    with open_built(data) as snapshot:
        (found,) = snapshot.heaps
        assert "ucr" in {f.kind for f in found.findings}
        for segment in found.segments:
            assert all(segment.span.covers(uncommitted) for uncommitted in segment.uncommitted)


@pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790), *MODERN], ids=str)
@pytest.mark.parametrize("change", ["longer", "shorter", "moved"])
def test_a_range_that_contradicts_the_memory_map_is_corrected_by_it(open_built, generation, change):
    """A longer one hides the blocks behind it, which XP said nothing about."""
    heap, built = segmented(generation)
    size = 8 if generation.arch == "x64" else 4
    start, end = heap.truth.uncommitted[0]
    old = word(start, size) + word(end - start, size)
    new = {
        "longer": word(start, size) + word(end - start + 0x1000, size),
        "shorter": word(start, size) + word(end - start - 0x1000, size),
        "moved": word(start + 0x1000, size) + word(end - start, size),
    }[change]
    raw = built.data.index(old, position(built, heap.truth.address))
    with open_built(built.data[:raw] + new + built.data[raw + len(old) :]) as snapshot:
        (found,) = snapshot.heaps
        assert {f.kind for f in found.findings} == {"ucr"}
        assert sorted((u.start, u.end) for s in found.segments for u in s.uncommitted) == [*heap.truth.uncommitted]
        assert len(snapshot.explained_findings) == 1 and found.is_fully_walked


@pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790), *MODERN], ids=str)
def test_a_wrong_number_of_uncommitted_pages_is_the_damage_where_list_and_map_agree(open_built, generation):
    heap, built = segmented(generation)
    with open_built(built) as snapshot:
        (sound,) = snapshot.heaps
        struct = load(sound.layout or "")["_HEAP_SEGMENT"]
    at = sound.segments[1].address + struct.offset("NumberOfUnCommittedPages")
    with open_built(poke(built, (at, word(peek(built, at, 4) ^ 2, 4)))) as snapshot:
        (found,) = snapshot.heaps
        assert [(f.kind, f.address) for f in found.findings] == [("ucr", at)]
        assert sorted((u.start, u.end) for s in found.segments for u in s.uncommitted) == [*heap.truth.uncommitted]
        assert found.is_fully_walked


# --- random damage


def page_and_lists(built: BuiltDump, heap: BuiltHeap) -> list[tuple[int, int]]:
    """(file offset, bytes) of the heap's first page, segment headers and large-block entries."""
    size = 8 if heap.truth.arch == "x64" else 4
    places = [(heap.truth.address, 0x1000)]
    places += [(start, 0x80) for start, _ in heap.truth.segments[1:]]
    places += [(block.list_entry, 8 * size) for block in heap.truth.large]
    return [(position(built, address), length) for address, length in places]


@cache
def victim(generation: Generation) -> tuple[BuiltHeap, BuiltDump]:
    """A heap with a bit of everything, built once."""
    heap = heap_of(generation, [*FIXED[3], *FIXED[1], ("uncommitted", 4), *FIXED[1]]).build()
    return heap, process_of(generation, heap).build()


DAMAGE = st.lists(
    st.tuples(st.integers(0, 1 << 30), st.integers(0, 1 << 30), st.binary(min_size=1, max_size=12)), max_size=8
)


@pytest.mark.property
@pytest.mark.hostile
@pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
@given(damage=DAMAGE)
def test_no_damage_of_a_heap_makes_heaps_raise(open_built, generation, damage):
    heap, built = victim(generation)
    places = page_and_lists(built, heap)
    data = bytearray(built.data)
    for place, offset, new in damage:
        at, length = places[place % len(places)]
        at += offset % (length - len(new))
        data[at : at + len(new)] = new
    with open_built(bytes(data)) as snapshot:
        first = next(h for h in snapshot.heaps if h.address == heap.truth.address)
        assert first.kind in (HeapKind.NT, HeapKind.UNKNOWN)
        assert all(s.span.size > 0 for s in first.segments)
        if not damage:
            assert_extents(first, heap.truth)
        assert snapshot.usage.table.is_complete_map


MEMBERS = {(8, False): (2, 5, 6, 7, 8, 9), (4, False): (2, 6, 7, 8, 9, 10), (4, True): (2, 4, 6, 7, 8, 9)}
"""Pointers from a segment to signature, heap, base, pages, first entry and end; by size of a pointer, before Vista."""


@pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if g.build != 3790], ids=str)
@pytest.mark.parametrize("which", range(6))
def test_a_damaged_member_of_a_later_segment_is_found_and_loses_no_block(open_built, generation, which):
    """The other members and the memory map tell the segment."""
    heap = heap_of(generation, [*[("busy", 300)] * 20, ("segment", 0x80000), *[("busy", 700)] * 20]).build()
    pointer = 8 if generation.arch == "x64" else 4
    place = heap.truth.segments[1][0] + pointer * MEMBERS[pointer, generation.is_classic][which]
    with open_built(poke(process_of(generation, heap).build(), (place, b"A" * 4))) as snapshot:
        table = snapshot.walk.table
        found = {block.address for block in table.blocks(np.flatnonzero(table.is_busy))}
        assert {block.user for block in heap.truth.busy} <= found
        errors = [f for f in snapshot.heaps[0].findings if f.severity == "error"]
        assert [(f.kind, f.address) for f in errors] == [("segment", place)]


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_the_entry_of_a_segment_header_is_the_heaps_own_whatever_its_unused_bytes_say(open_built, generation):
    heap, built = segmented(generation)
    start = heap.truth.segments[1][0]
    place = start + (15 if generation.arch == "x64" else 7)
    with open_built(poke(built, (place, b"\x10"))) as snapshot:
        table = snapshot.walk.table
        (block,) = table.blocks(np.flatnonzero(table.entry == start))
        assert block.is_internal
        assert [(f.kind, f.address) for f in snapshot.walk.findings] == [("entry_header", place)]


@pytest.mark.parametrize("generation", [Generation("x86", 2600), Generation("x64", 3790)], ids=str)
@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("value", ["nothing", "elsewhere", "the last segment", "the one before"])
def test_a_damaged_pointer_to_a_segment_costs_none(open_built, generation, number, value):
    """The header of a segment names its heap, and its entry the number of the segment."""
    heap, built = segmented(generation)
    at, starts = heap_layout(generation.arch, generation.build), [start for start, _ in heap.truth.segments]
    place = generation.base + at.segments + number * at.pointer
    later = {
        "nothing": 0,
        "elsewhere": 0x41410000,
        "the last segment": starts[-1],
        "the one before": starts[number - 1],
    }
    if later[value] == starts[number] or later[value] == generation.base:
        pytest.skip("that is no damage, or no segment")
    with open_built(poke(built, (place, word(later[value], at.pointer)))) as snapshot:
        (found,) = snapshot.heaps
        assert [(segment.number, segment.span.start) for segment in found.segments] == [*enumerate(starts)]
        (explained,) = snapshot.explained_findings
        assert (explained.finding.kind, explained.finding.address) == ("segment", place)
        assert {user for user, _ in back_end_rows(snapshot)} == {block.user for block in heap.truth.busy}


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_number_of_pages_that_reaches_over_the_next_segment_costs_none(open_built, generation):
    """LastValidEntry says where the segment ends, and so does its reservation."""
    heap, built = segmented(generation)
    place = generation.base + (0x38 if generation.arch == "x64" else 0x20)
    with open_built(poke(built, (place + 1, b"\x21"))) as snapshot:
        (found,) = snapshot.heaps
        assert sorted((s.span.start, s.span.end) for s in found.segments) == [*heap.truth.segments]
        (explained,) = snapshot.explained_findings
        assert (explained.finding.kind, explained.finding.address) == ("segment", place)
