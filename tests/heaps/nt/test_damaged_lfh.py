"""Damage to the low fragmentation heap of NT heaps: found where it is, and never a block of another subsegment lost."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump.blocks.findings import Finding
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, BuiltHeap
from tests.builders.nt_heap_lfh_layout import LfhLayout, lfh_layout
from tests.builders.nt_heap_truth import LfhBlockTruth, SubsegmentTruth
from tests.heaps.nt.lfh_plans import (
    CODINGS,
    EACH,
    GENERATIONS,
    Plan,
    Row,
    back_end_rows,
    back_end_truth,
    lfh_rows,
    lfh_truth,
)
from tests.heaps.nt.plans import Generation
from tests.patching import peek, poke, without_memory, word

LAYOUT = (("lfh", 4, 40), ("lfh", 5, 40), ("busy", 100, 0), ("lfh", 9, 20), ("lfh", 5, 30), ("busy", 50, 0))
WITH_BITMAP = [generation for generation in CODINGS if generation.build >= 9600]
WITHOUT_BITMAP = [generation for generation in CODINGS if generation.build < 9600]


def each(generations: Iterable[Generation]) -> pytest.MarkDecorator:
    """Parametrizes a test by generation."""
    return pytest.mark.parametrize("generation", list(generations), ids=str)


def layout_of(generation: Generation) -> LfhLayout:
    return lfh_layout(generation.arch, generation.build)


@cache
def built(generation: Generation) -> tuple[BuiltDump, BuiltHeap]:
    """A heap with four subsegments, two of them of one bucket."""
    plan = Plan(generation, LAYOUT, seed=5)
    heap = plan.heap()
    return plan.process(heap).build(), heap


def header_place(generation: Generation, block: LfhBlockTruth) -> int:
    """Address of the 8 bytes that count of a block's header."""
    return block.entry + (8 if generation.arch == "x64" else 0)


def flipped(dump: BuiltDump, address: int, bit: int = 0) -> BuiltDump:
    """The dump with one bit changed, counted from the lowest of the byte at `address`."""
    at = address + bit // 8
    return poke(dump, (at, bytes([peek(dump, at, 1) ^ 1 << bit % 8])))


def covering(snapshot: Snapshot, address: int) -> list[Finding]:
    """The findings about that byte."""
    return [f for f in snapshot.walk.findings if f.address <= address < f.address + f.length]


def end_of(sub: SubsegmentTruth) -> int:
    """An address behind the user blocks of `sub` and before the next ones."""
    return sub.blocks[-1].entry + sub.blocks[-1].entry_size + 0xD0


def outside(rows: set[Row], sub: SubsegmentTruth) -> set[Row]:
    """The rows that do not lie in the user blocks of `sub`."""
    return {row for row in rows if not sub.user_blocks <= row[0] < end_of(sub)}


def assert_others_undamaged(snapshot: Snapshot, heap: BuiltHeap, *damaged: SubsegmentTruth) -> None:
    """All blocks but those of the subsegments `damaged` are as built."""
    rows, wanted = lfh_rows(snapshot), lfh_truth(heap)
    for sub in damaged:
        rows, wanted = outside(rows, sub), outside(wanted, sub)
    assert rows == wanted
    found, truth = back_end_rows(snapshot), back_end_truth(heap)
    # before Vista only sound subsegments say that zones and user blocks are the heap's own
    own = {block.user for block in heap.truth.internal} if heap.truth.build < 6000 else set()
    assert found >= truth and {user for user, _ in found - truth} <= own


# --- headers of blocks


def assert_one_header_is_damaged(open_built, generation: Generation, number: int, bit: int) -> None:
    """One error at the header whose bit was changed, a guess for its block, all other blocks as built."""
    dump, heap = built(generation)
    block = heap.truth.lfh[0].blocks[number]
    with open_built(flipped(dump, header_place(generation, block), bit)) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.severity) == ("lfh_subsegment", "error")
        assert finding.address <= header_place(generation, block) + bit // 8 < finding.address + finding.length
        rows = lfh_rows(snapshot)
        damaged = {row for row in rows if row[0] == block.entry}
        assert {(row[3], row[4]) for row in damaged} == {(block.entry_size, "guess")}
        assert rows - damaged == lfh_truth(heap, without=(block.entry,))
        assert back_end_rows(snapshot) == back_end_truth(heap)
        assert snapshot.walk.counts[0].integrity < 1


@each(GENERATIONS)
def test_a_damaged_code_is_found_and_leaves_a_guess(open_built, generation):
    """In the subsegment that tells the key first, in its first headers and in others."""
    last = 8 * layout_of(generation).code_bytes - 1
    for number, bit in ((0, 0), (1, 9), (39, 13), (17, 22), (2, last)):
        assert_one_header_is_damaged(open_built, generation, number, bit)


