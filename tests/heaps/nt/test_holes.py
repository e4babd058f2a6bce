"""Heaps with memory left out: no error, nothing invented, nothing wrong as exact, and what is missing is said."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.kind import HeapKind
from heapdump.blocks.table import Block
from heapdump.snapshot import Snapshot
from heapdump.trust import Trust
from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_truth import BusyTruth
from tests.heaps.nt.plans import REPRESENTATIVES, Generation, heap_of, process_of
from tests.patching import peek, poke, without_memory

SIZES = random.Random(7).choices([8, 24, 40, 100, 300, 700, 3000, 9000], k=500)
LIFE: list[tuple[str, int]] = [
    ("busy" if i % 4 else "free", size if i % 4 else 2 + size // 8) for i, size in enumerate(SIZES)
]
ACTIONS = [
    *LIFE[:150],
    ("uncommitted", 3),
    *LIFE[150:200],
    ("segment", 0x100000),
    *LIFE[200:],
    ("uncommitted", 2),
    ("busy", 40),
]
EACH = pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)


def built_heap(generation: Generation) -> tuple[BuiltHeap, BuiltDump]:
    heap = heap_of(generation, ACTIONS, reserve=0x200000).build()
    return heap, process_of(generation, heap).build()


def header(generation: Generation, block: BusyTruth) -> tuple[int, int]:
    """The header word of a block: [start, end)."""
    start = block.entry + (8 if generation.arch == "x64" else 0)
    return start, start + 8


def holes_of(heap: BuiltHeap, draw: random.Random, share: float, sizes: tuple[int, int]) -> list[tuple[int, int]]:
    """Spans of the heap's memory behind its first page, of some bytes each, that are left out: [start, end).

    They are `share` of it, but not more than 60: more of them take long to cut.
    """
    out = []
    spans = [(start + (0x1000 if start == heap.truth.address else 0), start + len(data)) for start, data in heap.memory]
    mean = (sizes[0] + sizes[1] - 1) / 2
    total = sum(end - start for start, end in spans)
    most = min(60, round(share * total / mean))
    for start, end in spans:
        starts = sorted(draw.sample(range(start, end), min(end - start, round(most * (end - start) / total))))
        for at, following in zip(starts, [*starts[1:], end], strict=False):
            out.append((at, min(at + draw.randrange(*sizes), following)))
    return out


def busy_blocks(snapshot: Snapshot) -> list[Block]:
    """The program's busy blocks that were found."""
    table = snapshot.walk.table
    return list(table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal)))


def assert_nothing_invented(snapshot: Snapshot, heap: BuiltHeap) -> set[int]:
    """No error, no false busy block, no wrong size that is not called a guess; the addresses of the busy blocks."""
    assert not [explained for explained in snapshot.explained_findings if explained.finding.is_error]
    truth = {block.user: block.size for block in heap.truth.busy}
    found = set()
    for block in busy_blocks(snapshot):
        assert block.address in truth
        assert block.size == truth[block.address] or block.trust is Trust.GUESS
        found.add(block.address)
    return found


@pytest.mark.hostile
@EACH
@given(
    seed=st.integers(0, 1 << 30),
    share=st.sampled_from([0.02, 0.1, 0.3, 0.6]),
    size=st.sampled_from([3, 12, 40, 0x400, 0x3000]),
)
def test_fragments_of_a_heap_give_no_error_and_no_invented_block(open_built, generation, seed, share, size):
    heap, built = built_heap(generation)
    holes = holes_of(heap, random.Random(seed), share, (1, size))
    with open_built(without_memory(built, *holes)) as snapshot:
        assert_nothing_invented(snapshot, heap)
        if holes:
            gaps = [gap for gap in snapshot.walk.gaps if "of its memory are not in the dump" in gap]
            assert gaps or not snapshot.heaps[0].is_fully_walked
            assert len(gaps) <= 1


@pytest.mark.hostile
@EACH
@given(seed=st.integers(0, 1 << 30), apart=st.sampled_from([40, 200, 1000]), size=st.sampled_from([9, 30, 60, 200]))
def test_pieces_of_a_heap_give_no_error_and_no_invented_block(open_built, generation, seed, apart, size):
    """A dump of what pointers lead to: pieces of a few dozen bytes, and nothing between them."""
    heap, built = built_heap(generation)
    draw, holes = random.Random(seed), list[tuple[int, int]]()
    for start, memory in heap.memory:
        at = start + draw.choice([0, 0x1000, 0x2000])
        while at < start + len(memory):
            end = min(at + draw.randrange(1, apart), start + len(memory))
            holes.append((at, end))
            at = end + draw.randrange(1, size)
    first = draw.randrange(max(1, len(holes) - 60))  # more pieces take long to cut
    ends = [(low[0], high[1]) for low, high in ((holes[0], holes[first]), (holes[first : first + 60][-1], holes[-1]))]
    with open_built(without_memory(built, *ends, *holes[first : first + 60])) as snapshot:
        assert_nothing_invented(snapshot, heap)
        assert not snapshot.heaps[0].is_fully_walked or snapshot.walk.gaps


