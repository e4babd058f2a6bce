"""Dominators and retained sizes of random graphs, against taking each node away and seeing what can still be reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.analyses.graph import retained
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.retained import retained_of
from heapdump.analyses.graph.roots import Area, RootKind, Roots
from heapdump.analyses.graph.sweep import Edges
from heapdump.kernels.dominators import dominators
from heapdump.spans import Span

pytestmark = pytest.mark.property


@st.composite
def graphs(draw) -> tuple[PointerGraph, dict[int, set[int]], set[int]]:
    """(graph, targets of each node, what roots hold); targets to the inside are negative."""
    count = draw(st.integers(1, 14))
    node = st.integers(0, count - 1)
    inside = st.booleans()
    edges = sorted(draw(st.lists(st.tuples(node, node, inside), max_size=30)))
    roots = draw(st.lists(st.tuples(node, inside), max_size=4))
    sizes = np.array(draw(st.lists(st.integers(0, 50), min_size=count, max_size=count)), np.int64)
    return graph_of(count, edges, roots, sizes)


def graph_of(count, edges, roots, sizes):
    def coded(found):
        return np.array([-1 - t if inner else t for t, inner in found], np.int32)

    degree = (
        np.bincount([a for a, _, _ in edges], minlength=count).astype(np.int32) if edges else np.zeros(count, np.int32)
    )
    area = Roots((Area(Span(0x1000, 0x2000), RootKind.MODULE, 8),), (), ())
    start = 0x10000 + 64 * np.arange(count)
    graph = PointerGraph(
        np.arange(count, dtype=np.int32), start, sizes, np.full(count, 8, np.uint8), Edges.of(degree, coded([(b, i) for _, b, i in edges]), 0), area,
        Edges.of(np.array([len(roots)], np.int32), coded(roots), 0), 0,
    )  # fmt: skip
    return graph, {i: {b for a, b, _ in edges if a == i} for i in range(count)}, {t for t, _ in roots}


def reached(targets: dict[int, set[int]], roots: set[int], without: int = -1) -> set[int]:
    out: set[int] = set()
    waiting = [root for root in roots if root != without]
    while waiting:
        node = waiting.pop()
        if node not in out:
            out.add(node)
            waiting += [t for t in targets[node] if t != without]
    return out


@pytest.mark.parametrize("is_compiled", [False, True])
@given(made=graphs(), groups=st.lists(st.integers(-1, 2), min_size=14, max_size=14))
def test_what_a_node_retains_is_what_is_lost_without_it(made, groups, is_compiled):
    graph, targets, roots = made
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            kernels, "compiled_if_worth", lambda function, blocks: kernels.compiled(function) if is_compiled else None
        )
        tree = retained_of(graph)
        nodes = reached(targets, roots)
        gone = {v: nodes - reached(targets, roots, v) for v in nodes}
        sizes = graph.size.tolist()
        for v in range(len(graph)):
            if v not in nodes:
                assert (tree.number_of(v), tree.of(v), tree.dominator_of(v), len(tree.children(v))) == (
                    -1,
                    (0, 0),
                    None,
                    0,
                )
                continue
            assert tree.of(v) == (sum(sizes[w] for w in gone[v]), len(gone[v]))
            above = [u for u in nodes if u != v and v in gone[u]]
            nearest = max(above, key=lambda u: len([w for w in above if u in gone[w]]), default=None)
            assert tree.dominator_of(v) == nearest
            assert tree.below(v).nonzero()[0].tolist() == sorted(gone[v])
            assert set(tree.children(v).tolist()) == {w for w in gone[v] - {v} if tree.dominator_of(w) == v}
        assert [tree.number_of(v) for v in range(len(graph))] == tree.number.tolist()
        assert tree.total == sum(sizes[v] for v in nodes)
        tops = {v for v in nodes if tree.dominator_of(v) is None}
        assert set(tree.children(None).tolist()) == tops
        ordered = tree.children(None).tolist()
        assert [tree.of(v)[0] for v in ordered] == sorted((tree.of(v)[0] for v in tops), reverse=True)
        assert all(tree.top(most).tolist() == ordered[:most] for most in range(len(tops) + 2))
        together = [set().union(*(gone[v] for v in nodes if groups[v] == g)) for g in range(3)]
        totals = tree.by_group(np.array(groups[: len(graph)], np.int32), 3)
        assert totals.tolist() == [sum(sizes[v] for v in found) for found in together]


def test_a_long_list_needs_no_deep_stack():
    count = 5000
    graph, _, _ = graph_of(
        count, [(i, i + 1, False) for i in range(count - 1)], [(0, False)], np.full(count, 10, np.int64)
    )
    tree = retained_of(graph)
    assert [tree.of(v) for v in (0, 1, count - 1)] == [(50_000, 5000), (49_990, 4999), (10, 1)]


class Counted(list[int]):
    """A list that counts how often it is read."""

    reads = 0

    def __getitem__(self, index: Any) -> Any:
        self.reads += 1
        return super().__getitem__(index)


def test_lists_that_share_their_elements_take_few_steps():
    """Two lists of n nodes, each node with the same element: nothing but the roots dominates an element."""
    n = 2_000
    edges = [(list_ * n + i, list_ * n + i + 1, False) for list_ in (0, 1) for i in range(n - 1)]
    edges += [(list_ * n + i, 2 * n + i, False) for list_ in (0, 1) for i in range(n)]
    graph, _, _ = graph_of(3 * n, sorted(edges), [(0, False), (n, False)], np.full(3 * n, 10, np.int64))
    order, parent, is_root, (end, sources) = retained._in_order(graph)
    out = Counted([0] * len(order))
    semi, least = ([0] * len(order) for _ in range(2))
    dominators(end.tolist(), sources.tolist(), is_root.tolist(), parent.tolist(), len(order), semi, least, out)
    assert out.reads < 20 * len(order)
    tree = retained_of(graph)
    assert tree.dominator.tolist() == list(out)
    assert [tree.dominator_of(2 * n + i) for i in (0, 1, n - 1)] == [None] * 3
    assert [tree.dominator_of(i) for i in (0, 1, n - 1, n, n + 1)] == [None, 0, n - 2, None, n]
