"""Heaps that are no NT heaps: recognised by their witnesses, or unknown with the reason."""

from __future__ import annotations

import struct

import pytest

from heapdump.blocks.heap import ExtentKind
from heapdump.blocks.kind import HeapKind
from heapdump.trust import Trust
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.heaps.nt.plans import FIXED, Generation, heap_of, process_of
from tests.patching import add_unlisted, poke, without_memory, word

PLACE = 0x28A70000000
TEN = Generation("x64", 19041)


def page(at: dict[int, int], fill: int = 0, size: int = 8) -> bytes:
    data = bytearray([fill]) * 0x1000
    for offset, value in at.items():
        data[offset : offset + size] = word(value, size)
    return bytes(data)


def with_handle(data: bytes, *, arch: HeapArch = "x64", place: int = PLACE, reserve: int = 0x100000) -> ProcessBuilder:
    """A process with one healthy heap, and a handle with this memory at the start of a reservation."""
    process = process_of(Generation(arch, 19041), heap_of(Generation(arch, 19041), FIXED[0]).build())
    process.heap_handle(place)
    process.region(place, len(data)).memory(place, data)
    process.region(place + len(data), reserve - len(data), state="MEM_RESERVE", allocation_base=place)
    return process


def test_a_handle_that_points_nowhere_is_an_unknown_heap_with_the_reason(open_built):
    process = process_of(TEN, heap_of(TEN, FIXED[0]).build()).heap_handle(0x99990000)
    with open_built(process) as snapshot:
        healthy, phantom = snapshot.heaps
        assert (healthy.kind, phantom.kind, phantom.index) == (HeapKind.NT, HeapKind.UNKNOWN, 1)
        assert phantom.notes == ("heap 0x99990000 is not verified: its header is not in the dump",)
        assert (phantom.segments, phantom.extents, phantom.large_blocks, phantom.flags) == ((), (), None, None)
        assert not phantom.is_fully_walked


