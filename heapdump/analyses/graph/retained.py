"""The dominator tree of everything that roots lead to: the memory that becomes unreachable when one block goes.

Block A dominates block B when every path from the roots to B leads through A. A retains its own bytes and those of all
blocks that it dominates. Pointers to the inside of blocks and pointers in weak roots count. A word that only looks like
a pointer can add a path: retained bytes become smaller, never larger.
"""

from __future__ import annotations

from dataclasses import dataclass
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

_Backwards = tuple[NDArray[np.int32] | NDArray[np.int64], NDArray[np.int32]]
"""`end` and `sources` of `pointed_from`."""


@dataclass(frozen=True)
class Retained:
    """The dominator tree of the n nodes of a graph.

    Nodes that roots lead to have numbers in depth-first order. Number 0 stands for all roots together. The number of a
    dominator is smaller than that of the node.

    Attributes:
        number: (n,) int32 number of each node; -1 where no root leads to it.
        order: (count,) int32 node of each number; n for number 0.
        dominator: (count,) int32 number of the immediate dominator of each number.
        bytes: (count,) int64 retained bytes, those of the node included.
        blocks: (count,) int32 retained blocks, the node included.
    """

    number: NDArray[np.int32]
    order: NDArray[np.int32]
    dominator: NDArray[np.int32]
    bytes: NDArray[np.int64]
    blocks: NDArray[np.int32]

    @property
    def total(self) -> int:
        """Bytes of all nodes that roots lead to."""
        return int(self.bytes[0])

    def of(self, node: int) -> tuple[int, int]:
        """(bytes, blocks) that a node retains; (0, 0) where no root leads to it."""
        number = int(self.number[node])
        return (int(self.bytes[number]), int(self.blocks[number])) if number >= 0 else (0, 0)

    def dominator_of(self, node: int) -> int | None:
        """The immediate dominator of a node; None where only the roots dominate it, or no root leads to it."""
        number = int(self.number[node])
        above = int(self.dominator[number]) if number >= 0 else 0
        return int(self.order[above]) if above > 0 else None

    def count_below(self, node: int | None) -> int:
        """The number of nodes that a node dominates immediately; None: of nodes that no block dominates. O(n)."""
        number = 0 if node is None else int(self.number[node])
        return int(np.count_nonzero(self.dominator == number)) - (number == 0) if number >= 0 else 0

    def children(self, node: int | None) -> NDArray[np.int64]:
        """The nodes that `node` dominates immediately (None: that no block does), most retained bytes first. O(n)."""
        number = 0 if node is None else int(self.number[node])
        found = np.flatnonzero(self.dominator == number)
        found = found[found > 0] if number >= 0 else found[:0]
        return self.order[found[np.argsort(-self.bytes[found], kind="stable")]].astype(np.int64)

    def largest_below(self, node: int, most: int) -> tuple[NDArray[np.int64], int]:
        """(the `most` nodes that a node dominates immediately and that retain most, the number of all of them).

        The first call costs O(n), others O(children).
        """
        number = int(self.number[node])
        if number < 0:
            return np.empty(0, np.int64), 0
        first, children = self._tree
        found = children[int(first[number]) : int(first[number + 1])]
        ordered = found[np.argsort(-self.bytes[found], kind="stable")][:most]
        return self.order[ordered].astype(np.int64), len(found)

    def top(self, most: int) -> NDArray[np.int64]:
        """The `most` nodes that retain most, of those that no block dominates; the one that retains most first."""
        found = np.flatnonzero(self.dominator == 0)[1:]
        if len(found) > most:
            found = np.sort(found[np.argpartition(-self.bytes[found], most - 1)[:most]])
        return self.order[found[np.argsort(-self.bytes[found], kind="stable")]].astype(np.int64)

    def below(self, node: int) -> NDArray[np.int32]:
        """The node and all nodes that it dominates; (k,) int32, ascending. O(n)."""
        is_below = np.zeros(len(self.order), np.uint8)
        is_below[self.number[node]] = 1
        run(spread, len(is_below), self.dominator, len(is_below), is_below)
        inside = zeros(len(self.number), np.uint8)
        for part in batches(len(is_below)):
            inside[self.order[part][is_below[part] != 0]] = 1
        out, count = empty(int(np.count_nonzero(inside)), np.int32), 0
        for part in batches(len(inside)):
            found = np.flatnonzero(inside[part])
            out[count : count + len(found)] = part.start + found
            count += len(found)
        return out

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
    number = _numbers(order, nodes)
    size, blocks = empty(len(order), np.int64), empty(len(order), np.int32)
    size[0] = 0
    for part in batches(nodes):
        numbers = number[part]
        reached = numbers > 0
        size[numbers[reached]] = graph.sizes(part)[reached]
    run(retain, nodes, dominator, len(order), size, blocks)
    return Retained(number, order, dominator, size, blocks)


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


def _numbers(order: NDArray[np.int32], nodes: int) -> NDArray[np.int32]:
    """`Retained.number` of `nodes` nodes."""
    number = full(nodes, -1, np.int32)
    for part in batches(len(order) - 1):
        number[order[part.start + 1 : part.stop + 1]] = np.arange(part.start + 1, part.stop + 1, dtype=np.int32)
    return number


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
    return Retained(_numbers(order, nodes), order, dominator, size, blocks)
