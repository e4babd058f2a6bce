"""Damage to page-range descriptors of segment heaps: each kind of range has a second witness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from tests.builders import ProcessBuilder, SegmentHeapBuilder, SegmentTruth
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.plans import BASES, GENERATIONS
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, word

ALLOCATED, FIRST, ALL = 0, 1, 2
WAYS = pytest.mark.parametrize("way", [ALLOCATED, FIRST, ALL], ids=["not in use", "not the first", "no flags"])


@dataclass(frozen=True)
class Descriptors:
    """Where the flags of a unit of the first segment lie, and what they mean."""

    dump: BuiltDump
    truth: SegmentTruth
    size: int
    flags: int
    in_use: int
    first: int
    vs: int
    lfh: int

    def of(self, address: int) -> int:
        """Address of the flags of the unit that begins there."""
        base = self.truth.segments[0][0]
        return base + (address - base) // 0x1000 * self.size + self.flags

    def without(self, address: int, way: int) -> tuple[int, bytes]:
        """The change that takes a flag away."""
        at = self.of(address)
        old = peek(self.dump, at, 1)
        return at, bytes([0 if way == ALL else old & ~(self.in_use if way == ALLOCATED else self.first)])


def descriptors(generation: tuple[HeapArch, int]) -> Descriptors:
    dump, _, truth = built(generation)
    arch, build = generation
    size, flags = (32, 0x18) if arch == "x64" else (16, 0xC)
    lfh, vs = (kind << 2 for kind in segment_layout(arch, build).kinds)
    meanings = (4, 8, 0x20, 1) if build < 16299 else (1, 2, vs, lfh)
    return Descriptors(dump, truth, size, flags, *meanings)


def page_range(truth) -> int:
    """A block of whole pages in the first segment."""
    start, end = truth.segments[0]
    return next(address for address, (_, kind) in truth.busy.items() if kind == "pages" and start < address < end)


def findings(snapshot) -> list[tuple[str, int]]:
    return [(finding.kind, finding.address) for finding in snapshot.walk.findings]


@EACH
@WAYS
def test_a_busy_range_that_lost_its_flags_is_still_busy(open_built, generation, way):
    """Its signature says so, and the flags of its other units."""
    given = descriptors(generation)
    address = page_range(given.truth)
    with open_built(poke(given.dump, given.without(address, way))) as snapshot:
        assert findings(snapshot) == [("segment", given.of(address) - given.flags)]
        assert blocks(snapshot) == given.truth.busy
        table = snapshot.walk.table
        (block,) = (b for b in table.blocks(np.flatnonzero(table.kind == BlockKind.PAGES)) if b.address == address)
        assert block.trust == "derived"


CONTENTS = ("pages", "vs", "lfh")


@EACH
@pytest.mark.parametrize(("old", "new"), [(a, b) for a in CONTENTS for b in CONTENTS if a != b])
def test_a_range_holds_what_its_header_and_its_unused_units_say(open_built, generation, old, new):
    given = descriptors(generation)
    vs, lfh = given.truth.subsegments[0], given.truth.subsegments[1]
    address = {"pages": page_range(given.truth), "vs": vs, "lfh": lfh}[old]
    at, flags_of_both = given.of(address), given.vs | given.lfh
    flags = peek(given.dump, at, 1) & ~flags_of_both | {"pages": 0, "vs": given.vs, "lfh": given.lfh}[new]
    with open_built(poke(given.dump, (at, bytes([flags])))) as snapshot:
        assert findings(snapshot) == [("segment", at - given.flags)]
        assert blocks(snapshot) == given.truth.busy


@pytest.mark.parametrize("generation", [g for g in GENERATIONS if g[1] > 16299], ids=str)
def test_a_range_of_an_unknown_kind_is_a_gap(open_built, generation):
    given = descriptors(generation)
    address = page_range(given.truth)
    at = given.of(address)
    with open_built(poke(given.dump, (at, bytes([peek(given.dump, at, 1) | 0x1C])))) as snapshot:
        assert set(given.truth.busy) - set(blocks(snapshot)) == {address}
        assert any("unknown kind" in gap for gap in snapshot.walk.gaps)


@EACH
def test_more_unused_bytes_than_a_unit_are_none(open_built, generation):
    given = descriptors(generation)
    address = page_range(given.truth)
    lay = segment_layout(*generation)
    place, size = lay.unused
    at = given.of(address) - given.flags + place
    with open_built(poke(given.dump, (at, word(0x1F23, size)))) as snapshot:
        assert findings(snapshot) == [("segment", given.of(address) - given.flags)]
        table = snapshot.walk.table
        (block,) = (b for b in table.blocks(np.flatnonzero(table.kind == BlockKind.PAGES)) if b.address == address)
        assert (block.size, block.trust) == (block.entry_size, "guess")


@pytest.mark.parametrize("signed", [5, 2], ids=["usual", "damage"])
def test_what_most_free_ranges_have_is_how_the_build_is(open_built, signed):
    """Free ranges with a signature, all of them or some."""
    base = BASES["x64"]
    heap = SegmentHeapBuilder(base=base, seed=1)
    heap.segment(base + 0x400000)
    places = []
    for size in (140_000, 150_000, 160_000, 170_000, 180_000):
        heap.pages(size)
        places.append(heap._segments[-1].used)
        heap.free_range(3)
    heap.pages(100_000)
    made = heap.build()
    start = made.truth.segments[0][0]
    changes = [(start + place * 32, word(0xCCDDCCDD, 4)) for place in places[:signed]]
    with open_built(poke(made.add_to(ProcessBuilder(build=19041)).build(), *changes)) as snapshot:
        found = snapshot.walk.findings
        assert [finding.address for finding in found] == ([] if signed == 5 else [at for at, _ in changes])
        assert (blocks(snapshot) == made.truth.busy) == (signed == 5)


@EACH
def test_a_unit_inside_a_range_that_claims_to_begin_a_free_one_costs_no_block(open_built, generation):
    """The range is signed, and as long as it says; the unit is not."""
    given = descriptors(generation)
    at = given.of(given.truth.subsegments[0] + 0x5000)
    changed = peek(given.dump, at, 1) & ~given.in_use | given.first
    with open_built(poke(given.dump, (at, bytes([changed])))) as snapshot:
        assert findings(snapshot) == [("segment", at - given.flags)]
        assert blocks(snapshot) == given.truth.busy and not snapshot.walk.gaps


@EACH
def test_a_range_that_says_fewer_units_than_its_units_number_costs_no_block(open_built, generation):
    """Each further unit in use names its number in the range."""
    found = descriptors(generation)
    start = found.truth.segments[0][0]
    offset = segment_layout(*generation).units
    places = [start + number * found.size for number in range(1, 256)]
    long = [
        at for at in places
        if peek(found.dump, at + found.flags, 1) & found.in_use and peek(found.dump, at + found.flags, 1) & found.first
        and peek(found.dump, at + offset, 1) > 2
    ]  # fmt: skip
    assert long
    for at in long:
        with open_built(poke(found.dump, (at + offset, b"\1"))) as snapshot:
            assert blocks(snapshot) == found.truth.busy
            assert ("segment", at) in findings(snapshot)


@EACH
def test_one_unit_size_does_not_change_what_the_flags_mean(open_built, generation):
    """Under the other meaning most ranges fit as well, and each of them has a known kind."""
    arch, build = generation
    base, layout = BASES[arch], segment_layout(arch, build)
    heap = SegmentHeapBuilder(arch=arch, build=build, base=base, seed=1)
    heap.segment(base + 0x400000)
    for _ in range(8):
        heap.chunks([40] * 500)
    damaged = heap.chunks([40] * 500, pages=64)
    heap.pages(40 * 0x1000)
    made = heap.build()
    dump, segment = made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth.segments[0][0]
    at = segment + (damaged - segment) // 0x1000 * layout.descriptor + layout.units
    with open_built(poke(dump, (at, bytes([peek(dump, at, 1) ^ 0x20])))) as snapshot:
        assert blocks(snapshot) == made.truth.busy
