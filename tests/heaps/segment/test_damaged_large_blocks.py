"""Damage to the tree of large blocks of a segment heap: what is there is listed, what is not there is said."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.heaps.segment.test_walk import blocks
from tests.patching import peek, poke, without_memory, without_stream, word


@EACH
def test_nodes_that_are_not_in_the_dump_are_no_damage(open_built, generation):
    dump, _, truth = built(generation)
    page = truth.metadata[0] & ~0xFFF
    with open_built(without_memory(dump, (page, page + 0x1000))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.findings == () and not heap.is_fully_walked
        assert any("not in the dump" in note for note in heap.notes)
        assert set(truth.busy) - set(blocks(snapshot)) == {a for a, (_, kind) in truth.busy.items() if kind == "large"}


@EACH
def test_more_unused_bytes_than_a_page_are_none(open_built, generation):
    dump, _, truth = built(generation)
    at = truth.metadata[1] + (24 if generation[0] == "x64" else 12)
    with open_built(poke(dump, (at + 1, b"\x7f"))) as snapshot:
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address, finding.length) == ("large_metadata", at, 2)
        table = snapshot.walk.table
        trusts = {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.kind == BlockKind.LARGE))}
        assert [trust for _, trust in sorted(trusts.items())] == ["exact", "guess", *["exact"] * (len(trusts) - 2)]


def large_trusts(snapshot) -> dict[int, str]:
    table = snapshot.walk.table
    return {b.address: b.trust.value for b in table.blocks(np.flatnonzero(table.kind == BlockKind.LARGE))}


@EACH
@pytest.mark.parametrize("place", ["left link", "root", "root and least", "all links"])
def test_blocks_that_no_node_names_any_more_are_found(open_built, generation, place):
    """Their nodes name memory as long as they say, and Windows counts them."""
    dump, _, truth = built(generation)
    pointer, tree = 8 if generation[0] == "x64" else 4, truth.address + segment_layout(*generation).tree
    root = truth.metadata[len(truth.metadata) // 2]
    changes = {
        "left link": [(root, bytes(pointer))], "root": [(tree, bytes(pointer))],
        "root and least": [(tree, bytes(2 * pointer))], "all links": [(node, b"A" * pointer) for node in truth.metadata],
    }[place]  # fmt: skip
    with open_built(poke(dump, *changes)) as snapshot:
        assert blocks(snapshot) == truth.busy and snapshot.heaps[0].is_fully_walked
        assert {finding.kind for finding in snapshot.damage.findings} == {"large_metadata"}
        assert not snapshot.walk.gaps and "derived" in large_trusts(snapshot).values()


@EACH
def test_a_tree_in_work_is_not_searched(open_built, generation):
    """A thread holds its lock: a node may be on its way into the tree, or out of it."""
    dump, _, truth = built(generation)
    layout, pointer = segment_layout(*generation), 8 if generation[0] == "x64" else 4
    root = truth.metadata[len(truth.metadata) // 2]
    lock = truth.address + layout.tree - pointer * (2 if generation == ("x64", 16299) else 1)
    with open_built(poke(dump, (root, bytes(pointer)), (lock, b"\1"))) as snapshot:
        if set(blocks(snapshot)) == set(truth.busy):
            pytest.skip("this build has its lock elsewhere")
        assert all("does not lead" not in finding.message for finding in snapshot.damage.findings)


@EACH
@pytest.mark.parametrize("what", ["address", "node"])
def test_a_destroyed_node_leaves_its_block_as_a_guess(open_built, generation, what):
    """The memory map has one allocation of the size that is missing from Windows' count."""
    dump, _, truth = built(generation)
    pointer, root = 8 if generation[0] == "x64" else 4, truth.metadata[len(truth.metadata) // 2]
    at = root + 3 * pointer
    change = (at + 2, b"\xf1\xf2") if what == "address" else (root, b"A" * 5 * pointer)
    with open_built(poke(dump, change)) as snapshot:
        assert "large_metadata" in {finding.kind for finding in snapshot.heaps[0].findings}
        assert set(blocks(snapshot)) == set(truth.busy) and snapshot.heaps[0].is_fully_walked
        guesses = [address for address, trust in large_trusts(snapshot).items() if trust == "guess"]
        assert guesses == [sorted(truth.large)[len(truth.large) // 2]]
        assert any("its size is a guess" in note for note in snapshot.heaps[0].notes)


@EACH
def test_a_node_that_names_memory_inside_another_block_costs_none(open_built, generation):
    """Neither its place nor its size is right; one allocation that Windows counts is left for it."""
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    at = truth.metadata[1] + 3 * pointer
    inside = sorted(truth.large)[2] + 0x20000
    with open_built(poke(dump, (at, word(inside, pointer)), (at + pointer, word(0x50000, pointer)))) as snapshot:
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address) == ("large_metadata", at)
        assert set(blocks(snapshot)) == set(truth.busy)
        assert sorted(large_trusts(snapshot).values()) == [*["exact"] * (len(truth.large) - 1), "guess"]


@EACH
@pytest.mark.parametrize("place", ["block before", "block behind", "segment"])
def test_a_node_that_names_the_place_of_something_else_costs_no_block(open_built, generation, place):
    """The tree is sorted, and every allocation fills committed memory of its own: both tell which node is wrong."""
    dump, _, truth = built(generation)
    pointer, places = 8 if generation[0] == "x64" else 4, sorted(truth.large)
    node, own = truth.metadata[1], places[1]
    other = {"block before": places[0], "block behind": places[2], "segment": truth.segments[0][0]}[place]
    unused = peek(dump, node + 3 * pointer, 2)
    with open_built(poke(dump, (node + 3 * pointer, word(other & ~0xFFFF | unused, pointer)))) as snapshot:
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address) == ("large_metadata", node + 3 * pointer)
        assert blocks(snapshot) == truth.busy and not snapshot.walk.gaps
        assert [address for address, trust in large_trusts(snapshot).items() if trust != "exact"] == [own]


def test_without_a_memory_map_both_nodes_of_a_place_are_in_doubt(open_built):
    """Nothing tells whose place it is."""
    generation: tuple[HeapArch, int] = ("x64", 19041)
    dump, _, truth = built(generation)
    places = sorted(truth.large)
    size = peek(dump, truth.metadata[2] + 32, 8)
    changes = [(truth.metadata[1] + 24, word(places[2] & ~0xFFFF, 8)), (truth.metadata[1] + 32, word(size, 8))]
    with open_built(without_stream(poke(dump, *changes), 16)) as snapshot:
        trusts = large_trusts(snapshot)
        assert places[1] not in trusts and trusts[places[2]] == "guess"
        assert any("names no large block" in note for note in snapshot.heaps[0].notes)


def test_nodes_with_the_alignment_of_a_guard_page_are_found_without_links(open_built):
    """19041 x86 (recorded): bits 1 to 7 of AllocatedPages are not 0."""
    dump, _, truth = built(("x86", 19041))
    changes = [(node + 16, bytes([peek(dump, node + 16, 1) | 0x52])) for node in truth.metadata]
    root = truth.metadata[len(truth.metadata) // 2]
    with open_built(poke(dump, *changes, (root, bytes(4)))) as snapshot:
        assert blocks(snapshot) == truth.busy and snapshot.heaps[0].is_fully_walked


@EACH
def test_a_node_that_is_half_in_the_dump_is_said_and_no_damage(open_built, generation):
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    root = truth.metadata[len(truth.metadata) // 2]
    page = root & ~0xFFF
    with open_built(without_memory(dump, (root + 3 * pointer, page + 0x1000))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.findings == () and not heap.is_fully_walked
        assert any(f"{root:#x}" in note and "not in the dump" in note for note in heap.notes)
