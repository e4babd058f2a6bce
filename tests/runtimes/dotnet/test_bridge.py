"""Native blocks that managed objects hold: roots, paths, leaks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from heapdump.analyses.graph.roots import RootKind
from heapdump.analyses.graph.unreachable import Reach
from heapdump.analyses.triage.page import ManagedShare
from heapdump.cli import cli
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke, word
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


def test_what_only_a_finalizable_wrapper_holds_is_told(open_built, tmp_path: Path):
    """A wrapper holds a block that holds another; a third one is held by a global variable, too."""
    heap = NtHeapBuilder(base=0x20000000000)
    first, inner, shared = heap.busy(100), heap.busy(5000), heap.busy(300)
    made = plan("8")
    for block in (first, first, shared):
        made.clr.object("gen2", made.types["Acme.Orders.Order"], None, block.to_bytes(8, "little"))
    process = made.clr.add_to(ProcessBuilder().heap(heap.build()))
    data = process.plan.exe + 0xC000 - 0x1000
    path = tmp_path / "held.dmp"
    path.write_bytes(poke(process.build(), (first + 8, word(inner)), (data, word(shared))).data)
    result = CliRunner().invoke(cli, ["leaks", str(path), "--unreachable", "--json", "--no-cache"])
    found = json.loads(result.output)["data"]
    assert found["direct"]["blocks"] == 0
    assert found["managed"] == {
        "blocks": 2, "bytes": 5100, "complete": True, "holders": [
            {"type": "Acme.Orders.Order", "is_finalizable": True, "objects": 2, "blocks": 1, "bytes": 100},
        ],
    }  # fmt: skip
    page = CliRunner().invoke(cli, ["leaks", str(path), "--unreachable", "--no-cache"]).output
    assert "objects of the managed heap alone: 2 blocks with 4.980 kB" in page
    assert "go when it runs, or at Dispose" in page


@pytest.mark.parametrize(
    ("managed", "native", "unknown", "answer"),
    [
        (18 << 20, 13 << 30, 24 << 20, "native"),
        (9 << 30, 1 << 30, 0, "managed"),
        (3 << 30, 2 << 30, 1 << 30, "both"),
        (1 << 20, 1 << 20, 5 << 20, "most of it is not known"),
    ],
)
def test_managed_or_native_is_answered(managed: int, native: int, unknown: int, answer: str):
    assert ManagedShare(managed, managed // 2, native, unknown).answer == answer


def test_triage_answers_managed_or_native(held, tmp_path: Path):
    path = tmp_path / "held.dmp"
    held[0].write(path)
    page = CliRunner().invoke(cli, ["triage", str(path), "--no-cache"]).output
    (line,) = (line.strip() for line in page.splitlines() if "managed or native" in line)
    assert line.startswith("managed or native: managed; managed 704.0 kB (GC heap 320.0 kB), native heaps ")


def test_triage_names_the_largest_managed_types(held, tmp_path: Path):
    path = tmp_path / "held.dmp"
    held[0].write(path)
    found = json.loads(CliRunner().invoke(cli, ["triage", str(path), "--no-cache", "--json", "-q"]).stdout)["data"][
        "who"
    ]
    types = json.loads(CliRunner().invoke(cli, ["managed", str(path), "--no-cache", "--json", "-q"]).stdout)["data"][
        "types"
    ]
    objects = [one for one in types if one["type"] != "Free"]
    managed = [one for one in found if one["kind"] == "managed"]
    assert [(one["key"], one["blocks"], one["bytes"]) for one in managed] == [
        (one["type"], one["count"], one["bytes"]) for one in objects[:2]
    ]
    assert {one["of_bytes"] for one in managed} == {sum(one["bytes"] for one in objects)}
    assert found[: len(managed)] == managed  # there are more bytes in objects than in blocks
