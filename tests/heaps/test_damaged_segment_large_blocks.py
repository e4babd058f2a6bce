"""Damage to the tree of large blocks of a segment heap: what is there is listed, what is not there is said."""

from __future__ import annotations

from tests.heaps.test_damaged_segment_heaps import EACH, built
from tests.heaps.test_segment_heaps import blocks
from tests.patching import without_memory


@EACH
def test_nodes_that_are_not_in_the_dump_are_no_damage(open_built, generation):
    dump, _, truth = built(generation)
    page = truth.metadata[0] & ~0xFFF
    with open_built(without_memory(dump, (page, page + 0x1000))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.findings == () and not heap.is_fully_walked
        assert any("not in the dump" in note for note in heap.notes)
        assert set(truth.busy) - set(blocks(snapshot)) == {a for a, (_, kind) in truth.busy.items() if kind == "large"}
