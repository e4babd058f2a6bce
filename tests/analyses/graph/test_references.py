"""Holders, targets and paths of random graphs, against the plan; names of roots."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from heapdump.analyses.graph.root_names import register_name
from heapdump.analyses.graph.roots import Register
from tests.analyses.graph.plans import NONE, REGISTERS, STRONG, TID, WEAK, Plan, closure, expected, lay, plans

pytestmark = pytest.mark.property


def distances(edges: set[tuple[int, int]], nodes: set[int]) -> dict[int, int]:
    """Edges from the nearest of some nodes."""
    out = dict.fromkeys(nodes, 0)
    level = set(nodes)
    for step in range(1, 100):
        level = {b for a, b in edges if a in level and b not in out}
        out |= dict.fromkeys(level, step)
    return out


@given(plan=plans(most=10))
def test_holders_and_shortest_paths_are_those_of_the_plan(open_built, plan):
    laid, truth = lay(plan), expected(lay(plan))
    edges = {(a, b) for a, b, _ in truth.edges}
    taken = [0]
    strong = set()
    for place, to, how in plan.roots:
        taken[0] += place == "register"
        is_held = place in STRONG and how != "past" and (how != "unaligned" or place == "register")
        if is_held and (place != "register" or taken[0] <= len(REGISTERS[plan.arch])):
            strong.add(to)
    far, weak = distances(edges, strong), distances(edges, truth.strong | truth.weak)
    with open_built(laid.built) as snapshot:
        graph, references = snapshot.graph, snapshot.references(snapshot.namer())
        node_of = {i: graph.start.tolist().index(user) for i, user in enumerate(laid.users)}
        number = {node: i for i, node in node_of.items()}
        for i, node in node_of.items():
            assert {number[h] for h in references.holders(node).tolist()} == {a for a, b in edges if b == i}
            assert {number[t] for t in references.targets(node).tolist()} == {b for a, b in edges if a == i}
            paths = references.paths(node, 50)
            expected_far = far.get(i, weak.get(i))
            assert bool(paths) == (expected_far is not None)
            if paths and expected_far is not None:
                assert len(paths[0].nodes) == 1 + expected_far
                assert {path.root.is_weak for path in paths} == {i not in far}
                assert {number[path.nodes[0]] for path in paths} == {
                    a for a in (strong if i in far else truth.weak) if i in closure({a}, edges)
                }
            for path in paths:
                assert path.nodes[-1] == node and path.root.target == path.nodes[0]
                assert all((number[a], number[b]) in edges for a, b in zip(path.nodes, path.nodes[1:], strict=False))
            assert len(references.paths(node)) == bool(paths)


PLACES = {
    "stack": f"thread 0 stack rsp+{0x400 - 0x300:#x}", "module": "app.exe!.data+0x1000", "teb": "thread 0 TLS slot 8", "peb": "PEB+0x500",
    "memory": "memory 0x30000000+0x0", "register": "thread 0 rbx",
}  # fmt: skip


@pytest.mark.parametrize("place", [*STRONG, *WEAK, *NONE])
def test_roots_have_names(open_built, place):
    with open_built(lay(Plan("x64", [64, 64], [(0, 1, "inside")], [(place, 0, "start")])).built) as snapshot:
        references = snapshot.references(snapshot.namer())
        names = [path.root.root for path in references.paths(len(snapshot.graph) - 1, 5)]
        assert names == ([PLACES[place]] if place in PLACES else [])
        assert snapshot.process.threads[0].id == TID


def test_more_paths_and_levels_than_there_are_blocks_end(open_built):
    plan = Plan("x64", [64, 64], [(0, 1, "start"), (1, 0, "start")], [("module", 0, "start")])
    with open_built(lay(plan).built) as snapshot:
        references = snapshot.references(snapshot.namer())
        node = len(snapshot.graph) - 1
        assert len(references.paths(node, 10**22)) == 1
        assert [level for level, _ in references.levels(node, 10**22)] == [1, 2, 2]


def test_a_register_of_a_thread_that_is_not_in_the_dump_is_named_without_it():
    assert register_name(Register(-1, "rbx", 1, of_exception=True)) == "rbx at the exception"
    assert register_name(Register(3, "rbx", 1)) == "thread 3 rbx"


def test_a_search_that_is_long_starts_again_without_end(open_built, monkeypatch):
    monkeypatch.setattr("heapdump.analyses.graph.references._SHORT", 5)
    plan = Plan("x64", [64] * 20, [(i, i + 1, "start") for i in range(19)], [("module", 0, "start")])
    with open_built(lay(plan).built) as snapshot:
        references = snapshot.references(snapshot.namer())
        nodes = [path.nodes for path in references.paths(int(np.argmax(snapshot.graph.edges.degree == 0)), 3)]
        assert [len(found) for found in nodes] == [20]
