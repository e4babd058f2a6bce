"""Stack numbers read by one sweep over a heap are those that are read block by block."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.heaps.nt import traces as nt_traces
from tests.heaps.nt.plans import Generation, heap_of, process_of
from tests.patching import without_memory

ACTIONS = st.lists(
    st.tuples(st.sampled_from(["traced", "plain", "free", "uncommitted", "virtual"]), st.integers(1, 4000)), max_size=30
)


@pytest.mark.property
@pytest.mark.parametrize(
    "generation", [Generation("x64", 19041), Generation("x86", 19041), Generation("x64", 7601)], ids=str
)
@given(actions=ACTIONS, hole=st.integers(0, 12))
def test_a_sweep_reads_what_single_reads_do(open_built, monkeypatch, generation, actions, hole):
    heap = heap_of(generation, [("busy", 1)], flags=0x08001002)
    traces, node = [], 0x5000010
    for what, value in actions:
        if what in ("traced", "plain"):
            node += 0x40
            traces.append(node if what == "traced" else 0)
            heap.busy(value, trace=node if what == "traced" else 0)
        elif what == "free":
            heap.free(2 + value % 200)
        elif what == "uncommitted":
            heap.busy(8)
            heap.uncommitted((1 + value % 3) * 0x1000)
    built = process_of(generation, heap.build()).build()
    start = generation.base + 0x1000 * hole
    with open_built(without_memory(built, (start, start + 0x1000)) if hole else built) as snapshot:
        table, rows = snapshot.walk.table, np.arange(len(snapshot.walk.table))
        one_by_one = nt_traces.nt_traces(snapshot.process.views[0], snapshot.heaps[0], table)(rows)
        monkeypatch.setattr(nt_traces, "WORTH_COMPILING", 0)
        swept = nt_traces.nt_traces(snapshot.process.views[0], snapshot.heaps[0], table)(rows)
        monkeypatch.undo()
        assert swept.tolist() == one_by_one.tolist()
        if not hole:
            assert sorted(swept[swept > 0].tolist()) == sorted(trace for trace in traces if trace)
