"""Damage to LFH subsegments of segment heaps: what the bitmap, the counts and the offsets still tell."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import SegmentLayout, segment_layout, served_sizes
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, without_memory, word

BASE = 0x20000000000


def many_sizes(generation) -> tuple[BuiltDump, SegmentTruth, SegmentLayout]:
    """A heap with full LFH subsegments of one page each, of blocks of ten sizes."""
    arch, build = generation
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=1)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([40] * 300)
    granule = 16 if arch == "x64" else 8
    for granules in range(2, 12):
        random = np.random.default_rng(granules)
        count = heap.most_lfh_blocks(granules * granule, 1)
        asked = random.integers(*served_sizes(granules * granule, granule), count)
        heap.lfh_blocks(granules * granule, np.where(random.random(count) < 1 / 3, -1, asked))
    made = heap.build()
    return made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth, segment_layout(arch, build)


@EACH
@pytest.mark.parametrize(
    ("member", "bits"),
    [("offsets", 16), ("offsets", 24), ("offsets", 4), ("offsets", 9), ("count", 0), ("count", 3), ("count", 9)],
)
def test_a_damaged_member_of_a_header_follows_from_the_others(open_built, generation, member, bits):
    dump, truth, layout = many_sizes(generation)
    sub = truth.subsegments[5]
    place = sub + (layout.lfh_offsets if member == "offsets" else layout.lfh_count)
    at = place + bits // 8
    with open_built(poke(dump, (at, bytes([peek(dump, at, 1) ^ 1 << bits % 8])))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert finding.kind == "lfh_subsegment" and finding.address <= at < finding.address + finding.length
        table = snapshot.walk.table
        rows = {
            b.address: (b.size, b.trust.value) for b in table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal))
        }
        inside = {address for address in truth.busy if sub < address < sub + 0x1000}
        # where several sizes fit as often, the blocks are left out rather than guessed
        if snapshot.walk.gaps:
            assert member == "offsets" and bits < 16 and set(truth.busy) - set(rows) == inside
        else:
            assert blocks(snapshot) == truth.busy
            unlike = {address for address in rows if rows[address][1] != "exact"}
            assert inside <= unlike and {rows[address][1] for address in unlike - inside} <= {"derived"}


@EACH
@pytest.mark.parametrize("count", [1, 3, 7])
def test_damaged_headers_do_not_hide_the_key_of_the_others(open_built, generation, count):
    """The key is not in the dump: two healthy subsegments tell it."""
    dump, truth, layout = many_sizes(generation)
    subs = truth.subsegments[1 : 1 + count]
    with open_built(poke(dump, *((sub + layout.lfh_offsets, b"AAAA") for sub in subs))) as snapshot:
        found = blocks(snapshot)
        assert {finding.address & ~0xFFF for finding in snapshot.walk.findings} == set(subs)
        assert {address: found[address] for address in found if address & ~0xFFF not in subs} == {
            address: block for address, block in truth.busy.items() if address & ~0xFFF not in subs
        }


@EACH
@pytest.mark.parametrize("what", [b"\0", b"A", b"\xff"], ids=["zeros", "text", "ones"])
def test_a_destroyed_header_costs_no_block_that_bitmap_and_counts_describe(open_built, generation, what):
    dump, truth, layout = many_sizes(generation)
    sub = truth.subsegments[5]
    with open_built(poke(dump, (sub, what * layout.bitmap))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address, finding.length) == ("lfh_subsegment", sub, layout.bitmap)
        assert blocks(snapshot) == truth.busy and not snapshot.walk.gaps
        table = snapshot.walk.table
        trusts = {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal))}
        assert {address for address in trusts if trusts[address] == "guess"} == {
            address for address in truth.busy if sub < address < sub + 0x1000
        }


@EACH
def test_a_destroyed_header_without_counts_leaves_its_blocks_out(open_built, generation):
    """No block has a count of unused bytes: several sizes fit, and none is guessed."""
    arch, build = generation
    granule = 16 if arch == "x64" else 8
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=1)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([40] * 300)
    for granules in (3, 5, 7, 11, 13):
        heap.lfh_blocks(granules * granule, [granules * granule] * heap.most_lfh_blocks(granules * granule, 1))
    made = heap.build()
    dump, sub = made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth.subsegments[3]
    with open_built(poke(dump, (sub, b"A" * segment_layout(arch, build).bitmap))) as snapshot:
        missing = set(made.truth.busy) - set(blocks(snapshot))
        assert not set(blocks(snapshot)) - set(made.truth.busy)
        assert bool(missing) == bool(snapshot.walk.gaps)
        assert [finding.address for finding in snapshot.walk.findings] == [sub]


def test_withheld_blocks_that_are_none_do_not_change_the_structure_of_all(open_built):
    dump, truth, _ = many_sizes(("x64", 26100))
    with open_built(poke(dump, (truth.subsegments[3] + 0x25, b"\x08"))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert finding.address >> 12 == truth.subsegments[3] >> 12
        assert blocks(snapshot) == truth.busy


def test_one_more_block_may_need_one_more_word_of_the_bitmap(open_built):
    """Then the subsegment is full although the block's own bytes are left."""
    heap = SegmentHeapBuilder(arch="x86", base=BASES["x86"], seed=1)
    heap.segment(BASES["x86"] + 0x400000)
    heap.chunks([40] * 300)
    for size, pages in ((56, 2), (24, 1), (40, 1)):
        heap.lfh_blocks(size, [size - 4] * heap.most_lfh_blocks(size, pages), pages=pages)
    with open_built(heap.build().add_to(ProcessBuilder(arch="x86", build=19041)).build()) as snapshot:
        assert snapshot.walk.findings == () and not snapshot.walk.gaps