@EACH
def test_a_header_without_the_mark_of_the_lfh_is_found_and_leaves_a_guess(open_built, generation):
    assert_one_header_is_damaged(open_built, generation, 17, 63)


@EACH
def test_an_overrun_into_a_header_costs_its_block_and_no_other(open_built, generation):
    dump, heap = built(generation)
    sub = heap.truth.lfh[2]
    victim = sub.blocks[9]
    with open_built(poke(dump, (header_place(generation, victim) - 3, b"A" * 11))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.address, finding.kind) == (victim.entry, "lfh_subsegment")
        assert outside(lfh_rows(snapshot), sub) == outside(lfh_truth(heap), sub)
        assert {row for row in lfh_rows(snapshot) if row[4] == "exact"} >= lfh_truth(
            heap, without=(victim.entry, sub.blocks[8].entry)
        )
        assert list(snapshot.explained_findings)


@pytest.mark.parametrize("generation", WITH_BITMAP, ids=str)
@pytest.mark.parametrize("count", [1, 2, 8])
def test_headers_that_tell_no_key_leave_it_to_the_next_subsegment(open_built, generation, count):
    dump, heap = built(generation)
    sub = heap.truth.lfh[0]
    changes = [(header_place(generation, block), b"AAAA") for block in sub.blocks[:count]]
    with open_built(poke(dump, *changes)) as snapshot:
        assert snapshot.walk.findings
        assert_others_undamaged(snapshot, heap, sub)


@pytest.mark.parametrize("generation", WITHOUT_BITMAP, ids=str)
def test_headers_that_tell_no_key_are_damaged_themselves(open_built, generation):
    dump, heap = built(generation)
    damaged = heap.truth.lfh[0].blocks[:3]
    with open_built(
        poke(dump, *((header_place(generation, b), b"AAAA"[i:]) for i, b in enumerate(damaged)))
    ) as snapshot:
        assert {finding.address for finding in snapshot.walk.findings} == {block.entry for block in damaged}


def test_headers_that_are_all_damaged_leave_the_places_of_their_blocks(open_built):
    """No header tells the key; all members agree."""
    generation = Generation("x64", 19041)
    dump, heap = built(generation)
    blocks = [b for sub in heap.truth.lfh for b in sub.blocks]
    with open_built(poke(dump, *((header_place(generation, b), b"ABCDEFGH") for b in blocks))) as snapshot:
        assert {f.address for f in snapshot.walk.findings} == {b.entry for b in blocks}
        assert {(row[0], row[4]) for row in lfh_rows(snapshot)} == {(b.entry, "guess") for b in blocks}
        assert back_end_rows(snapshot) == back_end_truth(heap)


# --- states: header, bitmap, count


def one_of(heap: BuiltHeap, state: str) -> tuple[SubsegmentTruth, LfhBlockTruth, int]:
    """A subsegment, one of its blocks that has this state, and the number of that block."""
    sub = heap.truth.lfh[1]
    number = next(i for i, b in enumerate(sub.blocks) if i > 4 and (b.size is not None) == (state == "busy"))
    return sub, sub.blocks[number], number


def with_other_state(block: LfhBlockTruth, sub: SubsegmentTruth) -> LfhBlockTruth:
    """Another block of the subsegment, busy where this one is free."""
    return next(b for b in sub.blocks if (b.size is None) != (block.size is None))


@each(g for g in GENERATIONS if g.build >= 9200)
@pytest.mark.parametrize("state", ["busy", "free"])
def test_a_header_that_contradicts_bitmap_and_count_is_a_warning(open_built, generation, state):
    """The bitmap counts: the state is that of the bitmap, and no other block is touched."""
    dump, heap = built(generation)
    _, block, _ = one_of(heap, state)
    byte = header_place(generation, block) + 7
    with open_built(poke(dump, (byte, b"\x80" if state == "busy" else b"\x8c"))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.severity, finding.address) == ("lfh_subsegment", "warning", byte)
        rows = lfh_rows(snapshot)
        ((*_, size, _, trust),) = [row for row in rows if row[0] == block.entry]
        assert ((size is not None), trust) == (state == "busy", "guess")
        assert {row for row in rows if row[0] != block.entry} == lfh_truth(heap, without=(block.entry,))


