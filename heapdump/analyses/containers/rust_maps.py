"""B-tree maps of Rust (`BTreeMap`, `BTreeSet`) of more than one node.

    map           { root; height; elements }
    leaf          parent, keys, values, place in the parent, elements, in an order that the compiler chooses
    inner node    { leaf; 12 pointers to the nodes below }

Source: `library/alloc/src/collections/btree/node.rs`, and programs that are compiled and run in the tests. Witnesses:
all nodes above the leaves have one size, all leaves another, 12 pointers less; each leads back to the one above; at one
place in them all have their number of elements, 1 to 11, which add up to those of the map. Rust is in the process.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.flags import ContainerFlags
from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import source_words
from heapdump.kernels import run
from heapdump.kernels.b_trees import tree_heads
from heapdump.kernels.container_flags import B_TREES
from heapdump.memory.mapped import MappedMemory
from heapdump.runtimes.owners.owner import Program

Numbers = NDArray[np.int64]
RUST = Program(exports=("rust_eh_personality",), texts=(b"/rustc/", b"rust_panic"))
"""How a program of Rust is known."""

_EDGES, _MOST_KEYS, _TALLEST = 12, 11, 24
_ROOM, _COLUMNS, _MOST_OF_ROOT = 1 << 12, 5, 16
_SAMPLE, _MOST_LAYOUTS = 8, 4
"""Maps of one size of nodes that say how a node is laid out, and layouts that are tried."""


def find_rust_maps(
    memory: MappedMemory, graph: PointerGraph, flags: ContainerFlags, is_rust: Callable[[], bool]
) -> list[ProvenContainers]:
    """The maps that are members of nodes. `flags`: of the nodes; `is_rust`: True where Rust is in the process."""
    pieces = []
    for words, width, places in source_words(
        memory, graph.edges, (graph.start, graph.size, graph.widths), flags=(flags.wanted, B_TREES)
    ):
        k, degree = 0, graph.first[places[1] + 1] - graph.first[places[1]]
        rows = np.empty((max(_ROOM, int(degree.max(initial=0))), _COLUMNS), np.int64)
        while k < len(places[0]):
            many, k = run(
                tree_heads, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *places, k, graph.first,
                graph.edges.targets, graph.start, graph.size, rows,
            )  # fmt: skip
            pieces.append(rows[:many][graph.widths[rows[:many, 2]] == width])
    roots = np.concatenate([np.empty((0, _COLUMNS), np.int64), *pieces])
    _, first = np.unique(roots[:, 2:], axis=0, return_index=True)
    roots = roots[first]  # by root; nodes below one look like maps of it, too
    roots = roots[np.arange(len(roots)) - np.searchsorted(roots[:, 2], roots[:, 2]) < _MOST_OF_ROOT]
    found = []
    for bytes_ in np.unique(graph.size[roots[:, 2]]).tolist():
        found += _Maps(memory, graph, roots[graph.size[roots[:, 2]] == bytes_]).proven()
    return found if found and is_rust() else []


@dataclass(frozen=True)
class _Maps:
    """Candidates whose roots have one size. `roots`: (k, 5) rows of `kernels.b_trees`."""

    memory: MappedMemory
    graph: PointerGraph
    roots: Numbers

    @property
    def width(self) -> int:
        """Bytes of a pointer."""
        return int(self.graph.widths[self.roots[0, 2]])

    @property
    def leaf(self) -> int:
        """Bytes of a leaf."""
        return int(self.graph.size[self.roots[0, 2]]) - _EDGES * self.width

    def proven(self) -> list[ProvenContainers]:
        """The maps, for each layout of nodes that some of them have."""
        first = self._below(self.roots[:, 2], np.zeros(len(self.roots), np.int64), self.roots[:, 3])
        roots, found = self.roots[first >= 0], list[ProvenContainers]()
        layouts = Counter(layout for head in roots[:_SAMPLE].tolist() for layout in self._layouts(head[2], head[3]))
        for layout, _ in layouts.most_common(_MOST_LAYOUTS):
            good, members, of = _Maps(self.memory, self.graph, roots)._walk(layout)
            if good.any():
                found.append(self._containers(roots, good, members, of))
            roots = roots[~good]
            if not len(roots):
                break
        return found

    def _containers(self, roots: Numbers, good: NDArray[np.bool_], members: Numbers, of: Numbers) -> ProvenContainers:
        """The good ones. `members`, `of`: the nodes that were met, and the index of the candidate of each."""
        members, of, rows = members[good[of]], of[good[of]], roots[good]
        of = (np.cumsum(good) - 1)[of]
        roles = np.full(len(members), Role.NODE, np.uint8)
        return ProvenContainers(rows[:, 0], rows[:, 1], NodeKind.B_TREE, rows[:, 2], rows[:, 4], members, of, roles)

    def _layouts(self, root: int, height: int) -> list[tuple[int, int]]:
        """(offset of the parent, offset of the number of elements) that fit one root and the nodes below it."""
        start, places = int(self.graph.start[root]), np.arange(0, self.leaf - self.width + 1, self.width)
        raw = self.memory.gather((start + np.arange(0, self.leaf - 1, 2)).astype(np.uint64), 2)[0].astype(np.int64)
        offsets = np.flatnonzero((raw >= 1) & (raw <= _MOST_KEYS))
        ends = self._below(np.full(len(offsets), root), raw[offsets], np.full(len(offsets), height))
        out = []
        for parent in places[self._words(self._first_below(start) + places) == start].tolist():
            fits = (ends >= 0) & (self._words(self.graph.start[np.maximum(ends, 0)] + parent) == start)
            out += [(parent, offset) for offset in (2 * offsets[fits]).tolist()]
        return out

    def _first_below(self, start: int) -> int:
        """The address of the first node below the one at an address."""
        return int(self._words(np.array([start + self.leaf]))[0])

    def _below(self, nodes: Numbers, number: Numbers, height: Numbers) -> Numbers:
        """The node that pointer `number` of each node of a height leads to; -1 where it has not the size of one."""
        value = self._words(self.graph.start[nodes] + self.leaf + number * self.width)
        found = self.graph.nodes.find(value.astype(np.uint64))
        size = self.leaf + np.where(height > 1, _EDGES * self.width, 0)
        good = (found >= 0) & (self.graph.start[found] == value) & (self.graph.size[found] == size)
        return np.where(good, found, -1)

    def _words(self, address: Numbers) -> Numbers:
        """The pointers at addresses; 0 where the dump lacks one."""
        return self.memory.gather(address.astype(np.uint64), self.width)[0].astype(np.int64)

    def _walk(self, layout: tuple[int, int]) -> tuple[NDArray[np.bool_], Numbers, Numbers]:
        """((k,) True for maps without a fault, the nodes that were met, the candidate of each), level by level."""
        graph, parent, count = self.graph, *layout
        many = len(self.roots)
        good, total = np.ones(many, bool), np.zeros(many, np.int64)
        level, of, met = self.roots[:, 2], np.arange(many), []
        height = self.roots[:, 3].copy()
        for _ in range(_TALLEST + 1):
            met.append((level, of))
            keys = self.memory.gather((graph.start[level] + count).astype(np.uint64), 2)[0].astype(np.int64)
            good[of[(keys < 1) | (keys > _MOST_KEYS)]] = False
            total += np.bincount(of, keys, minlength=many).astype(np.int64)
            inner = good[of] & (height[of] > 0)
            level, of, keys = level[inner], of[inner], keys[inner] + 1
            if not len(level):
                break
            above = np.repeat(level, keys)
            number = np.arange(len(above)) - np.repeat(np.cumsum(keys) - keys, keys)
            of = np.repeat(of, keys)
            level = self._below(above, number, height[of])
            back = self._words(graph.start[np.maximum(level, 0)] + parent)
            wrong = (level < 0) | (back != graph.start[above])
            good[of[wrong]] = False
            level, of = level[~wrong], of[~wrong]
            height -= 1
        nodes, owners = (np.concatenate(column) for column in zip(*met, strict=True))
        good &= total == self.roots[:, 4]
        nodes, owners = nodes[good[owners]], owners[good[owners]]
        _, first, times = np.unique(nodes, return_index=True, return_counts=True)
        good[owners[np.isin(nodes, nodes[first[times > 1]])]] = False
        return good, nodes, owners