def bit_of(layout: SegmentLayout, number: int) -> int:
    """Number of the busy bit of a block in the bitmap."""
    return number // 32 * 64 + number % 32 if layout.lfh_free is None else 2 * number


@EACH
@pytest.mark.parametrize("place", ["block", "behind"])
def test_bits_that_cannot_be_are_found_where_they_are(open_built, generation, place):
    """A free block whose last bytes should tell something, and a free block behind the last one."""
    dump, truth, layout = many_sizes(generation)
    sub, size = truth.subsegments[5], 6 * (16 if generation[0] == "x64" else 8)
    with open_built(dump) as snapshot:
        table = snapshot.walk.table
        entries = table.entry[(table.entry > sub) & (table.entry < sub + 0x1000)].tolist()
    number = peek(dump, sub + layout.lfh_count, 2)
    if place == "block":
        number = next(n for n, entry in enumerate(entries) if truth.busy.get(entry, (size,))[0] < size)
    at = sub + layout.bitmap + bit_of(layout, number) // 8
    with open_built(poke(dump, (at, bytes([peek(dump, at, 1) ^ 1 << bit_of(layout, number) % 8])))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert (
            finding.kind == "lfh_subsegment" and finding.address <= at < finding.address + finding.length < sub + 0x100
        )
        assert snapshot.walk.counts[snapshot.heaps[0].index].integrity < 1
        # its own count of unused bytes, and the count of free blocks, tell that the block is busy
        is_lost = place == "block" and layout.lfh_free is None
        assert set(truth.busy) - set(blocks(snapshot)) == ({entries[number]} if is_lost else set())
        assert any("in doubt" in gap for gap in snapshot.walk.gaps) == (place == "block" or layout.lfh_free is None)


@EACH
@pytest.mark.parametrize("most", [8, 3], ids=["usual", "damage"])
def test_bits_that_most_bitmaps_have_are_how_the_build_is(open_built, generation, most):
    """The other bit of a free block, in most bitmaps or in some."""
    dump, truth, layout = many_sizes(generation)
    changes = []
    with open_built(dump) as snapshot:
        table = snapshot.walk.table
        for sub in truth.subsegments[1 : 1 + most]:
            first, second = (
                int(entry) for entry in table.entry[(table.entry > sub) & (table.entry < sub + 0x1000)][:2]
            )
            free = next(
                int(e) for e in table.entry[(table.entry > sub) & (table.entry < sub + 0x1000) & ~table.is_busy]
            )
            bit = bit_of(layout, (free - first) // (second - first)) + (32 if layout.lfh_free is None else 1)
            at = sub + layout.bitmap + bit // 8
            changes.append((at, bytes([peek(dump, at, 1) | 1 << bit % 8])))
    with open_built(poke(dump, *changes)) as snapshot:
        assert len(snapshot.walk.findings) == (0 if most == 8 else 3)
        assert blocks(snapshot) == truth.busy


def test_bits_that_are_not_in_the_dump_are_no_contradiction(open_built):
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([40] * 300)
    for size in (32, 48, 64):
        heap.lfh_blocks(size, [size - 9] * heap.most_lfh_blocks(size, 1))
    sub = heap.lfh_blocks(16, [7] * heap.most_lfh_blocks(16, 128), pages=128)
    built = heap.build()
    with open_built(
        without_memory(built.add_to(ProcessBuilder(build=19041)).build(), (sub + 0x1000, sub + 0x2000))
    ) as snapshot:
        table = snapshot.walk.table
        assert snapshot.walk.findings == () and any("bitmap" in gap for gap in snapshot.walk.gaps)
        trust = {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.entry > sub))}
        missing = set(built.truth.busy) - set(blocks(snapshot))
        assert len(missing) > 16000 and {trust[address] for address in missing} == {"guess"}
        assert "exact" in trust.values()