def test_a_header_outside_of_the_dump_is_an_unknown_heap(open_built):
    built = process_of(TEN, heap_of(TEN, FIXED[0]).build()).build()
    with open_built(without_memory(built, (TEN.base, TEN.base + 0x1000))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.kind is HeapKind.UNKNOWN
        assert "not in the dump" in heap.notes[0]


@pytest.mark.parametrize(("arch", "offset", "place"), [("x64", 0x10, PLACE), ("x86", 8, 0x60000000)])
def test_a_page_with_the_segment_signature_alone_is_unknown(open_built, arch, offset, place):
    """Wine: FFEEFFEE in Windows' place, EEFFEEFF nowhere."""
    data = page({offset: 0xFFEEFFEE}, size=4)
    with open_built(with_handle(data, arch=arch, place=place)) as snapshot:
        heap = snapshot.heaps[1]
        assert heap.kind is HeapKind.UNKNOWN
        assert "FFEEFFEE in the place of an NT heap's segment signature, but no EEFFEEFF (Wine" in heap.notes[0]
        assert heap.extents == ()


@pytest.mark.parametrize(("offset", "value"), [(0x10, 0x12345678), (0x98, 0xEEFFEEFF), (0x10, 0)])
def test_a_page_without_two_witnesses_is_unknown(open_built, offset, value):
    with open_built(with_handle(page({offset: value}, size=4))) as snapshot:
        assert snapshot.heaps[1].kind is HeapKind.UNKNOWN
        assert "no heap signature" in snapshot.heaps[1].notes[0]


def test_a_heap_that_lost_one_signature_is_still_a_heap_with_a_note(open_built):
    generation = TEN
    heap = heap_of(generation, FIXED[3]).build()
    for offset, name in (
        (0x10, "segment signature FFEEFFEE"),
        (0x98, "heap signature EEFFEEFF"),
        (0x28, "own address in Heap"),
    ):
        built = poke(process_of(generation, heap).build(), (heap.truth.address + offset, word(0x41414141, 4)))
        with open_built(built) as snapshot:
            found = snapshot.heaps[0]
            assert (found.kind, found.trust) == (HeapKind.NT, Trust.DERIVED)
            assert any(f"expected {name}" in note for note in found.notes)
            assert found.free_bytes == heap.truth.free_bytes


def test_a_heap_that_lost_both_signatures_is_told_by_its_segments(open_built):
    heap = heap_of(TEN, FIXED[3]).build()
    at = heap.truth.address
    built = poke(process_of(TEN, heap).build(), (at + 0x10, bytes(4)), (at + 0x98, bytes(4)))
    with open_built(built) as snapshot:
        (found,) = snapshot.heaps
        segments = len(heap.truth.segments)
        assert (found.kind, len(found.segments), found.is_fully_walked) == (HeapKind.NT, segments, False)
        assert [(finding.kind, finding.address) for finding in found.findings] == [("segment", at + 0x10)]


def test_a_heap_that_lost_both_signatures_and_has_no_entries_is_none(open_built):
    heap = heap_of(TEN, FIXED[0]).build()
    at = heap.truth.address
    built = poke(process_of(TEN, heap).build(), (at + 0x10, bytes(4)), (at + 0x98, bytes(4)))
    with open_built(built) as snapshot:
        assert snapshot.heaps[0].kind is HeapKind.UNKNOWN


def test_a_segment_heap_is_recognised_by_its_signature_and_metadata(open_built):
    pointers = {0xE8 + 8 * i: value for i, value in enumerate((PLACE + 0x1000, PLACE + 0x3000, PLACE + 0x100000))}
    with open_built(with_handle(page({0x10: 0xDDEEDDEE} | pointers))) as snapshot:
        heap = snapshot.heaps[1]
        assert (heap.kind, heap.trust, heap.is_fully_walked) == (HeapKind.SEGMENT, Trust.DERIVED, False)
        assert [(e.span.start, e.span.end, e.words) for e in heap.extents] == [
            (PLACE, PLACE + 0x100000, "segment heap")
        ]
        assert (heap.reserved_bytes, heap.committed_bytes) == (0x100000, 0x1000)
        assert "is a segment heap" in heap.notes[0]


def test_a_listed_segment_heap_without_metadata_is_less_certain(open_built):
    with open_built(with_handle(page({0x10: 0xDDEEDDEE}, size=4))) as snapshot:
        assert (snapshot.heaps[1].kind, snapshot.heaps[1].trust) == (HeapKind.SEGMENT, Trust.DERIVED)


def test_a_segment_signature_that_no_list_names_needs_its_metadata(open_built):
    """Without the PEB the scan offers both reservations; only one of them has the second witness."""
    process = process_of(TEN, heap_of(TEN, FIXED[0]).build())
    pointers = {0xE8 + 8 * i: PLACE + value for i, value in enumerate((0x1000, 0x3000, 0x100000))}
    for place, members in ((PLACE, pointers), (PLACE + 0x1000000, {})):
        process.region(place, 0x1000).memory(place, page({0x10: 0xDDEEDDEE} | members))
        process.region(place + 0x1000, 0xFF000, state="MEM_RESERVE", allocation_base=place)
    built = process.build()
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        kind_of = {heap.address: heap.kind for heap in snapshot.heaps}
        assert kind_of[PLACE] is HeapKind.SEGMENT
        assert kind_of.get(PLACE + 0x1000000, HeapKind.UNKNOWN) is HeapKind.UNKNOWN


@pytest.mark.parametrize(("arch", "place"), [("x64", PLACE), ("x86", 0x60000000)])
def test_a_page_heap_is_recognised_by_its_filled_page_and_root(open_built, arch, place):
    data = b"\xee" * 0x1000 + page({0: 0xFFEEDDCC}, size=4)
    with open_built(with_handle(data, arch=arch, place=place)) as snapshot:
        heap = snapshot.heaps[1]
        assert (heap.kind, heap.is_fully_walked) == (HeapKind.PAGE, False)
        assert [(e.span.start, e.span.end, e.words) for e in heap.extents] == [(place, place + 0x100000, "page heap")]
        assert (heap.reserved_bytes, heap.committed_bytes) == (0x100000, 0x2000)
        assert f"the reservations of page heap {place:#x} end after 0" in heap.notes[0]


@pytest.mark.parametrize(
    "data", [b"\xee" * 0x2000, b"\xee" * 0x1000 + bytes(0x1000), bytes(0x1000) + page({0: 0xFFEEDDCC})]
)
def test_half_a_page_heap_is_none(open_built, data):
    with open_built(with_handle(data)) as snapshot:
        assert snapshot.heaps[1].kind is HeapKind.UNKNOWN


@pytest.mark.parametrize("flag", [0x02000000, 0x100])
def test_under_page_heap_reservations_are_scanned_too(open_built, flag):
    process = ProcessBuilder(nt_global_flag=flag)
    process.heap(heap_of(TEN, FIXED[0]).build())
    data = b"\xee" * 0x1000 + page({0: 0xFFEEDDCC}, size=4)
    process.region(PLACE, len(data)).memory(PLACE, data)
    with open_built(process) as snapshot:
        assert [(h.address, h.kind) for h in snapshot.heaps] == [(TEN.base, HeapKind.NT), (PLACE, HeapKind.PAGE)]


def test_a_complete_list_is_not_searched_for_more(open_built):
    """A heap that was destroyed may still have its bytes somewhere: what Windows lists counts."""
    process = process_of(TEN, heap_of(TEN, FIXED[0]).build())
    add_unlisted(process, heap_of(TEN, FIXED[0], base=PLACE).build())
    with open_built(process) as snapshot:
        assert [heap.address for heap in snapshot.heaps] == [TEN.base]


def test_the_scan_does_not_take_later_segments_for_heaps(open_built):
    heap = heap_of(TEN, FIXED[3]).build()
    process = process_of(TEN, heap)
    built = process.build()
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        assert [(h.address, h.kind) for h in snapshot.heaps] == [(TEN.base, HeapKind.NT)]


@pytest.mark.parametrize("build", [2600, 3790])
def test_the_scan_finds_heaps_of_xp(open_built, build):
    generation = Generation("x86", build)
    process = process_of(generation, heap_of(generation, FIXED[3]).build())
    built = process.build()
    with open_built(without_memory(built, (process.plan.peb, process.plan.peb + 0x1000))) as snapshot:
        assert [(h.address, h.kind) for h in snapshot.heaps] == [(generation.base, HeapKind.NT)]


@pytest.mark.parametrize(
    ("heap_class", "role"),
    [(0x0, "private"), (0x1000, "private"), (0x5000, "console"), (0x7000, "csr shared"), (0x8000, "csr port")],
)
def test_the_role_of_a_heap_is_told_by_its_class(open_built, heap_class, role):
    heaps = [heap_of(TEN, [], base=TEN.base + i * 0x1000000, flags=2 | heap_class * i).build() for i in (0, 1)]
    with open_built(process_of(TEN, *heaps)) as snapshot:
        assert [heap.role for heap in snapshot.heaps] == ["process", role]


def test_the_context_of_the_lfh_in_a_reservation_of_its_own_is_an_extent(open_built):
    heap = heap_of(TEN, FIXED[0]).build()
    built = (
        process_of(TEN, heap)
        .region(PLACE, 0x3000)
        .region(PLACE + 0x3000, 0xD000, state="MEM_RESERVE", allocation_base=PLACE)
        .build()
    )
    changed = poke(built, (TEN.base + 0x198, word(PLACE)), (TEN.base + 0x1A2, b"\2"))
    with open_built(changed) as snapshot:
        (found,) = snapshot.heaps
        assert found.front_end == "lfh"
        assert [(e.span.start, e.span.end) for e in found.extents if e.kind is ExtentKind.FRONT_END] == [
            (PLACE, PLACE + 0x10000)
        ]


def test_blocks_on_lookaside_lists_of_xp_count_as_free(open_built):
    generation = Generation("x86", 2600)
    heap = heap_of(generation, FIXED[2], front_end="lookaside").build()
    lists = heap.truth.internal[0].user
    depths = {3: 5, 10: 2, 127: 1}
    changes = [(lists + 0x30 * i + 4, struct.pack("<H", depth)) for i, depth in depths.items()]
    with open_built(poke(process_of(generation, heap).build(), *changes)) as snapshot:
        (found,) = snapshot.heaps
        assert found.lookaside_bytes == sum(i * 8 * depth for i, depth in depths.items())
        assert found.free_bytes == heap.truth.free_bytes + found.lookaside_bytes


def test_a_heap_at_the_very_top_of_the_address_space_is_no_failure(open_built):
    base = (1 << 64) - 0x200000
    heap = NtHeapBuilder(base=base).build()
    process = process_of(TEN, heap_of(TEN, FIXED[0]).build())
    process.dump.memory(base, heap.memory[0][1])
    built = process.heap_handle(base).build()
    for pages in (0x100, 0x200, 0x201, 0x10000, 0xFFFFFFFF):
        at = built.data.index(heap.memory[0][1][:0x30])
        changed = built.data[: at + 0x38] + word(pages, 4) + built.data[at + 0x3C :]
        with open_built(changed) as snapshot:
            assert snapshot.heaps[1].address == base
            assert len(snapshot.usage.table) > 0
