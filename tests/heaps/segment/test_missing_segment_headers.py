"""Segments whose first pages the dump lacks are told by what lies in them: their subsegments name the heap."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH
from tests.heaps.segment.test_holes import errors_of
from tests.heaps.segment.test_random_damage import busy_blocks, is_silent
from tests.heaps.segment.test_walk import blocks
from tests.patching import poke, without_memory, word

PAGE = 0x1000


def three_segments(generation, *, padding: bool = False) -> tuple[BuiltDump, SegmentTruth]:
    """A heap with subsegments of both kinds, and a block of whole pages, in each of three segments."""
    arch, build = generation
    granule = 16 if arch == "x64" else 8
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=3, padding=padding)
    for number in range(3):
        heap.segment(BASES[arch] + 0x400000 + number * 0x100000)
        heap.chunks([100, 120, -9, 200, 70, 60] * 20)
        for block in (64, 96, 208):
            heap.lfh_blocks(block, [block - 3 - granule * padding] * heap.most_lfh_blocks(block, 2), pages=2)
        heap.pages(5000)
        heap.chunks([90, 130, -8, 60, 210, 70] * 20)
    heap.large(BASES[arch] + 0x8000000, 700_000)
    made = heap.build()
    return made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth


@EACH
@pytest.mark.parametrize("numbers", [(0,), (2,), (0, 1), (0, 1, 2)], ids=str)
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("pages", [2, 3])
def test_segments_without_their_first_pages_lose_blocks_of_whole_pages_alone(
    open_built, generation, numbers, padding, pages
):
    """The third page, on x86 the second, is that of a VS subsegment's header: its chunks name where it begins."""
    if padding and generation[1] not in (16299, 19041):
        pytest.skip("this build has no padding, or does not write its size")
    dump, truth = three_segments(generation, padding=padding)
    cuts = [(truth.segments[i][0], truth.segments[i][0] + pages * PAGE) for i in numbers]
    granule = 16 if generation[0] == "x64" else 8
    with open_built(without_memory(dump, *cuts)) as snapshot:
        found = blocks(snapshot)
        assert errors_of(snapshot) == [] and not is_silent(snapshot)
        assert found.items() <= truth.busy.items()
        whole = {at for at in truth.busy if not any(low <= at - (1 + padding) * granule < high for low, high in cuts)}
        assert {truth.busy[address][1] for address in whole if address not in found} <= {"pages"}


@EACH
def test_a_large_block_with_pointers_into_the_heap_is_no_segment(open_built, generation):
    """Its first page is missing; others hold pointers to blocks, and two to pages."""
    dump, truth = three_segments(generation)
    start, pointer = truth.large[0], 8 if generation[0] == "x64" else 4
    some = sorted(truth.busy)[:8]
    texts = [
        (start + page * PAGE, b"".join(word(value, pointer) for value in (some[page], some[page + 1], truth.address)))
        for page in range(1, 6)
    ]
    with open_built(without_memory(poke(dump, *texts), (start, start + PAGE))) as snapshot:
        (heap,) = snapshot.heaps
        assert [segment.address for segment in heap.segments] == [start for start, _ in truth.segments]
        assert set(busy_blocks(snapshot)) == set(truth.busy)


@EACH
def test_a_subsegment_that_was_given_back_has_no_blocks(open_built, generation):
    """Its descriptors are missing, its header and the header of its only, free chunk are left in memory."""
    arch, build = generation
    made = []
    for sizes in ([100, 120, -9, 200, 70, 60] * 5, []):
        heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=3)
        heap.segment(BASES[arch] + 0x400000)
        heap.chunks([100, 120, -9, 200, 70, 60] * 9)
        heap.chunks(sizes)
        heap.chunks([100, 120, -9, 200, 70, 60] * 9)
        made.append(heap.build())
    truth, pointer = made[1].truth, 8 if arch == "x64" else 4
    dump = made[1].add_to(ProcessBuilder(arch=arch, build=build)).build()
    (free,) = [at for at in truth.headers if truth.subsegments[1] < at < truth.subsegments[2]]
    cut = poke(dump, (free + 3 * pointer, word(truth.headers[2] + pointer, pointer)))
    start = truth.segments[0][0]
    with open_built(without_memory(cut, (start, start + (2 if arch == "x64" else 1) * PAGE))) as snapshot:
        table = snapshot.walk.table
        assert not np.isin(np.uint64(free), table.entry)
        assert set(busy_blocks(snapshot)) == set(truth.busy) and errors_of(snapshot) == []


@EACH
def test_a_heap_that_only_its_segments_name_is_found(open_built, generation):
    """Its header is not in the dump, and it is on no heap list, which the dump lacks, too."""
    arch, build = generation
    heap = SegmentHeapBuilder(arch=arch, build=build, base=BASES[arch], seed=3)
    heap.segment(BASES[arch] + 0x400000)
    heap.chunks([100, 120, -9, 200, 70, 60] * 20)
    made = heap.build()
    process, truth = made.add_to(ProcessBuilder(arch=arch, build=build)), made.truth
    peb, own = process.plan.peb & -PAGE, truth.address
    with open_built(without_memory(process.build(), (own, own + PAGE), (peb, peb + PAGE))) as snapshot:
        assert [heap.address for heap in snapshot.heaps] == [truth.address]
        assert blocks(snapshot) == truth.busy
        assert errors_of(snapshot) == [] and not is_silent(snapshot)
