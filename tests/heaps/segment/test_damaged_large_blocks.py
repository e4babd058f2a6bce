"""Damage to the tree of large blocks of a segment heap: what is there is listed, what is not there is said."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from tests.builders.segment_heap_layout import segment_layout
from tests.heaps.segment.test_damaged_heaps import EACH, built
from tests.heaps.segment.test_walk import blocks
from tests.patching import poke, without_memory, word


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
def test_a_large_block_inside_another_one_is_left_out(open_built, generation):
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    at = truth.metadata[1] + 3 * pointer
    inside = sorted(truth.large)[2] + 0x20000
    with open_built(poke(dump, (at, word(inside, pointer)), (at + pointer, word(0x50000, pointer)))) as snapshot:
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address) == ("large_metadata", at)
        assert len(set(truth.busy) - set(blocks(snapshot))) == 1 and set(blocks(snapshot)) <= set(truth.busy)


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
