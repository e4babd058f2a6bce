"""Maps and sets of libstdc++ and libc++: balanced trees whose head lies in the owner.

    libstdc++  head { color: 0; root; first; last; elements }    node { color; parent; left; right; value }
    libc++     head { first; root; elements }                    node { left; right; parent; is black; value }

Source: `bits/stl_tree.h` (libstdc++; the map begins a word before the color), `__tree` (libc++). Witnesses: exactly so
many nodes of one size, each with its parent; that of the root is the head; the first node is the one furthest left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.shapes import ShapeReader, Shapes
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.kernels import container_shapes
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
_DEEPEST = 128
"""Levels of a balanced tree: more than 2 log2 of the blocks that a process can have."""


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """Where the words lie. `root`, `leftmost`, `count`, `head` in the shape; `parent`, `left`, `right` in a node.

    `start`: word of the shape at which the container begins.
    """

    shape: int
    root: int
    leftmost: int
    count: int
    head: int
    start: int
    parent: int
    left: int
    right: int
    color_bits: int = 0
    """Of the parent's address that tell something else."""


_LAYOUTS = (
    TreeLayout(container_shapes.TREE, 0, 1, 3, -1, -2, 1, 2, 3),
    TreeLayout(container_shapes.PAIR, 1, 0, 2, 1, 0, 2, 0, 1),
)


def find_trees(memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> list[ProvenContainers]:
    """The trees of each library among the candidates of one width of pointers."""
    return [_trees(memory, graph, shapes.of(layout.shape), layout) for layout in _LAYOUTS]


def _trees(memory: MappedMemory, graph: PointerGraph, shapes: Shapes, layout: TreeLayout) -> ProvenContainers:
    reader = ShapeReader(memory, graph, shapes)
    is_root = reader.value(reader.word(layout.root) + layout.parent * reader.width) == reader.at(layout.head)
    shapes = shapes.take(is_root)
    reader = ShapeReader(memory, graph, shapes)
    roots = reader.nodes(reader.word(layout.root))
    tree, good = walk(reader, roots, layout)
    counts = np.bincount(tree[tree > 0] - 1, minlength=len(shapes))
    good &= counts == reader.word(layout.count)
    good &= leftmost(reader, roots, layout) == reader.word(layout.leftmost)
    members = np.flatnonzero(tree)
    members = members[good[tree[members] - 1]]
    rows = np.flatnonzero(good)
    of = (np.cumsum(good) - 1)[tree[members] - 1]
    return ProvenContainers(
        shapes.owner[rows], shapes.offset[rows] + layout.start * reader.width, NodeKind.TREE, roots[rows], counts[rows],
        members, of, np.full(len(members), Role.NODE, np.uint8),
    )  # fmt: skip


def walk(reader: ShapeReader, roots: Numbers, layout: TreeLayout) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """((n,) number of the tree of each node, from 1 on; (k,) True for trees without a fault), level by level."""
    graph, width = reader.graph, reader.width
    tree, good = np.zeros(len(graph), np.int32), roots >= 0
    level, of = roots[good], np.flatnonzero(good)
    for _ in range(_DEEPEST):
        if not len(level):
            break
        _, first = np.unique(level, return_index=True)
        is_new = np.zeros(len(level), bool)
        is_new[first] = tree[level[first]] == 0
        is_new &= graph.size[level] == graph.size[np.maximum(roots, 0)][of]
        good[of[~is_new]] = False
        level, of = level[is_new & good[of]], of[is_new & good[of]]
        tree[level] = of + 1
        below, parents, owners = [], [], []
        for side in (layout.left, layout.right):
            value = reader.value(graph.start[level] + side * width)
            child = np.flatnonzero(value != 0)
            nodes = reader.nodes(value[child])
            good[of[child[nodes < 0]]] = False
            child, nodes = child[nodes >= 0], nodes[nodes >= 0]
            below.append(nodes)
            parents.append(graph.start[level[child]])
            owners.append(of[child])
        level, of, parent = np.concatenate(below), np.concatenate(owners), np.concatenate(parents)
        above = reader.value(graph.start[level] + layout.parent * width) & ~layout.color_bits
        good[of[above != parent]] = False
    good[of[: len(level)]] = False  # deeper than a balanced tree
    return tree, good


def leftmost(reader: ShapeReader, roots: Numbers, layout: TreeLayout) -> Numbers:
    """The address of the node furthest left of each tree."""
    at = np.where(roots >= 0, reader.graph.start[roots], 0)
    for _ in range(_DEEPEST):
        left = np.where(at != 0, reader.value(at + layout.left * reader.width), 0)
        if not left.any():
            break
        at = np.where(left != 0, left, at)
    return at