@EACH
@pytest.mark.parametrize("seed", range(4))
def test_behind_missing_pages_the_walk_goes_on(open_built, generation, seed):
    heap, built = built_heap(generation)
    pages = [
        (a & ~0xFFF, (a & ~0xFFF) + 0x1000) for a, _ in holes_of(heap, random.Random(seed), 0.11, (0x1000, 0x1001))
    ]
    segments = {start for start, _ in heap.truth.segments}
    pages = [page for page in pages if page[0] not in segments]
    with open_built(without_memory(built, *pages)) as snapshot:
        found = assert_nothing_invented(snapshot, heap)
    there = {
        block.user for block in heap.truth.busy
        if not any(low < header(generation, block)[1] and header(generation, block)[0] < high for low, high in pages)
    }  # fmt: skip
    assert len(found & there) >= 0.95 * len(there)


@EACH
def test_what_is_missing_is_said_once_with_its_size(open_built, generation):
    heap, built = built_heap(generation)
    start = heap.truth.address + 0x4000
    with open_built(without_memory(built, (start, start + 0x123), (start + 0x2000, start + 0x3000))) as snapshot:
        said = f"heap {heap.truth.address:#x}: {0x1123:,} bytes of its memory are not in the dump: blocks there are missing"
        assert list(snapshot.walk.gaps) == [said]
        assert not snapshot.walk.counts[0].checks


@pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
def test_a_size_whose_count_is_missing_is_a_guess(open_built, generation):
    """The block is two pages long; the number of unused bytes lies at its end."""
    granule = 16 if generation.arch == "x64" else 8
    heap = heap_of(generation, [("busy", 100), ("busy", 8000), ("busy", 100), ("busy", 100)])
    user = heap.busy(5000, spare=40)
    heap.busy(64)
    built = heap.build()
    block = next(b for b in built.truth.busy if b.user == user)
    place = block.entry + block.entry_size - (0 if granule == 16 else 8)
    dump = process_of(generation, built).build()
    with open_built(dump) as snapshot:
        assert (block.user, 5000, Trust.EXACT) in {(b.address, b.size, b.trust) for b in busy_blocks(snapshot)}
    with open_built(without_memory(dump, (place, place + 8))) as snapshot:
        (found,) = [b for b in busy_blocks(snapshot) if b.address == block.user]
        assert found.trust is Trust.GUESS
        assert 5000 < found.size <= block.entry_size - granule
        assert not snapshot.explained_findings


MODERN = [generation for generation in REPRESENTATIVES if not generation.is_classic]


@pytest.mark.parametrize("generation", MODERN, ids=str)
@pytest.mark.parametrize("lost", ["heap", "segment", "both"])
def test_a_heap_or_segment_without_its_header_is_told_by_its_entries(open_built, generation, lost):
    heap, built = built_heap(generation)
    first, second = (start for start, _ in heap.truth.segments)
    pages = {"heap": [first], "segment": [second], "both": [first, second]}[lost]
    with open_built(without_memory(built, *((page, page + 0x1000) for page in pages))) as snapshot:
        found = assert_nothing_invented(snapshot, heap)
        assert snapshot.heaps[0].kind == HeapKind.NT
        if lost != "both":
            assert snapshot.heaps[0].committed_bytes == heap.truth.committed_bytes
        assert not snapshot.heaps[0].is_fully_walked
    there = {
        block.user for block in heap.truth.busy
        if not any(page <= header(generation, block)[0] < page + 0x1000 for page in pages)
    }  # fmt: skip
    assert len(found & there) >= 0.95 * len(there)


CLASSIC = pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if g.is_classic], ids=str)


@CLASSIC
@pytest.mark.parametrize("lost", ["heap", "segment"])
def test_a_heap_or_segment_of_xp_without_its_header_is_told_by_its_entries(open_built, generation, lost):
    heap, built = built_heap(generation)
    first, second = (start for start, _ in heap.truth.segments)
    start = first if lost == "heap" else second
    with open_built(without_memory(built, (start, start + 0x1000))) as snapshot:
        found = assert_nothing_invented(snapshot, heap)
        assert snapshot.heaps[0].kind == HeapKind.NT
        assert snapshot.heaps[0].front_end == (None if lost == "heap" else "none")
        assert not snapshot.heaps[0].is_fully_walked
    there = {block.user for block in heap.truth.busy if not start <= block.entry < start + 0x1000}
    assert len(found & there) >= 0.95 * len(there)


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_headers_of_one_size_alone_give_no_key(open_built, generation):
    """Every second header is there: twice the size leads from one to the next, as the right size does."""
    heap = heap_of(generation, [("busy", 700)] * 120).build()
    headers = [header(generation, block) for block in sorted(heap.truth.busy, key=lambda block: block.entry)]
    kept = [(start & ~0xF, end + 16) for start, end in headers[::2]]
    ends = [heap.truth.address, *(end for _, end in kept)]
    starts = [*(start for start, _ in kept), heap.truth.segments[0][1]]
    with open_built(without_memory(process_of(generation, heap).build(), *zip(ends, starts, strict=True))) as snapshot:
        assert_nothing_invented(snapshot, heap)
        assert not snapshot.heaps[0].is_fully_walked


