"""Native blocks that managed objects hold: roots, paths, leaks."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from heapdump.analyses.graph.roots import RootKind
from heapdump.analyses.graph.unreachable import Reach
from heapdump.cli import cli
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.runtimes.dotnet.plans import plan


@pytest.fixture
def held() -> tuple[ProcessBuilder, int, int]:
    """(a process, a block that an Order holds in `_handle`, a block that only free space of the managed heap names)."""
    heap = NtHeapBuilder(base=0x20000000000)
    first, lost = heap.busy(100), heap.busy(200)
    made = plan("8")
    made.clr.object("gen2", made.types["Acme.Orders.Order"], None, first.to_bytes(8, "little"))
    made.clr.object("gen2", made.clr.free, 40, bytes(4) + lost.to_bytes(8, "little"))
    return made.clr.add_to(ProcessBuilder().heap(heap.build())), first, lost


def test_a_managed_object_is_a_strong_root(held, open_built):
    process, first, lost = held
    with open_built(process) as snapshot:
        graph, state = snapshot.graph, snapshot.reached.state
        states = {int(graph.start[node]): Reach(int(state[node])) for node in range(len(graph))}
        assert (states[first], states[lost]) == (Reach.REACHABLE, Reach.DIRECT)
        areas = [area for area in snapshot.roots.areas if area.kind is RootKind.MANAGED]
        assert areas and not any(area.is_weak for area in areas)
        weak = [area.span for area in snapshot.roots.areas if area.is_weak]
        assert not [span for span in weak for area in areas if span & area.span]


def test_refs_names_the_field_that_holds_a_block(held, tmp_path: Path):
    process, first, _ = held
    path = tmp_path / "held.dmp"
    process.write(path)
    result = CliRunner().invoke(cli, ["refs", str(path), hex(first), "--no-cache"])
    assert "Acme.Orders.Order._handle of 0x" in result.output
    assert "(finalizable)" in result.output
