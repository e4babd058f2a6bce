"""Bytes that the dump lacks are no evidence: left-over headers behind a hole, links into it, padding that it hides."""

from __future__ import annotations

import pytest

from heapdump.snapshot import Snapshot
from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH
from tests.heaps.segment.test_random_damage import busy_blocks
from tests.patching import peek, poke, without_memory, word

PAGE = 0x1000
Generation = tuple[HeapArch, int]
FIRST, TAIL = [300] * 30, [700, -40, 60] * 4
SMALL = [-6, 30, -7, 50, -8, 70, -9, 40, -5] * 6


def heap_of(generation: Generation, *subsegments: list[int], segments: int = 1) -> tuple[BuiltDump, SegmentTruth]:
    """A heap with these VS subsegments in each of its segments; the same keys each time."""
    arch, build = generation
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=9)
    for number in range(segments):
        heap.segment(BASES[arch] + 0x400000 + number * 0x100000)
        for sizes in subsegments:
            heap.chunks(sizes)
    made = heap.build()
    return made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth


def granules(sizes: list[int], granule: int) -> int:
    """Granules of these chunks."""
    return sum(-size if size < 0 else max(2, -(-size // granule) + 1) for size in sizes)


def errors_of(snapshot: Snapshot) -> list[str]:
    return [finding.message for finding in snapshot.damage.findings if finding.is_error]


@EACH
@pytest.mark.parametrize("ends_with", ["a living header", "the subsegment"])
def test_left_over_headers_behind_a_hole_are_no_chunks(open_built, generation, ends_with):
    """Free chunks were joined; the header of the joined one is not in the dump, those inside still hold."""
    granule, filler = 16 if generation[0] == "x64" else 8, [100, 120, -4, 90, 200, -5, 70] * 6
    large = 2 * PAGE // granule
    joined, tail = large + granules(SMALL, granule), TAIL
    if ends_with == "the subsegment":
        joined, tail = joined + 50, []
    old, was = heap_of(generation, filler, [*FIRST, -large, *SMALL, *tail])
    new, now = heap_of(generation, filler, [*FIRST, -joined, *TAIL])
    start = now.headers[len(filler) + 1 + len(FIRST)]
    hole, pointer, inside = start & -PAGE, granule // 2, range(start + 4 * granule, start + joined * granule)
    body = peek(old, inside.start, len(inside)).to_bytes(len(inside), "little")
    # what was taken out of the tree, or joined, is linked by nothing
    root = now.headers[1] + pointer
    nodes = [at for at in was.headers if at in inside and at + granule not in was.busy]
    dump = poke(new, (inside.start, body), *((at + 3 * pointer, word(root, pointer)) for at in nodes))
    with open_built(dump) as snapshot:
        assert errors_of(snapshot) == [] and set(busy_blocks(snapshot)) == set(now.busy)
    with open_built(without_memory(dump, (hole, hole + PAGE))) as snapshot:
        found = busy_blocks(snapshot)
        assert errors_of(snapshot) == []
        assert {a for a in now.busy if not hole <= a - granule < hole + PAGE} <= set(found) <= set(now.busy)


@EACH
@pytest.mark.parametrize("missing", range(2))
def test_a_link_to_a_node_in_a_missing_segment_is_no_damage(open_built, generation, missing):
    """The parent of one free chunk, or the only child of the root, lies in a segment that nothing describes any more."""
    dump, truth = heap_of(generation, [100, 120, 90, 200, 70, 60] * 9, segments=2)
    start, end = truth.segments[missing]
    with open_built(without_memory(dump, (start, end))) as snapshot:
        assert errors_of(snapshot) == []
        assert {a for a in truth.busy if not start <= a < end} == set(busy_blocks(snapshot))


@EACH
def test_a_link_to_where_no_memory_is_stays_damage(open_built, generation):
    dump, truth = heap_of(generation, [100, 120, -9, 200, 70, 60] * 9)
    pointer = 8 if generation[0] == "x64" else 4
    free = truth.headers[2]
    with open_built(poke(dump, (free + 3 * pointer, word(BASES[generation[0]] + 0x5000000, pointer)))) as snapshot:
        assert [message for message in errors_of(snapshot) if "tree of free chunks" in message]


@pytest.mark.parametrize("generation", [("x64", 19041), ("x86", 19041)])
def test_the_address_of_a_block_whose_padding_header_is_missing_is_a_guess(open_built, generation):
    arch, build = generation
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=9, padding=True)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([100, 120, -9, 200, 70, 60] * 9)
    sure, hidden = heap.pages(70_000), heap.pages(80_000)
    large = heap.large(BASES[arch] + 0x8000000, 700_000)
    dump = heap.build().add_to(ProcessBuilder(arch=arch, build=build)).build()
    cuts = [(at & -PAGE, (at & -PAGE) + PAGE) for at in (hidden, large)]
    with open_built(without_memory(dump, *cuts)) as snapshot:
        trusts = {at & -PAGE: trust for at, (_, trust) in busy_blocks(snapshot).items()}
        assert (trusts[sure & -PAGE], trusts[hidden & -PAGE], trusts[large & -PAGE]) == ("exact", "guess", "guess")
        assert [gap for gap in snapshot.walk.gaps if "padding header" in gap and f"{hidden & -PAGE:#x}" in gap]


def test_a_few_blocks_do_not_prove_that_there_is_no_padding(open_built):
    """14393 leaves the padding as it was; the words in front of the user data are the program's own or left over."""
    dumps = {}
    for count in (5, 60):
        heap = SegmentHeapBuilder(build=14393, base=BASES["x64"], seed=9, padding=True)
        heap.segment(BASES["x64"] + 0x400000)
        heap.chunks([100, 120, 90, 70, 60][:count] if count < 6 else [100, 120, 90, 70, 60] * 12)
        made = heap.build()
        dumps[count] = made.add_to(ProcessBuilder(build=14393)).build()
    for count, trust in ((5, {"derived"}), (60, {"exact"})):
        with open_built(dumps[count]) as snapshot:
            assert {found for _, found in busy_blocks(snapshot).values()} == trust