@CLASSIC
@pytest.mark.parametrize("flags", [0x1002, 0x1003], ids=["lock", "no lock"])
@pytest.mark.parametrize("signature", [True, False], ids=["signature", "no signature"])
def test_the_segment_header_behind_a_missing_heap_header_is_no_block(open_built, generation, flags, signature):
    """One byte of the heap's header is missing; with it its flags, which say whether a lock lies behind it."""
    heap = heap_of(generation, [("busy", 40)] * 20, flags=flags).build()
    dump, granule = process_of(generation, heap).build(), 16 if generation.arch == "x64" else 8
    first = peek(dump, heap.truth.address + (0x58 if granule == 8 else 0xA0), granule // 2)  # Segments[0]
    cuts = [(heap.truth.address + 2 * granule, heap.truth.address + 2 * granule + 1)]
    cuts += [] if signature else [(first + granule, first + granule + 4)]
    with open_built(without_memory(dump, *cuts)) as snapshot:
        assert snapshot.heaps[0].kind == HeapKind.NT
        assert len(assert_nothing_invented(snapshot, heap)) == 20


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_a_heap_of_blocks_with_traces_without_its_header_is_told_by_its_entries(open_built, generation):
    heap = heap_of(generation, [])
    for i in range(80):
        heap.busy(20 + i * 16 % 1000, trace=0x7A5C0)
    built = heap.build()
    start = built.truth.address
    with open_built(without_memory(process_of(generation, built).build(), (start, start + 0x1000))) as snapshot:
        found = assert_nothing_invented(snapshot, built)
    assert len(found & {block.user for block in built.truth.busy if block.entry >= start + 0x1000}) > 50


@pytest.mark.parametrize("generation", MODERN, ids=str)
def test_an_address_of_the_heap_list_with_nothing_behind_it_stays_unknown(open_built, generation):
    heap = heap_of(generation, [("busy", 20)]).build()
    start = heap.truth.address
    with open_built(without_memory(process_of(generation, heap).build(), (start, start + 0x1000))) as snapshot:
        assert snapshot.heaps[0].kind == HeapKind.UNKNOWN


def test_flags_of_the_user_do_not_end_the_walk_behind_a_hole(open_built):
    """XP; HeapSetUserFlags sets bits of a header that is otherwise as it was."""
    heap = heap_of(Generation("x86", 2600), [("busy", 300)] * 60).build()
    dump = process_of(Generation("x86", 2600), heap).build()
    blocks = sorted(heap.truth.busy, key=lambda block: block.entry)
    flags = [(block.entry + 5, bytes([0x23 if i % 2 else 0x43])) for i, block in enumerate(blocks[20:])]
    hole = blocks[10].entry & ~0xFFF
    with open_built(without_memory(poke(dump, *flags), (hole, hole + 0x1000))) as snapshot:
        found = {block.address for block in busy_blocks(snapshot)}
    assert {block.user for block in blocks if not hole <= block.entry < hole + 0x1000} <= found


@pytest.mark.parametrize("generation", [Generation("x86", 7601), Generation("x86", 19041)], ids=str)
def test_a_fill_behind_a_size_that_cannot_be_read_is_not_judged(open_built, generation):
    """The size is the greatest that fits, and what stands behind it is no fill."""
    heap = heap_of(generation, [("busy", 100), ("busy", 8000), ("busy", 100)])
    user = heap.busy(5000, spare=40)
    heap.busy(64)
    built = heap.build()
    block = next(b for b in built.truth.busy if b.user == user)
    place = block.entry + block.entry_size - 8
    word = peek(process_of(generation, built).build(), block.entry, 8)
    flagged = (word ^ 0x04040000).to_bytes(8, "little")  # the flag of a fill, and the checksum that fits it
    with open_built(
        without_memory(poke(process_of(generation, built).build(), (block.entry, flagged)), (place, place + 8))
    ) as snapshot:
        assert block.user in {found.address for found in busy_blocks(snapshot)}
        assert not snapshot.explained_findings
