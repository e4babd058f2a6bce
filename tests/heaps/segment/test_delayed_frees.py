"""Chunks that wait to be freed: their headers say busy, a list in the VS context says they are free."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.blocks.kind import BlockKind
from heapdump.snapshot import Snapshot
from tests.builders.dump_truth import BuiltDump
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.test_damaged_heaps import built
from tests.heaps.segment.test_walk import blocks
from tests.patching import poke, without_memory, word

PLACES = {("x64", 19041): 0x280 + 0x40, ("x64", 22000): 0x2C0 + 0x40}
"""Offset of VsContext.DelayFreeContext (docs/reference/heap-structures.md §6.1, §6.4)."""

EACH = pytest.mark.parametrize("generation", PLACES, ids=str)


def delayed(generation) -> tuple[BuiltDump, SegmentTruth, list[int]]:
    """A heap with three chunks on its list, each in another page, in the order of the list."""
    dump, _, truth = built(generation)
    chunks = sorted(address for address, (size, kind) in truth.busy.items() if kind == "vs" and size >= 16)
    chosen = [chunks[0], chunks[len(chunks) // 2], chunks[-1]]
    assert len({address >> 12 for address in chosen}) == 3
    links = [(at, word(following)) for at, following in zip(chosen, [*chosen[1:], 0], strict=True)]
    head = truth.address + PLACES[generation]
    return poke(dump, (head, word(3)), (head + 8, word(chosen[0])), *links), truth, chosen


def trusts(snapshot: Snapshot) -> set[str]:
    """Those of the busy chunks."""
    table = snapshot.walk.table
    rows = np.flatnonzero((table.kind == BlockKind.VS) & table.is_busy & ~table.is_internal)
    return {block.trust.value for block in table.blocks(rows)}


@EACH
def test_chunks_on_the_list_are_free(open_built, generation):
    dump, truth, chosen = delayed(generation)
    with open_built(dump) as snapshot:
        assert set(blocks(snapshot)) == set(truth.busy) - set(chosen)
        assert trusts(snapshot) == {"exact"} and not snapshot.walk.gaps


@EACH
def test_chunks_behind_a_missing_node_are_in_doubt(open_built, generation):
    """The third one counts as busy: nothing tells that it is the third."""
    dump, truth, chosen = delayed(generation)
    with open_built(without_memory(dump, (chosen[1], chosen[1] + 8))) as snapshot:
        assert set(blocks(snapshot)) == set(truth.busy) - set(chosen[:2])
        assert trusts(snapshot) == {"guess"}
        (gap,) = (gap for gap in snapshot.walk.gaps if "wait to be freed" in gap)
        assert "1 node of" in gap


@EACH
def test_a_list_that_contradicts_its_depth_frees_nothing(open_built, generation):
    dump, truth, chosen = delayed(generation)
    with open_built(poke(dump, (truth.address + PLACES[generation], word(2)))) as snapshot:
        assert set(blocks(snapshot)) == set(truth.busy)
        (finding,) = snapshot.walk.findings
        assert finding.address == truth.address + PLACES[generation]
        assert set(chosen) <= set(blocks(snapshot))
