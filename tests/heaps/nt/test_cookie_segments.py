"""Segments of XP that nothing in the dump names are told by the cookies in their entries."""

from __future__ import annotations

import pytest

from tests.builders import BuiltDump, BuiltHeap
from tests.heaps.nt.damage import program_blocks
from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.patching import peek, poke, without_memory

XP = Generation("x86", 2600)
PAGE, OTHER = 0x1000, 0x18000000


def heap_with_segments(base: int) -> BuiltHeap:
    sizes = [40 + 24 * (i % 5) for i in range(60)]
    actions = [("busy", size) for size in sizes]
    for _ in range(2):
        actions += [("segment", 0x80000), *(("busy", size) for size in sizes)]
    return heap_of(XP, actions, base=base).build()


def with_cookie(dump: BuiltDump, heap: BuiltHeap, cookie: int) -> BuiltDump:
    """The builder's cookie is 0."""
    entries = [block.entry + 4 for block in heap.truth.busy]
    return poke(dump, *((at, bytes([peek(dump, at, 1) ^ cookie])) for at in entries))


def cuts(*heaps: BuiltHeap) -> list[tuple[int, int]]:
    """The first page of each heap, and of each of its segments."""
    return [(start, start + PAGE) for heap in heaps for start, _ in heap.truth.segments]


def test_entries_with_the_cookie_of_the_heap_are_a_segment_of_it(open_built):
    heap = heap_with_segments(XP.base)
    dump = with_cookie(process_of(XP, heap).build(), heap, 0x5A)
    known = {block.user: block.size for block in heap.truth.busy}
    with open_built(without_memory(dump, *cuts(heap))) as snapshot:
        (found,) = snapshot.heaps
        assert [segment.number for segment in found.segments] == [0, 1, 2] and not found.is_fully_walked
        listed = {address: size for address, (size, _) in program_blocks(snapshot).items()}
        assert listed.items() <= known.items() and not snapshot.damage.findings
        missing = {address for address in known if any(low <= address - 8 < high for low, high in cuts(heap))}
        assert known.keys() - listed.keys() <= missing


def test_two_heaps_without_header_get_segments_where_their_cookies_differ(open_built):
    heaps = heap_with_segments(XP.base), heap_with_segments(OTHER)
    dump = process_of(XP, *heaps).build()
    for cookie, segments in ((0, 1), (0x5A, 3)):
        changed = with_cookie(dump, heaps[1], cookie)
        with open_built(without_memory(changed, *cuts(*heaps))) as snapshot:
            assert [len(heap.segments) for heap in snapshot.heaps] == [segments, segments]
            for found, heap in zip(snapshot.heaps, heaps, strict=True):
                starts = {start for start, _ in heap.truth.segments}
                assert {segment.span.start for segment in found.segments} <= starts


@pytest.mark.parametrize("what", ["no cookies", "another's", "a few"])
def test_entries_without_the_cookie_are_none(open_built, what):
    """Before SP2 there is none; another heap's segment, and a few entries, prove nothing."""
    heap = heap_with_segments(XP.base)
    dump = process_of(XP, heap).build()
    entries = [block.entry + 4 for block in heap.truth.busy]
    later = [at for at in entries if at >= heap.truth.segments[1][0]]
    changes = {
        "no cookies": [(at, b"\0") for at in entries],
        "another's": [(at, bytes([peek(dump, at, 1) ^ 7])) for at in later],
        "a few": [(at - 4, bytes(8)) for i, at in enumerate(later) if not 48 <= i % 60 < 54],
    }[what]
    with open_built(without_memory(poke(dump, *changes), *cuts(heap))) as snapshot:
        (found,) = snapshot.heaps
        assert len(found.segments) == 1 and not found.is_fully_walked
