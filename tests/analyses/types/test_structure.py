"""Data structures are told by how their elements point at each other; what only comes near is none."""

from __future__ import annotations

import random

import numpy as np
import pytest

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.roots import Roots
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.types.structure import structure_of

Graph = tuple[list[int], list[tuple[int, int]]]
"""Sizes of nodes, and who points to whom."""


def found(graph: Graph) -> str:
    sizes, edges = graph
    count = len(sizes)
    ordered = sorted(edges)
    degree = np.bincount([source for source, _ in ordered], minlength=count).astype(np.int32)
    targets = np.array([target for _, target in ordered], np.int32)
    none = Edges.of(np.empty(0, np.int32), np.empty(0, np.int32), 0)
    start = 0x10000 + 64 * np.arange(count)
    made = PointerGraph(
        np.arange(count, dtype=np.int32),
        start,
        np.array(sizes),
        np.full(count, 8, np.uint8),
        Edges.of(degree, targets, 0),
        Roots((), (), ()),
        none,
        0,
    )
    return structure_of(made, np.ones(count, np.uint8))[0].kind or ""


def std_map(count: int, seed: int = 1) -> Graph:
    """Visual C++'s: children that are not there are the head, a node like all others; nodes know their parents."""
    keys = random.Random(seed).sample(range(count * 9), count)
    children: dict[int, list[int | None]] = {0: [None, None]}
    parent = {0: -1}
    for node in range(1, count):
        at = 0
        while True:
            side = int(keys[node] > keys[at])
            below = children[at][side]
            if below is None:
                children[at][side] = node
                break
            at = below
        children[node], parent[node] = [None, None], at
    head = count
    edges = [(node, head if child is None else child) for node, both in children.items() for child in both]
    edges += [(node, above if above >= 0 else head) for node, above in parent.items()]
    return [40] * (count + 1), [*edges, (head, 0), (head, keys.index(min(keys))), (head, keys.index(max(keys)))]


def tree(count: int, *, parents: bool) -> Graph:
    down = [(i, child) for i in range(count) for child in (2 * i + 1, 2 * i + 2) if child < count]
    return [32] * count, down + [(child, i) for i, child in down] * parents


def cyclic_list(count: int, *, both_ways: bool) -> Graph:
    edges = [(i, (i + 1) % count) for i in range(count)]
    return [24] * count, edges + [(b, a) for a, b in edges] * both_ways


def payloads(count: int) -> Graph:
    """A list whose elements hold a block each, and point to the owner of all."""
    edges = (
        [(i, i + 1) for i in range(count - 1)]
        + [(i, count + i) for i in range(count)]
        + [(i, 2 * count) for i in range(count)]
    )
    return [32] * count + [48] * (count - 1) + [50, 32], edges


def owned(count: int) -> Graph:
    return [32] * count, [(i, 0) for i in range(1, count)]


def noise(count: int, most: int, seed: int = 3) -> Graph:
    draw = random.Random(seed)
    return [32] * count, list(
        {(i, draw.randrange(count)) for i in range(count) for _ in range(draw.randint(min(most, 1), most))}
    )


def vector(count: int) -> Graph:
    return [8 * count] + [48] * count, [(0, i + 1) for i in range(count)]


@pytest.mark.parametrize("count", [20, 300, 6000])
@pytest.mark.parametrize(
    ("make", "name"),
    [
        (std_map, "tree or map"), (lambda n: tree(n, parents=False), "tree or map"), (lambda n: tree(n, parents=True), "tree or map"),
        (lambda n: cyclic_list(n, both_ways=False), "linked list"), (lambda n: cyclic_list(n, both_ways=True), "linked list"), (payloads, "linked list"),
        (vector, "array of pointers"), (owned, ""), (lambda n: noise(n, 1), ""), (lambda n: noise(n, 3), ""),
    ],
    ids=["std::map", "tree", "tree with parents", "ring", "std::list", "list of owners", "vector", "one owner", "a pointer each", "some pointers each"],
)  # fmt: skip
def test_structures_are_told(make, name, count):
    assert found(make(count)) == name
