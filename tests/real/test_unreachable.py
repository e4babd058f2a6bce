"""Unreachable blocks of the recorded object graphs, against what the program did."""

from __future__ import annotations

from typing import Any

import pytest

from heapdump.analyses.graph.unreachable import Reach, classify
from heapdump.analyses.memory.usage import STACK_DATABASE
from heapdump.snapshot import open_dump
from heapdump.spans import SpanMap
from tests.real.test_oracle import BUILDS
from tests.recordings import truth_of

pytestmark = pytest.mark.real


def addresses(values: list[str]) -> set[int]:
    return {int(value, 16) for value in values}


def held_by_chance(truth: dict[str, Any], leaked: set[int], heaps: SpanMap[str]) -> set[int]:
    """Leaked blocks that stray words outside of heaps, or in blocks of ntdll, point to, and all that they hold."""
    own = [(int(b["ptr"], 16), int(b["ptr"], 16) + b["size"]) for b in truth["blocks"] if b["by"] != "program"]
    graph = truth["graph"]
    strays = [
        (int(s["at"], 16), int(s["points_to"], 16)) for s in graph["stray_references"] if "below rsp" not in s["place"]
    ]
    out = {to for at, to in strays if heaps.at(at) is None or any(low <= at < high for low, high in own)} & leaked
    while more := {int(e["to"], 16) for e in graph["edges"] if int(e["of"], 16) in out} & leaked - out:
        out |= more
    return out


@pytest.mark.parametrize("scenario", ["leak", "leak-ust"])
@pytest.mark.parametrize("build", BUILDS)
def test_leaked_blocks_are_those_that_the_program_lost(recorded, build, scenario):
    truth = truth_of(recorded, build, scenario)
    graph_truth = truth["graph"]
    cycles = {frozenset(addresses(cycle)) for cycle in graph_truth["leaked_cycles"]}
    in_cycles = set().union(*cycles)
    direct, indirect = addresses(graph_truth["direct"]), addresses(graph_truth["indirect"])
    leaked = direct | indirect | in_cycles
    with open_dump(recorded(f"oracle/{build}/{scenario}.dmp.xz"), use_index=False) as snapshot:
        doubtful = held_by_chance(
            truth, leaked, SpanMap((extent.span, extent.words) for heap in snapshot.heaps for extent in heap.extents)
        )
        graph = snapshot.graph
        reached = classify(graph)
        found = {kind: set(graph.start[reached.nodes(kind)].tolist()) for kind in Reach}
        assert graph.roots.missing == () and graph.missing_bytes == 0
        databases = [claim.span for claim in snapshot.usage.table.claims if claim.item == STACK_DATABASE]
        assert bool(databases) == (scenario == "leak-ust") and not any(
            area.span & database for area in graph.roots.areas for database in databases
        )
        assert {frozenset(graph.start[cycle].tolist()) for cycle in reached.cycles} == {
            cycle for cycle in cycles if not cycle & doubtful
        }
    assert found[Reach.DIRECT] | found[Reach.INDIRECT] >= leaked - doubtful
    assert (found[Reach.DIRECT] | found[Reach.INDIRECT]) & addresses(graph_truth["reachable"]) == set()
    assert found[Reach.POSSIBLE] & addresses(graph_truth["reachable"]) <= addresses(
        graph_truth["reachable_by_interior_pointer_only"]
    )
    strays = addresses([s["points_to"] for s in graph_truth["stray_references"]])
    assert (
        found[Reach.DIRECT] - in_cycles - strays <= direct
        and found[Reach.INDIRECT] - in_cycles - strays <= indirect | direct
    )
