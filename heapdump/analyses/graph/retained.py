"""The dominator tree over everything that roots hold: how much memory goes when one block goes.

A block is dominated by another one when every way from the roots leads through that; retained are the bytes of a block
and of all that it dominates. Pointers to the inside of blocks and weak roots hold as others do. A word that only looks like
a pointer makes a tree flatter, never wrong about what is certain to go.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph, Referrers
from heapdump.kernels import run
from heapdump.kernels.dominators import dominators, preorder, retain, retain_groups, spread


@dataclass(frozen=True)
class Retained:
    """The tree by numbers: 0 stands for all roots together, every dominator comes before what it dominates.

    `number` (n,) int32: of each node, -1 where no root leads; by number, (count,) each: `order` int32 the node (n for
    0), `dominator` int32 a number, `bytes` int64 and `blocks` int64 what it retains, itself included.
    """

    number: NDArray[np.int32]
    order: NDArray[np.int32]
    dominator: NDArray[np.int32]
    bytes: NDArray[np.int64]
    blocks: NDArray[np.int64]

    @property
    def total(self) -> int:
        """Bytes of everything that roots hold."""
        return int(self.bytes[0])

    def of(self, node: int) -> tuple[int, int]:
        """(bytes, blocks) that a node retains; its own bytes must be asked of the graph where no root leads to it."""
        place = int(self.number[node])
        return (int(self.bytes[place]), int(self.blocks[place])) if place >= 0 else (0, 0)

    def holder(self, node: int) -> int | None:
        """The node that dominates it; None for the roots, and where none leads to it."""
        place = int(self.number[node])
        above = int(self.dominator[place]) if place >= 0 else 0
        return int(self.order[above]) if above > 0 else None

    def count_below(self, node: int | None) -> int:
        """How many nodes it dominates immediately (None: how many no block dominates)."""
        place = 0 if node is None else int(self.number[node])
        return int(np.count_nonzero(self.dominator == place)) - (place == 0) if place >= 0 else 0

    def children(self, node: int | None) -> NDArray[np.int64]:
        """The nodes that it dominates immediately (None: that no block dominates), those that retain most first."""
        place = 0 if node is None else int(self.number[node])
        found = np.flatnonzero(self.dominator == place)
        found = found[found > 0] if place >= 0 else found[:0]
        return self.order[found[np.argsort(-self.bytes[found], kind="stable")]].astype(np.int64)

    def top(self, most: int) -> NDArray[np.int64]:
        """The nodes that retain most, of those that no block dominates; at most so many."""
        found = np.flatnonzero(self.dominator == 0)[1:]
        if len(found) > most:
            found = np.sort(found[np.argpartition(-self.bytes[found], most - 1)[:most]])
        return self.order[found[np.argsort(-self.bytes[found], kind="stable")]].astype(np.int64)

    def below(self, node: int) -> NDArray[np.int64]:
        """Everything that it dominates, and itself; ascending."""
        inside = np.zeros(len(self.order), np.uint8)
        inside[self.number[node]] = 1
        run(spread, len(inside), self.dominator, len(inside), inside)
        return np.sort(self.order[np.flatnonzero(inside)]).astype(np.int64)

    @cached_property
    def _tree(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        counts = np.bincount(self.dominator[1:], minlength=len(self.order))
        return np.concatenate([[0], np.cumsum(counts)]), (np.argsort(self.dominator[1:], kind="stable") + 1).astype(
            np.int32
        )

    def by_group(self, group: NDArray[np.int32], groups: int) -> NDArray[np.int64]:
        """Bytes that the nodes of each group retain, together and counted once; (groups,) int64.

        `group` (n,) of each node, from 0 on, -1 for none.
        """
        child, children = self._tree
        totals, active = np.zeros(groups, np.int64), np.zeros(groups, np.int32)
        scratch = (np.empty(len(self.order), np.int64), np.empty(len(self.order) + 1, np.int32))
        run(retain_groups, len(self.order), child, children, self.order, group, self.bytes, active, *scratch, totals)
        return totals


def retained_of(graph: PointerGraph, back: Referrers) -> Retained:
    """The dominator tree of a graph; `back`: its edges backwards. About 1 µs a node, after compilation."""
    nodes = len(graph)
    sure, perhaps = graph.root_targets()
    roots = np.union1d(sure, perhaps)
    number, order, parent = np.full(nodes, -1, np.int32), np.empty(nodes + 1, np.int32), np.empty(nodes + 1, np.int32)
    count = run(
        preorder, nodes, graph.first, graph.edges.targets, roots, number, order, parent, np.empty(nodes, np.int64)
    )
    order, parent = order[:count].copy(), parent[:count]
    is_root = np.zeros(nodes + 1, np.uint8)
    is_root[roots] = 1
    out, scratch = np.empty(count, np.int32), [np.empty(count, np.int32) for _ in range(4)]
    run(
        dominators,
        nodes,
        back.first,
        back.sources,
        is_root,
        number,
        order,
        parent,
        count,
        *scratch[:3],
        out,
        scratch[3],
    )
    held, blocks = np.empty(count, np.int64), np.empty(count, np.int64)
    run(retain, nodes, out, order, graph.size, count, held, blocks)
    return Retained(number, order, out, held, blocks)


_COLUMNS = ("number", "order", "dominator", "bytes", "blocks")


def columns_of(tree: Retained) -> dict[str, NDArray[Any]]:
    """The tree as columns, which `from_columns` reads."""
    return {name: getattr(tree, name) for name in _COLUMNS}


def from_columns(columns: dict[str, NDArray[Any]]) -> Retained:
    """The tree that `columns_of` wrote."""
    return Retained(*(columns[name] for name in _COLUMNS))
