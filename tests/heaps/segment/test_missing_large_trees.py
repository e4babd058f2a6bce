"""The dump lacks the tree of the large blocks, or its nodes: what is left tells them, or how much is not listed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.large_search import all_places
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.plans import BASES
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.heaps.segment.test_walk import blocks
from tests.patching import poke, without_memory, word

PAGE = 0x1000


def large_trusts(snapshot) -> dict[int, str]:
    table = snapshot.walk.table
    return {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.kind == BlockKind.LARGE))}


def without_header(dump: BuiltDump, truth: SegmentTruth) -> bytes:
    return without_memory(dump, (truth.address, truth.address + PAGE))


@EACH
def test_nodes_that_name_each_other_tell_the_large_blocks_of_a_heap_without_header(open_built, generation):
    dump, _, truth = built(generation)
    with open_built(without_header(dump, truth)) as snapshot:
        (heap,) = snapshot.heaps
        assert blocks(snapshot) == truth.busy and set(large_trusts(snapshot).values()) == {"derived"}
        assert not snapshot.damage.findings and not heap.is_fully_walked
        total = sum(block.commit_bytes for block in heap.large_blocks or ())
        assert [note for note in heap.notes if f"{len(truth.large)} with {total:,} bytes are told" in note]


def test_small_regions_behind_one_that_is_too_large_are_searched(open_built):
    small, large, behind = 0x100000000, 0x110000000, 0x140000000
    process = ProcessBuilder(build=19041).region(small, PAGE).region(large, 300 << 20).region(behind, PAGE)
    with open_built(process) as snapshot:
        discovery = cast("SegmentDiscovery", SimpleNamespace(process=snapshot.process))
        found = {span.start for span in all_places(discovery)}
    assert {small, behind} <= found
    assert large not in found


@EACH
def test_what_the_dump_lacks_is_not_compared_with_a_counter(open_built, generation):
    """The counter of segments lies in the header that is missing."""
    dump, _, truth = built(generation)
    with open_built(without_header(dump, truth)) as snapshot:
        assert snapshot.heaps[0].counters.segments is None
        assert not any("Windows counted" in gap for gap in snapshot.walk.gaps)


@EACH
def test_the_bytes_of_large_blocks_whose_nodes_are_missing_are_said(open_built, generation):
    dump, _, truth = built(generation)
    page = truth.metadata[0] & -PAGE
    total = sum(-(-truth.busy[address][0] // PAGE) * PAGE for address in truth.large)
    with open_built(without_memory(dump, (page, page + PAGE))) as snapshot:
        (heap,) = snapshot.heaps
        assert [note for note in heap.notes if f"{total:,} bytes of large blocks" in note] and not heap.is_fully_walked
        assert snapshot.walk.counts[heap.index].integrity == 1.0


@EACH
@pytest.mark.parametrize("what", ["parent", "child", "place"])
def test_a_node_that_nobody_names_is_none(open_built, generation, what):
    """A record of a program may look like a node: the links do not agree then."""
    dump, _, truth = built(generation)
    pointer = segment_layout(*generation).pointer
    last = truth.metadata[-1]
    change = {
        "parent": (last + 2 * pointer, word(truth.metadata[0], pointer)), "child": (last, word(last + 8, pointer)),
        "place": (last + 3 * pointer, word(truth.large[-1] + 0x10000, pointer)),
    }[what]  # fmt: skip
    with open_built(without_header(poke(dump, change), truth)) as snapshot:
        found = blocks(snapshot)
        assert found.items() <= truth.busy.items() and truth.large[-1] not in found


@EACH
def test_a_record_of_a_program_is_not_taken_for_the_root(open_built, generation):
    """It holds the place and the size of memory of its own, behind words of zeros; alone it would be a guess."""
    dump, plan, truth = built(generation)
    pointer, other = segment_layout(*generation).pointer, truth.large[-1] + 0x400000
    process = plan.process(plan.heap()).region(other, 4 * PAGE)
    dump = process.memory(other, bytes(3 * pointer) + word(other, pointer) + word(4 * PAGE, pointer)).build()
    with open_built(without_header(dump, truth)) as snapshot:
        assert blocks(snapshot) == truth.busy and set(large_trusts(snapshot).values()) == {"derived"}
    node = min(truth.metadata) & -PAGE
    with open_built(without_memory(dump, (truth.address, truth.address + PAGE), (node, node + PAGE))) as snapshot:
        assert large_trusts(snapshot) == {other: "guess"}


def test_of_two_heaps_without_header_none_gets_the_blocks(open_built):
    """No node names its heap."""
    generation: tuple[HeapArch, int] = ("x64", 19041)
    _, plan, truth = built(generation)
    process, other = plan.process(plan.heap()), BASES["x64"] + 0x40000000
    heap = NtHeapBuilder(arch="x64", build=19041, base=other, reserve=0x40000, flags=2, seed=1)
    for i in range(60):
        heap.busy(40 + i)
    made = process.heap(heap.build()).build()
    cuts = (truth.address, truth.address + PAGE), (other, other + PAGE)
    with open_built(without_memory(made, *cuts)) as snapshot:
        assert not large_trusts(snapshot)
        assert any("its large blocks are not known" in note for heap in snapshot.heaps for note in heap.notes)
    with open_built(without_memory(made, cuts[0])) as snapshot:
        assert set(large_trusts(snapshot)) == set(truth.large)
