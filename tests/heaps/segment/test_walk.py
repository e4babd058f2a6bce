"""The walk of segment heaps: random heaps of every generation equal the builder's truth, kernels compiled or not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.analyses.memory.summary import summarize
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.snapshot import Snapshot
from heapdump.trust import Trust
from tests.heaps.segment.plans import GENERATIONS, Plan, plans

EACH = pytest.mark.parametrize("generation", GENERATIONS, ids=[f"{arch}-{build}" for arch, build in GENERATIONS])
NAMES = {BlockKind.VS: "vs", BlockKind.LFH: "lfh", BlockKind.PAGES: "pages", BlockKind.LARGE: "large"}


def blocks(snapshot: Snapshot) -> dict[int, tuple[int, str]]:
    """User address → (requested bytes, kind) of the program's busy blocks."""
    table = snapshot.walk.table
    rows = np.flatnonzero(table.is_busy & ~table.is_internal)
    return {block.address: (block.size, NAMES[block.kind]) for block in table.blocks(rows)}


def assert_as_built(snapshot: Snapshot, built) -> None:
    truth, walk = built.truth, snapshot.walk
    (heap,) = snapshot.heaps
    count = walk.counts[heap.index]
    assert (heap.kind, heap.address, heap.is_fully_walked, heap.findings) == (HeapKind.SEGMENT, truth.address, True, ())
    assert (heap.reserved_bytes, heap.committed_bytes) == (truth.reserved_bytes, truth.committed_bytes)
    assert {(segment.span.start, segment.span.end) for segment in heap.segments} == set(truth.segments)
    assert walk.findings == ()
    assert blocks(snapshot) == truth.busy
    free = {NAMES[kind.kind]: kind.free_blocks for kind in count.kinds if kind.kind in (BlockKind.VS, BlockKind.LFH)}
    assert {kind: number for kind, number in free.items() if number} == {k: n for k, n in truth.free.items() if n}
    assert count.integrity == 1.0 and all(check.holds for check in count.checks)
    assert tuple(b.metadata for b in heap.large_blocks or ()) == truth.metadata


@pytest.mark.property
@EACH
@given(data=st.data())
def test_any_heap_is_found_as_it_was_built(open_built, generation, data):
    plan = data.draw(plans(generation))
    built = plan.heap()
    with open_built(plan.process(built).build()) as snapshot:
        assert_as_built(snapshot, built)
        summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
        assert sum(item.bytes for item in summary.reconciliation) == summary.committed_bytes
        assert "heap segments: not walked" not in {item.item.words for item in summary.reconciliation}


@EACH
def test_compiled_kernels_say_the_same(open_built, generation, monkeypatch):
    arch, build = generation
    plan = Plan(arch, build, padding=False, parts=(("vs", 40), ("lfh", 7), ("pages", 3), ("large", 2)), seed=11)
    built = plan.heap()
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    with open_built(plan.process(built).build()) as snapshot:
        assert_as_built(snapshot, built)


@EACH
def test_a_neighbouring_build_number_does_not_matter(open_built, generation):
    """The layout is chosen on the heap itself, whatever the version says."""
    arch, build = generation
    plan = Plan(arch, build, False, (("vs", 9), ("large", 1)), 3)
    built = plan.heap()
    other = {14393: 17763, 16299: 17134, 19041: 22621, 22000: 19041, 26100: 22000}[build]
    process = built.add_to(type(plan.process(built))(arch=arch, build=other))
    with open_built(process.build()) as snapshot:
        assert_as_built(snapshot, built)
        assert snapshot.heaps[0].trust is Trust.DERIVED