@each(g for g in GENERATIONS if g.build >= 9200)
@pytest.mark.parametrize("state", ["busy", "free"])
def test_a_bitmap_that_contradicts_headers_and_count_is_an_error_and_costs_no_block(open_built, generation, state):
    dump, heap = built(generation)
    sub, _, number = one_of(heap, state)
    place = sub.user_blocks + layout_of(generation).bits
    with open_built(flipped(dump, place, number)) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.severity, finding.address) == ("lfh_subsegment", "error", place + number // 8)
        assert lfh_rows(snapshot) == lfh_truth(heap)


@EACH
def test_a_count_of_free_blocks_that_nothing_confirms_is_a_warning(open_built, generation):
    dump, heap = built(generation)
    sub = heap.truth.lfh[1]
    place = sub.address + layout_of(generation).exchange
    with open_built(flipped(dump, place, 4)) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.severity, finding.address) == ("lfh_subsegment", "warning", place)
        assert lfh_rows(snapshot) == lfh_truth(heap)


@pytest.mark.parametrize("generation", WITHOUT_BITMAP, ids=str)
@pytest.mark.parametrize("state", ["busy", "free"])
def test_a_state_that_contradicts_the_count_of_free_blocks_is_found(open_built, generation, state):
    dump, heap = built(generation)
    block = next(b for b in heap.truth.lfh[1].blocks if (b.size is not None) == (state == "busy"))
    other = with_other_state(block, heap.truth.lfh[1])
    place = header_place(generation, block) + (5 if generation.is_classic else 7)
    other_place = place + other.entry - block.entry
    with open_built(poke(dump, (place, bytes([peek(dump, other_place, 1)])))) as snapshot:
        assert any(finding.kind == "lfh_subsegment" for finding in snapshot.walk.findings)


# --- members of the user data header and of the subsegment


def members(generation: Generation, sub: SubsegmentTruth) -> dict[str, tuple[int, int]]:
    """Member → (address, bytes)."""
    at = layout_of(generation)
    places = {
        "pointer": (sub.user_blocks, at.pointer),
        "signature": (sub.user_blocks + at.signature, 4),
        "back pointer": (sub.address + at.user_blocks, at.pointer),
        "block size": (sub.address + at.block_size, 2),
        "block count": (sub.address + at.block_count, 2),
    }
    if at.bitmap:
        places["first offset"] = (sub.user_blocks + at.offsets, 2)
        places["stride"] = (sub.user_blocks + at.offsets + 2, 2)
        places["bitmap size"] = (sub.user_blocks + at.bitmap, 4)
        places["bitmap pointer"] = (sub.user_blocks + at.bitmap + at.pointer, at.pointer)
    return places


@pytest.mark.parametrize("generation", CODINGS, ids=str)
@pytest.mark.parametrize(("which", "mask"), [(0, 0x4141414141414141), (1, 0x20)], ids=["first", "second"])
def test_no_damaged_member_costs_a_block_of_another_subsegment(open_built, generation, which, mask):
    """The first subsegment is the one that would tell the key."""
    dump, heap = built(generation)
    sub = heap.truth.lfh[which]
    for address, size in members(generation, sub).values():
        with open_built(poke(dump, (address, word(peek(dump, address, size) ^ mask, size)))) as snapshot:
            assert_others_undamaged(snapshot, heap, sub)


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g.is_classic], ids=str)
def test_user_blocks_of_a_damaged_subsegment_are_no_block_of_the_program(open_built, generation):
    dump, heap = built(generation)
    sub = heap.truth.lfh[1]
    address, size = members(generation, sub)["back pointer"]
    with open_built(poke(dump, (address, word(0x41414141, size)))) as snapshot:
        assert back_end_rows(snapshot) == back_end_truth(heap)


@pytest.mark.parametrize("generation", WITH_BITMAP, ids=str)
@pytest.mark.parametrize("bit", [0, 3, 4, 5, 6, 7, 15])
def test_a_damaged_first_offset_is_an_error(open_built, generation, bit):
    dump, heap = built(generation)
    sub = heap.truth.lfh[bit % 2]
    address, _ = members(generation, sub)["first offset"]
    with open_built(flipped(dump, address, bit)) as snapshot:
        assert {(f.kind, f.severity) for f in snapshot.walk.findings} >= {("lfh_subsegment", "error")}
        assert all(sub.user_blocks <= f.address < end_of(sub) for f in snapshot.walk.findings)
        assert_others_undamaged(snapshot, heap, sub)
        assert not {row for row in lfh_rows(snapshot) if row[4] == "exact"} - lfh_truth(heap)


