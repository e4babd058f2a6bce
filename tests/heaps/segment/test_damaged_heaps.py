"""Damage to segment heaps: bounded, said, and never a wrong block where the structure itself can tell."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import heapdump
from heapdump.analyses.memory.summary import summarize
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.segment import vs_walk
from tests.builders import SegmentHeapBuilder
from tests.builders.dump_truth import BuiltDump
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap import SegmentTruth
from tests.heaps.segment.plans import GENERATIONS, Plan
from tests.heaps.segment.test_walk import blocks
from tests.patching import poke, word

EACH = pytest.mark.parametrize("generation", GENERATIONS, ids=[f"{arch}-{build}" for arch, build in GENERATIONS])
CONTENTS = (("vs", 40), ("lfh", 7), ("pages", 3), ("large", 2), ("large", 3), ("large", 4), ("vs", 30))


def built(generation: tuple[HeapArch, int]) -> tuple[BuiltDump, Plan, SegmentTruth]:
    plan = Plan(*generation, padding=False, parts=CONTENTS, seed=5)
    heap = plan.heap()
    return plan.process(heap).build(), plan, heap.truth


def findings(snapshot) -> list[str]:
    return [f.kind for heap in snapshot.heaps for f in heap.findings] + [f.kind for f in snapshot.walk.findings]


@EACH
def test_a_destroyed_chunk_header_leaves_a_guess_and_hurts_no_other(open_built, generation):
    dump, _, truth = built(generation)
    busy = sorted(header for header in truth.headers if header + (16 if generation[0] == "x64" else 8) in truth.busy)
    victim = busy[len(busy) // 2]
    granule = 16 if generation[0] == "x64" else 8
    with open_built(poke(dump, (victim, b"\x41" * granule))) as snapshot:
        found, table = blocks(snapshot), snapshot.walk.table
        assert {address for address in found if found[address] != truth.busy.get(address)} <= {victim + granule}
        guesses = {b.address: b.end for b in table.blocks(np.arange(len(table))) if b.trust == "guess"}
        assert guesses.pop(victim + granule) and {*guesses.values()} <= {
            victim
        }  # the one before may have written over its end
        assert set(found) == set(truth.busy)
        assert findings(snapshot) == ["vs_chunk"] and len(snapshot.walk.gaps) == 1
        assert victim <= snapshot.walk.findings[0].address < victim + granule
        assert snapshot.walk.counts[snapshot.heaps[0].index].integrity < 1


@EACH
def test_a_damaged_subsegment_header_costs_no_block(open_built, generation):
    """The range says where the chunks end, and their headers verify each other."""
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    place = truth.subsegments[0] + (0x20 if pointer == 8 else 0x14)
    with open_built(poke(dump, (place, word(0x1234, 2)))) as snapshot:
        assert blocks(snapshot) == truth.busy and not snapshot.walk.gaps
        (finding,) = snapshot.walk.findings
        assert (finding.kind, finding.address) == ("vs_chunk", truth.subsegments[0])


@EACH
def test_a_damaged_page_descriptor_is_a_finding(open_built, generation):
    dump, _, truth = built(generation)
    size, place = (32, 0x1B if generation[1] < 16299 else 0x1F) if generation[0] == "x64" else (16, 0xF)
    base = truth.segments[0][0]
    first = (truth.subsegments[1] - base) // 0x1000
    with open_built(poke(dump, (base + first * size + place, b"\xf0"))) as snapshot:
        assert "segment" in findings(snapshot)
        found = blocks(snapshot)
        assert len(set(truth.busy) & set(found)) > 0.5 * len(truth.busy)


@EACH
def test_a_tree_of_large_blocks_that_runs_in_circles_ends(open_built, generation):
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    root = truth.metadata[len(truth.metadata) // 2]
    encoded = root if truth.address >> 20 & 1 else 0
    with open_built(poke(dump, (root, word(root ^ encoded, pointer)))) as snapshot:
        assert findings(snapshot) == ["large_metadata"]
        assert blocks(snapshot) == truth.busy


@EACH
def test_a_list_of_segments_that_runs_in_circles_ends(open_built, generation):
    dump, _, truth = built(generation)
    pointer = 8 if generation[0] == "x64" else 4
    first = truth.segments[0][0]
    with open_built(poke(dump, (first, word(first, pointer)))) as snapshot:
        assert "segment" in findings(snapshot)
        assert set(blocks(snapshot)) <= set(truth.busy)


@EACH
def test_without_its_contexts_a_heap_loses_its_large_blocks_alone(open_built, generation):
    """The segments link to the heads of the lists; nothing but the tree in the header leads to the large blocks."""
    dump, _, truth = built(generation)
    with open_built(poke(dump, (truth.address + 0x30, bytes(0x500)))) as snapshot:
        (heap,) = snapshot.heaps
        assert heap.kind is HeapKind.SEGMENT and not heap.is_fully_walked
        lost = set(truth.busy) - set(blocks(snapshot))
        assert {truth.busy[address][1] for address in lost} <= {"large"}
        assert bool(lost) == any("large blocks" in note for note in heap.notes)


@EACH
@pytest.mark.parametrize("share", [0.35, 0.6, 0.8, 0.97])
def test_a_cut_dump_has_only_true_blocks(tmp_path: Path, generation, share):
    dump, _, truth = built(generation)
    path = tmp_path / "cut.dmp"
    path.write_bytes(dump.data[: int(len(dump.data) * share)])
    with heapdump.open_dump(path, use_index=False) as snapshot:
        table = snapshot.walk.table
        rows = np.flatnonzero(table.is_busy & ~table.is_internal)
        exact = {b.address: b.size for b in table.blocks(rows) if b.trust != "guess"}
        assert all(truth.busy[address][0] == size for address, size in exact.items())
        assert len(exact) == len(truth.busy) or snapshot.walk.gaps or snapshot.gaps


@pytest.mark.hostile
@pytest.mark.property
@EACH
@given(data=st.data())
def test_any_bytes_changed_anywhere_in_it_are_survived(open_built, generation, data):
    dump, _, truth = built(generation)
    places = [
        truth.address,
        *truth.subsegments,
        *truth.metadata,
        *(start for start, _ in truth.segments),
        *truth.headers[:40],
    ]
    changes = data.draw(
        st.lists(
            st.tuples(st.sampled_from(places), st.integers(0, 0x9F), st.binary(min_size=1, max_size=8)), max_size=12
        )
    )
    fits = [
        (place + offset & ~7, new) for place, offset, new in changes if place not in truth.metadata or offset < 0x40
    ]
    with open_built(poke(dump, *fits)) as snapshot:
        summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
        assert sum(item.bytes for item in summary.reconciliation) == summary.committed_bytes


def test_a_chain_that_is_damaged_everywhere_costs_bounded_work(open_built, monkeypatch):
    monkeypatch.setattr(vs_walk, "_MOST_RESYNCS", 3)
    heap = SegmentHeapBuilder(base=0x20000000000, seed=1)
    heap.segment(0x20000400000)
    heap.chunks([40] * 900)
    truth = heap.build()
    from tests.builders import ProcessBuilder

    dump = truth.add_to(ProcessBuilder(build=19041)).build()
    broken = poke(dump, *((address, b"\xff" * 16) for address in truth.truth.headers[10::20]))
    with open_built(broken) as snapshot:
        assert len(snapshot.walk.findings) == 4
        assert any("damaged all over" in gap for gap in snapshot.walk.gaps)
        assert set(blocks(snapshot)) <= set(truth.truth.busy)
