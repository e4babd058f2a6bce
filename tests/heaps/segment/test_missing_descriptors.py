"""Segment heaps whose pages are partly not in the dump: what its own descriptor describes is listed."""

from __future__ import annotations

import numpy as np
import pytest

from tests.builders import ProcessBuilder, SegmentHeapBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.heaps.segment.test_random_damage import busy_blocks, is_silent
from tests.patching import without_memory

PAGE = 0x1000
NO_KEY = "no key decodes the chunks"


def described(generation: tuple[HeapArch, int], truth: SegmentTruth, cut: set[int], *, has_key: bool) -> set[int]:
    """Busy blocks whose descriptors, or headers, lie in no page that is cut; numbers of pages."""
    granule, starts = 16 if generation[0] == "x64" else 8, sorted(truth.subsegments)
    size = segment_layout(*generation).descriptor
    found = set()
    for address, (_, kind) in truth.busy.items():
        if kind == "vs" and not has_key:
            continue
        places = [address] if kind == "vs" else []
        owner = max((start for start in starts if start < address), default=address)
        for start, end in truth.segments:
            if start <= address < end:
                unit = (end - start) // 256
                own = owner if kind in ("vs", "lfh") else address
                places += [start, start + (own - start) // unit * size]
        places += [address - granule] if kind == "vs" else []
        places += [owner] if kind in ("vs", "lfh") else []
        places += [truth.address, *truth.metadata] if kind == "large" else []
        if all(place // PAGE not in cut for place in places):
            found.add(address)
    return found


@EACH
@pytest.mark.parametrize("seed", range(3))
def test_missing_pages_cost_no_block_whose_descriptors_are_in_the_dump(open_built, generation, seed):
    """A ninth of the pages is cut: the walk goes on behind them."""
    dump, _, truth = built(generation)
    random = np.random.default_rng(seed)
    pages = [page for start, size in dump.truth.ranges for page in range(start // PAGE, (start + size) // PAGE)]
    heap = [page for page in pages if any(a <= page * PAGE < b for a, b in truth.segments)]
    cut = set(random.choice(heap, len(heap) // 9, replace=False).tolist())
    with open_built(without_memory(dump, *((page * PAGE, (page + 1) * PAGE) for page in sorted(cut)))) as snapshot:
        found = busy_blocks(snapshot)
        # chunks of 14393 are coded with a key that only whole runs of them tell; that it is missing is said
        has_key = not any(NO_KEY in gap for gap in snapshot.walk.gaps)
        expected = described(generation, truth, cut, has_key=has_key)
        assert set(found) <= set(truth.busy)
        assert len(expected & set(found)) >= 0.95 * len(expected)
        assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []
        assert not is_silent(snapshot) or not set(truth.busy) - set(found)


@EACH
def test_one_page_of_descriptors_is_missing(open_built, generation):
    """Of the segments whose descriptors take two pages, the second one."""
    dump, _, truth = built(generation)
    (start, _), *_ = truth.segments
    if 256 * segment_layout(*generation).descriptor <= PAGE:
        pytest.skip("all descriptors lie in one page")
    with open_built(without_memory(dump, (start + PAGE, start + 2 * PAGE))) as snapshot:
        found, expected = busy_blocks(snapshot), described(generation, truth, {start // PAGE + 1}, has_key=True)
        assert expected <= set(found) <= set(truth.busy)
        assert any("of the page descriptors" in gap for gap in snapshot.walk.gaps)
        assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []


@EACH
def test_subsegments_without_descriptors_are_told_by_their_own_headers(open_built, generation):
    """Those in the second half of a segment, and one in the first whose own page the dump has."""
    arch, build = generation
    size, base = segment_layout(arch, build).descriptor, BASES[arch]
    heap = SegmentHeapBuilder(arch=arch, build=build, base=base, seed=3)
    start = base + 0x400000
    heap.segment(start)
    for i in range(5):
        heap.chunks([40 + i] * 300)
        for block_bytes in (64, 96, 208):
            heap.lfh_blocks(block_bytes, [block_bytes - 5] * heap.most_lfh_blocks(block_bytes, 4), pages=4)
        heap.pages(18 * PAGE - 7)
    made = heap.build()
    dump, truth = made.add_to(ProcessBuilder(arch=arch, build=build)).build(), made.truth
    cut = (start + 256 * size - PAGE, start + 256 * size)  # all of them but the first page, where they take two
    if cut[0] == start:
        cut = (start + 64 * size, start + 256 * size)
    has_commit_states = build >= 16299
    with open_built(without_memory(dump, cut)) as snapshot:
        found = busy_blocks(snapshot)
        kinds = {"vs", "lfh"} if has_commit_states else {"vs"}
        assert {address for address, (_, kind) in truth.busy.items() if kind in kinds} <= set(found)
        assert {address: size for address, (size, _) in found.items()}.items() <= {
            address: size for address, (size, _) in truth.busy.items()
        }.items()
        assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []
        assert any("told by their own headers" in gap for gap in snapshot.walk.gaps)


@EACH
@pytest.mark.parametrize("has_all_descriptors", [True, False])
def test_the_header_of_the_heap_is_missing(open_built, generation, has_all_descriptors):
    """Its segments link to it, and name it in their signatures; large blocks stand in nothing but its header."""
    dump, _, truth = built(generation)
    cuts = [(truth.address, truth.segments[0][0])] if truth.address < truth.segments[0][0] else []
    cuts = cuts or [(truth.address, truth.address + PAGE)]
    (start, _), *_ = truth.segments
    is_split = 256 * segment_layout(*generation).descriptor > PAGE
    cut = set() if has_all_descriptors or not is_split else {start // PAGE + 1}
    cuts += [(page * PAGE, (page + 1) * PAGE) for page in cut]
    with open_built(without_memory(dump, *cuts)) as snapshot:
        found = busy_blocks(snapshot)
        has_key = not any(NO_KEY in gap for gap in snapshot.walk.gaps)
        assert has_key or generation[1] < 15063
        expected = described(generation, truth, {truth.address // PAGE, *cut}, has_key=has_key)
        assert expected <= set(found) <= set(truth.busy)
        assert [finding.message for finding in snapshot.damage.findings if finding.is_error] == []
        assert any("its header is not in the dump" in note for heap in snapshot.heaps for note in heap.notes)
        assert not is_silent(snapshot)