def test_a_list_of_freed_blocks_that_is_not_in_the_dump_is_no_contradiction(open_built):
    heap = SegmentHeapBuilder(build=26100, base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([40] * 300)
    for size in (32, 48, 80):
        heap.lfh_blocks(size, [size - 4] * heap.most_lfh_blocks(size, 1))
    count = heap.most_lfh_blocks(112, 4)
    sub = heap.lfh_blocks(112, [108] * count, pages=4, listed=[5, count - 3, 9])
    built = heap.build()
    with open_built(
        without_memory(built.add_to(ProcessBuilder(build=26100)).build(), (sub + 0x3000, sub + 0x4000))
    ) as snapshot:
        table = snapshot.walk.table
        assert snapshot.walk.findings == () and any("list of freed blocks" in gap for gap in snapshot.walk.gaps)
        busy = table.blocks(np.flatnonzero(table.is_busy & ~table.is_internal & (table.entry > sub)))
        assert {block.trust.value for block in busy} == {"guess"}


def test_a_block_doubted_twice_is_a_guess(open_built):
    """Its last bytes are overwritten and its subsegment counts other free blocks."""
    heap = SegmentHeapBuilder(base=BASE, seed=1)
    heap.segment(BASE + 0x400000)
    heap.chunks([40] * 900)
    for size in (64, 80, 96):
        sub = heap.lfh_blocks(size, [size - 4] * heap.most_lfh_blocks(size, 1))
    truth = heap.build()
    dump = truth.add_to(ProcessBuilder(build=19041)).build()
    block = min(address for address in truth.truth.busy if address > sub)
    with open_built(poke(dump, (block + 94, word(0x1234, 2)), (sub + 0x20, word(7, 2)))) as snapshot:
        table = snapshot.walk.table
        trust = {
            b.address: b.trust
            for b in table.blocks(np.arange(len(table)))
            if b.address in truth.truth.busy and b.entry > sub
        }
        assert trust.pop(block) == "guess"
        assert {*trust.values()} == {"guess"}


@pytest.mark.parametrize("generation", [("x64", 19041), ("x86", 19041)])
def test_a_bitmap_that_contradicts_the_free_count_leaves_the_states_in_doubt(open_built, generation):
    """All blocks look free: those that are missing must not vanish with exit code 0."""
    dump, truth, layout = many_sizes(generation)
    sub = truth.subsegments[5]
    count = peek(dump, sub + layout.lfh_count, 2)
    clear = (sub + layout.bitmap, bytes(-(-2 * count // 8)))
    with open_built(poke(dump, clear)) as snapshot:
        missing = set(truth.busy) - set(blocks(snapshot))
        assert missing and all(sub < address < sub + 0x1000 for address in missing)
        assert any(f"LFH subsegment at {sub:#x} are busy is in doubt" in gap for gap in snapshot.walk.gaps)
        assert any(finding.address & ~0xFFF == sub for finding in snapshot.walk.findings)


@EACH
@pytest.mark.parametrize("turn", [-1, 1], ids=["smaller", "larger"])
def test_another_size_that_fills_the_subsegment_is_contradicted_by_the_blocks(open_built, generation, turn):
    """All members of the header agree under it; the counts of unused bytes do not."""
    arch, build = generation
    granule = 16 if arch == "x64" else 8
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=1)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([40] * 300)
    for granules in (2, 3, 5, 7):
        heap.lfh_blocks(granules * granule, [granules * granule - 3] * heap.most_lfh_blocks(granules * granule, 1))
    sizes = range(23 * granule, 60 * granule, granule)
    count_of = {size: heap.most_lfh_blocks(size, 1) for size in sizes}
    size = next(one for one in sizes[1:] if count_of[one] == count_of.get(one + turn * granule))
    sub = heap.lfh_blocks(size, [size - 5] * count_of[size])
    made = heap.build()
    dump, place = (
        made.add_to(ProcessBuilder(arch=arch, build=build)).build(),
        sub + segment_layout(*generation).lfh_offsets,
    )
    with open_built(poke(dump, (place, word(peek(dump, place, 2) ^ size ^ size + turn * granule, 2)))) as snapshot:
        assert blocks(snapshot) == made.truth.busy
        assert [finding.kind for finding in snapshot.walk.findings] == ["lfh_subsegment"]
        table = snapshot.walk.table
        inside = table.blocks(np.flatnonzero((table.entry > sub) & (table.entry < sub + 0x1000)))
        assert {block.trust.value for block in inside} == {"guess"}


@pytest.mark.parametrize("generation", [("x64", 19041), ("x86", 19041)])
def test_a_bitmap_that_gives_full_blocks_counts_is_one_damage(open_built, generation):
    """Each block alone would look as if its program had written over its end."""
    arch, build = generation
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=1)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([40] * 300)
    for size in (48, 64, 80):
        heap.lfh_blocks(size, [size - 3] * heap.most_lfh_blocks(size, 1))
    sub = heap.lfh_blocks(32, [32] * heap.most_lfh_blocks(32, 1))
    made, bitmap = heap.build(), sub + segment_layout(arch, build).bitmap
    contents = tuple((block, word(0xABCD0000ABCD0000) * 4) for block in made.truth.busy if sub < block < sub + 0x1000)
    dump = poke(made.add_to(ProcessBuilder(arch=arch, build=build)).build(), *contents)
    with open_built(dump) as snapshot:
        assert not snapshot.walk.findings
    with open_built(poke(dump, (bitmap, b"\x77" * 8))) as snapshot:
        (finding,) = snapshot.walk.findings
        assert finding.kind == "lfh_subsegment" and finding.address <= bitmap < finding.address + finding.length
        assert set(blocks(snapshot)) == set(made.truth.busy) and snapshot.walk.gaps


@EACH
def test_what_nothing_witnesses_is_said(open_built, generation):
    dump, _, _ = many_sizes(generation)
    with open_built(dump) as snapshot:
        (remark,) = snapshot.damage.remarks
        assert "busy bits of LFH blocks" in remark and ("does not count" in remark) == (generation[1] == 26100)
        assert snapshot.damage.findings == () and not snapshot.damage.gaps


def test_a_list_of_freed_blocks_that_goes_on_behind_its_count_is_an_error(open_built):
    """26100: a count that is too small would make the last freed blocks busy."""
    heap = SegmentHeapBuilder(build=26100, base=0x20000000000, seed=3)
    heap.segment(0x20000400000)
    sub = heap.lfh_blocks(64, [60] * heap.most_lfh_blocks(64, 1), listed=(3, 9, 20))
    heap.lfh_blocks(96, [90] * heap.most_lfh_blocks(96, 1), listed=(2, 5))
    made = heap.build()
    dump = made.add_to(ProcessBuilder(build=26100)).build()
    for count in (0, 1, 2):
        with open_built(poke(dump, (sub + 0x12, bytes([count, 0])))) as snapshot:
            assert [finding.kind for finding in snapshot.damage.findings if finding.is_error] == ["lfh_subsegment"]
    with open_built(dump) as snapshot:
        assert snapshot.damage.findings == ()