@pytest.mark.parametrize("generation", WITH_BITMAP, ids=str)
def test_contradicting_user_blocks_whose_subsegment_is_missing_are_no_damage(open_built, generation):
    """They may be free ones that the LFH keeps: the witness that decides is not in the dump."""
    dump, heap = built(generation)
    sub = heap.truth.lfh[0]
    address, _ = members(generation, sub)["first offset"]
    changed = flipped(dump, address, 5)
    with open_built(without_memory(changed, (sub.address, sub.address + 0x20))) as snapshot:
        assert not [f for f in snapshot.walk.findings if f.severity == "error"]
        assert any("not in the dump" in gap for gap in snapshot.walk.gaps)
        assert not {row for row in lfh_rows(snapshot) if row[4] == "exact"} - lfh_truth(heap)


BITS = {
    "pointer": 12,
    "signature": 5,
    "back pointer": 7,
    "block size": 9,
    "block count": 3,
    "bitmap size": 3,
    "bitmap pointer": 27,
}
"""Member → the bit of it that is changed."""


@pytest.mark.parametrize(
    ("generation", "member"),
    [
        pytest.param(g, member, id=f"{g}-{member}")
        for member in BITS
        for g in CODINGS
        if "bitmap" not in member or g.build >= 9200
    ],
)
def test_a_damaged_member_is_an_error_at_its_bytes_and_blocks_are_not_lost_silently(open_built, generation, member):
    dump, heap = built(generation)
    sub = heap.truth.lfh[1]
    address, _ = members(generation, sub)[member]
    bit = BITS[member]
    with open_built(flipped(dump, address, bit)) as snapshot:
        assert_others_undamaged(snapshot, heap, sub)
        assert [f.severity for f in covering(snapshot, address + bit // 8)] == ["error"]
        found = {row[:4] for row in lfh_rows(snapshot)}
        assert found == {row[:4] for row in lfh_truth(heap)} or snapshot.walk.gaps


# --- memory that is not in the dump


@EACH
def test_headers_that_are_not_in_the_dump_are_no_damage(open_built, generation):
    plan = Plan(generation, (("lfh", 9, 20), ("lfh", 8, 400 if generation.arch == "x86" else 200), ("busy", 50, 0)))
    heap = plan.heap()
    sub = heap.truth.lfh[1]
    start = (sub.user_blocks & ~0xFFF) + 0x2000
    missing = {b.entry for b in sub.blocks if start - 16 <= b.entry < start + 0x1000}
    assert len(missing) > 25
    with open_built(without_memory(plan.process(heap).build(), (start, start + 0x1000))) as snapshot:
        assert snapshot.walk.findings == ()
        assert snapshot.walk.gaps
        rows = lfh_rows(snapshot)
        assert {row for row in rows if row[4] == "exact"} >= {
            row for row in lfh_truth(heap) if row[0] not in missing and not start <= row[0] + row[3] < start + 16
        }
        assert back_end_rows(snapshot) == back_end_truth(heap)


@EACH
def test_subsegments_that_are_not_in_the_dump_are_said_and_their_blocks_listed(open_built, generation):
    """Subsegments in a zone of the first pages, whose user blocks lie behind."""
    layout = (("busy", 4096, 0), ("lfh", 3, 40), ("busy", 9000, 0), ("lfh", 3, 60), ("lfh", 3, 50))
    heap = Plan(generation, layout).heap()
    start = heap.truth.lfh[1].address & ~0xFFF
    assert all(start + 0x1000 <= sub.user_blocks for sub in heap.truth.lfh[1:])
    dump = Plan(generation, ()).process(heap).build()
    with open_built(without_memory(dump, (start, start + 0x1000))) as snapshot:
        assert not [f for f in snapshot.walk.findings if f.severity == "error"]
        assert snapshot.walk.gaps
        wanted = {b.entry for sub in heap.truth.lfh[1:] for b in sub.blocks}
        assert wanted <= {row[0] for row in lfh_rows(snapshot)}


# --- random damage

CHANGES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 1 << 20), st.binary(min_size=1, max_size=12)), min_size=1, max_size=5
)


@pytest.mark.property
@pytest.mark.hostile
@EACH
@settings(max_examples=6)
@given(changes=CHANGES)
def test_random_damage_never_raises_and_leaves_other_subsegments_whole(open_built, generation, changes):
    """Of user data headers, subsegments and headers of blocks."""
    dump, heap = built(generation)
    at = layout_of(generation)
    pokes, damaged = [], []
    for number, draw, new in changes:
        sub = heap.truth.lfh[number]
        places = [sub.user_blocks + draw % at.header_bytes, sub.address + draw % (at.subsegment_bytes - 12)]
        places += [sub.blocks[draw % len(sub.blocks)].entry]
        pokes.append((places[draw % 3], new))
        damaged.append(sub)
    with open_built(poke(dump, *pokes)) as snapshot:
        assert_others_undamaged(snapshot, heap, *damaged)
        assert snapshot.explained_findings is not None
