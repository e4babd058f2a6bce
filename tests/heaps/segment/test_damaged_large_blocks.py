"""Damage to the tree of large blocks of a segment heap: what is there is listed, what is not there is said."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.kind import BlockKind
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


@EACH
def test_blocks_that_no_node_names_any_more_are_missed(open_built, generation):
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    root = truth.metadata[len(truth.metadata) // 2]
    with open_built(poke(dump, (root, bytes(pointer)))) as snapshot:
        (finding,) = snapshot.damage.findings
        assert finding.kind == "large_metadata" and "committed pages" in finding.message
        assert any("committed bytes of large blocks" in gap for gap in snapshot.walk.gaps)
        assert (snapshot.walk.counts[0].integrity or 0) < 1


@EACH
def test_a_node_with_a_wrong_address_hides_its_own_block_alone(open_built, generation):
    dump, _, truth = built(generation)
    if truth.address >> 20 & 1:
        return  # what an encoded tree's parents look like was not recorded
    root = truth.metadata[len(truth.metadata) // 2]
    at = root + (24 if generation[0] == "x64" else 12)
    with open_built(poke(dump, (at + 2, b"\xf1\xf2"))) as snapshot:
        (finding,) = snapshot.heaps[0].findings
        assert (finding.kind, finding.address) == ("large_metadata", at)
        assert len(set(truth.busy) - set(blocks(snapshot))) == 1 and not snapshot.heaps[0].is_fully_walked


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
