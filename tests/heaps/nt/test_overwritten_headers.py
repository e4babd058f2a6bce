"""Headers of heaps and of their segments that are overwritten as a whole: the entries tell whose they are."""

from __future__ import annotations

import pytest

from heapdump.blocks.kind import HeapKind
from tests.heaps.nt.plans import REPRESENTATIVES, Generation
from tests.heaps.nt.test_holes import built_heap, busy_blocks
from tests.patching import peek, poke, without_memory

EACH = pytest.mark.parametrize("generation", REPRESENTATIVES, ids=str)
MODERN = pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if not g.is_classic], ids=str)
FILLS = pytest.mark.parametrize("fill", [b"\0", b"A"], ids=["zeros", "text"])


def behind(heap, *pages: int) -> set[int]:
    """The program's blocks whose entries do not begin in these pages."""
    return {b.user for b in heap.truth.busy if not any(page <= b.entry < page + 0x1000 for page in pages)}


@EACH
@FILLS
def test_an_overwritten_heap_header_costs_no_block_behind_it(open_built, generation: Generation, fill: bytes):
    """In its own segment; before Vista later segments name the heap, later their headers do."""
    heap, built = built_heap(generation)
    first = heap.truth.address
    with open_built(poke(built, (first, fill * 0x1000))) as snapshot:
        (found,) = snapshot.heaps
        assert (found.kind, found.is_fully_walked) == (HeapKind.NT, False)
        assert any("overwritten" in finding.message for finding in found.findings)
        blocks = {block.address for block in busy_blocks(snapshot)}
        assert behind(heap, first) <= blocks <= {block.user for block in heap.truth.busy}


@MODERN
@FILLS
def test_segments_that_nothing_names_are_told_by_the_key(open_built, generation: Generation, fill: bytes):
    heap, built = built_heap(generation)
    pages = [start for start, _ in heap.truth.segments]
    with open_built(poke(built, *((page, fill * 0x1000) for page in pages))) as snapshot:
        assert len(snapshot.heaps[0].segments) == 2 and not snapshot.heaps[0].is_fully_walked
        blocks = {block.address for block in busy_blocks(snapshot)}
        assert behind(heap, *pages) <= blocks <= {block.user for block in heap.truth.busy}


@EACH
@FILLS
def test_an_overwritten_segment_header_costs_no_block_behind_it(open_built, generation: Generation, fill: bytes):
    heap, built = built_heap(generation)
    second = heap.truth.segments[1][0]
    with open_built(poke(built, (second, fill * 0x1000))) as snapshot:
        assert any(explained.finding.is_error for explained in snapshot.explained_findings)
        assert not snapshot.heaps[0].is_fully_walked
        blocks = {block.address for block in busy_blocks(snapshot)}
        assert behind(heap, second) <= blocks <= {block.user for block in heap.truth.busy}


@EACH
def test_a_heap_that_no_list_names_is_told_by_its_entries(open_built, generation: Generation):
    """The array of heaps is not in the dump, and neither is the first page of a heap."""
    heap, built = built_heap(generation)
    with open_built(built) as snapshot:
        (view,) = snapshot.process.views
        array = peek(built, (view.peb or 0) + (0xF0 if view.pointer_bytes == 8 else 0x90), view.pointer_bytes)
    first = heap.truth.address
    process_heap = ((view.peb or 0) + (0x30 if view.pointer_bytes == 8 else 0x18), bytes(view.pointer_bytes))
    cut = without_memory(poke(built, process_heap), (array, array + 0x100), (first, first + 0x1000))
    with open_built(cut) as snapshot:
        assert not snapshot.process.views[0].heap_list_complete
        assert [one.address for one in snapshot.heaps if one.kind == HeapKind.NT] == [first]
        blocks = {block.address for block in busy_blocks(snapshot)}
        assert behind(heap, first) <= blocks <= {block.user for block in heap.truth.busy}
    with open_built(without_memory(poke(built, process_heap), (array, array + 0x100), *heap_pages(heap))) as snapshot:
        assert all(one.kind != HeapKind.NT and one.address != first for one in snapshot.heaps)


def heap_pages(heap) -> list[tuple[int, int]]:
    """Nothing of the heap is in the dump."""
    return [(start, start + len(memory)) for start, memory in heap.memory]


@pytest.mark.parametrize("generation", [g for g in REPRESENTATIVES if g.is_classic], ids=str)
def test_before_vista_segments_that_nothing_names_are_missing_and_it_is_said(open_built, generation: Generation):
    heap, built = built_heap(generation)
    first, second = (start for start, _ in heap.truth.segments)
    with open_built(without_memory(built, (first, first + 0x1000), (second, second + 0x1000))) as snapshot:
        assert any("further segments may be missing" in note for note in snapshot.heaps[0].notes)
