"""The dominator tree of everything that roots lead to: the memory that becomes unreachable when one block goes.

Block A dominates block B when every path from the roots to B leads through A. A retains its own bytes and those of all
blocks that it dominates. Pointers to the inside of blocks and pointers in weak roots count. A word that only looks like
a pointer can add a path: retained bytes become smaller, never larger.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump import memory_plan
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.blocks.stored_checks import require_indices, require_length
from heapdump.kernels import run
from heapdump.kernels.dominators import dominators, pointed_from, preorder, retain, retain_groups, spread
from heapdump.large_arrays import batches, empty, full, zeros

_FEW, _REMEMBERED = 32, 128
"""Nodes whose numbers are searched for, before `number` is made; the most nodes of one answer whose numbers are
remembered."""

_Backwards = tuple[NDArray[np.int32] | NDArray[np.int64], NDArray[np.int32]]
"""`end` and `sources` of `pointed_from`."""


@dataclass(frozen=True)
class Retained:
    """The dominator tree of the n nodes of a graph.

    Nodes that roots lead to have numbers in depth-first order. Number 0 stands for all roots together. The number of a
    dominator is smaller than that of the node.

    Attributes:
        order: (count,) int32 node of each number; n for number 0.
        dominator: (count,) int32 number of the immediate dominator of each number.
        bytes: (count,) int64 retained bytes, those of the node included.
        blocks: (count,) int32 retained blocks, the node included.
    """

    order: NDArray[np.int32]
    dominator: NDArray[np.int32]
    bytes: NDArray[np.int64]
    blocks: NDArray[np.int32]
    _known: dict[int, int] = field(default_factory=dict, repr=False)
    """Numbers of nodes that were asked for, or told."""

    @cached_property
    def number(self) -> NDArray[np.int32]:
        """(n,) int32 number of each node; -1 where no root leads to it. Made where many nodes are asked about."""
        number = full(int(self.order[0]), -1, np.int32)
        for part in batches(len(self.order) - 1):
            number[self.order[part.start + 1 : part.stop + 1]] = np.arange(
                part.start + 1, part.stop + 1, dtype=np.int32
            )
        return number

    def number_of(self, node: int) -> int:
        """The number of a node; -1 where no root leads to it."""
        if node not in self._known:
            if len(self._known) >= _FEW or "number" in self.__dict__:
                return int(self.number[node])
            self._known[node] = self._searched(node)
        return self._known[node]

    def _searched(self, node: int) -> int:
        """`number_of`, in O(n), without an array of all numbers."""
        for part in batches(len(self.order)):
            found = np.flatnonzero(self.order[part] == node)
            if len(found):
                return int(part.start + found[0])
        return -1

    def _told(self, numbers: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The nodes with these numbers, the first of which are remembered."""
        nodes: NDArray[np.int64] = self.order[numbers].astype(np.int64)
        first = zip(nodes[:_REMEMBERED].tolist(), numbers[:_REMEMBERED].tolist(), strict=True)
        if "number" not in self.__dict__:
            self._known.update(first)
        return nodes

    @property
    def total(self) -> int:
        """Bytes of all nodes that roots lead to."""
        return int(self.bytes[0])

    def of(self, node: int) -> tuple[int, int]:
        """(bytes, blocks) that a node retains; (0, 0) where no root leads to it."""
        number = self.number_of(node)
        return (int(self.bytes[number]), int(self.blocks[number])) if number >= 0 else (0, 0)

    def dominator_of(self, node: int) -> int | None:
        """The immediate dominator of a node; None where only the roots dominate it, or no root leads to it."""
        number = self.number_of(node)
        above = int(self.dominator[number]) if number >= 0 else 0
        return int(self._told(np.array([above]))[0]) if above > 0 else None

    def count_below(self, node: int | None) -> int:
        """The number of nodes that a node dominates immediately; None: of nodes that no block dominates. O(n)."""
        number = 0 if node is None else self.number_of(node)
        return int(np.count_nonzero(self.dominator == number)) - (number == 0) if number >= 0 else 0

    def children(self, node: int | None) -> NDArray[np.int64]:
        """The nodes that `node` dominates immediately (None: that no block does), most retained bytes first. O(n)."""
        number = 0 if node is None else self.number_of(node)
        found = np.flatnonzero(self.dominator == number)
        found = found[found > 0] if number >= 0 else found[:0]
        return self._told(found[np.argsort(-self.bytes[found], kind="stable")])

    def largest_below(self, node: int, most: int) -> tuple[NDArray[np.int64], int]:
        """(the `most` nodes that a node dominates immediately and that retain most, the number of all of them).

        The first call costs O(n), others O(children).
        """
        number = self.number_of(node)
        if number < 0:
            return np.empty(0, np.int64), 0
        first, children = self._tree
        found = children[int(first[number]) : int(first[number + 1])]
        ordered = found[np.argsort(-self.bytes[found], kind="stable")][:most]
        return self._told(ordered), len(found)

    def top(self, most: int) -> NDArray[np.int64]:
        """The `most` nodes that retain most, of those that no block dominates; the one that retains most first.

        Of nodes that retain the same, those with lower numbers come first. So a smaller `most` gives the beginning of
        what a larger one gives.
        """
        found = np.flatnonzero(self.dominator == 0)[1:]
        if len(found) > most:
            size = self.bytes[found]
            least = np.partition(size, len(size) - most)[len(size) - most] if most else np.int64(1 << 62)
            above, equal = found[size > least], found[size == least]
            found = np.sort(np.concatenate([above, equal[: max(0, most - len(above))]]))
        return self._told(found[np.argsort(-self.bytes[found], kind="stable")])

    def below(self, node: int) -> NDArray[np.uint8]:
        """(n,) uint8, 1 for the node and for all nodes that it dominates. O(n)."""
        is_below = np.zeros(len(self.order), np.uint8)
        is_below[self.number_of(node)] = 1
        run(spread, len(is_below), self.dominator, len(is_below), is_below)
        inside = zeros(int(self.order[0]), np.uint8)
        for part in batches(len(is_below)):
            inside[self.order[part][is_below[part] != 0]] = 1
        return inside

    @cached_property
    def _tree(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(first, children): the children of number i are `children[first[i]:first[i + 1]]`."""
        counts = np.bincount(self.dominator[1:], minlength=len(self.order))
        return np.concatenate([[0], np.cumsum(counts)]), (np.argsort(self.dominator[1:], kind="stable") + 1).astype(
            np.int32
        )

    def by_group(self, group: NDArray[np.int32], groups: int) -> NDArray[np.int64]:
        """Bytes that the nodes of each group retain together, each byte counted once; (groups,) int64.

        `group` (n,) int32: the group of each node, 0 to groups - 1, or -1 for none.
        """
        first, children = self._tree
        totals, active = np.zeros(groups, np.int64), np.zeros(groups, np.int32)
        scratch = (np.empty(len(self.order), np.int64), np.empty(len(self.order) + 1, np.int32))
        run(retain_groups, len(self.order), first, children, self.order, group, self.bytes, active, *scratch, totals)
        return totals


def retained_of(graph: PointerGraph) -> Retained:
    """The dominator tree of a graph. About 0.5 µs a node, once the loops are compiled."""
    nodes = len(graph)
    memory_plan.before("the dominator tree", nodes * memory_plan.TREE_BYTES)
    order, dominator = _dominators(graph)
    size, own = empty(len(order), np.int64), graph.size
    size[0] = 0
    for part in batches(len(order) - 1):
        size[part.start + 1 : part.stop + 1] = own[order[part.start + 1 : part.stop + 1]]
    del own
    graph.forget_places()
    blocks = empty(len(order), np.int32)
    run(retain, nodes, dominator, len(order), size, blocks)
    return Retained(order, dominator, size, blocks)


def _dominators(graph: PointerGraph) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`order` and `dominator` of the tree."""
    order, parent, is_root, (end, sources) = _in_order(graph)
    count = len(order)
    dominator, semi, least = (empty(count, np.int32) for _ in range(3))
    run(dominators, len(graph), end, sources, is_root, parent, count, semi, least, dominator)
    return order, dominator


def _in_order(graph: PointerGraph) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.uint8], _Backwards]:
    """(`order`, parent, 1 where a root points to it) by number, and the edges backwards."""
    nodes, roots = len(graph), np.union1d(*graph.root_targets())
    kind: type[np.int32 | np.int64] = graph.first.dtype.type
    number, order, parent = full(nodes, -1, np.int32), empty(nodes + 1, np.int32), empty(nodes + 1, np.int32)
    edge: NDArray[Any] = empty(nodes, kind)
    end: NDArray[Any] = zeros(nodes + 1, kind)
    count = run(preorder, nodes, graph.first, graph.edges.targets, roots, number, order, parent, edge, end)
    del edge
    is_root = zeros(count, np.uint8)
    is_root[number[roots]] = 1
    sources = empty(len(graph.edges.targets), np.int32)
    run(pointed_from, nodes, graph.first, graph.edges.targets, number, order, count, end, sources)
    return order[:count], parent[:count], is_root, (end[:count], sources)


_COLUMNS = ("order", "dominator", "bytes", "blocks")


def columns_of(tree: Retained) -> dict[str, NDArray[Any]]:
    """The tree as columns, which `from_columns` reads."""
    return {name: getattr(tree, name) for name in _COLUMNS}


def from_columns(columns: dict[str, NDArray[Any]], nodes: int) -> Retained:
    """The tree that `columns_of` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, LookupError: it is not what `columns_of` writes.
    """
    order, dominator, size, blocks = (columns[name] for name in _COLUMNS)
    count = len(order)
    for column, kind in ((order, np.int32), (dominator, np.int32), (size, np.int64), (blocks, np.int32)):
        require_length(column, max(count, 1), kind, "the tree's columns")
    require_indices(order[1:], 0, nodes, "nodes")
    require_indices(size, 0, 1 << 62, "bytes")
    require_indices(blocks, 0, nodes + 1, "blocks")
    if int(order[0]) != nodes or int(dominator[0]) != 0 or (dominator[1:] >= np.arange(1, count)).any():
        raise ValueError("dominators are out of range")
    require_indices(dominator, 0, count, "dominators")
    return Retained(order, dominator, size, blocks)
