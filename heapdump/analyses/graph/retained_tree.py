"""The dominator tree from above, blocks of one type in one row: what holds the memory, and at which member.

In: the tree and the types. Out: `TreeRow`, each before the rows below it. Blocks of one type below each other, such as
the nodes of a list, are one row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.references import References
from heapdump.analyses.graph.retained import Retained
from heapdump.analyses.types.typing import BlockTyping, TypeLabel
from heapdump.kernels import run
from heapdump.kernels.owners import nearest

_BRANCHES, _LEAST_SHARE = 6, 0.01
"""Rows below one row, at most; those with less than this share of the whole are left out."""

_SAMPLE, _MOST_OFFSETS = 32, 3
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class TreeRow:
    """Blocks of one type that blocks of the row above hold.

    Attributes:
        level: 0 for rows that no other row is above.
        type: of the blocks; None for the rest of the rows, which is left out.
        count: number of blocks; of the rest the number of its types.
        bytes: their own bytes.
        retained_bytes: bytes that they retain.
        offsets: where in the blocks above the pointers lie, at most three; empty where others lead there.
        is_array: True where pointers lie at more offsets than these.
        root: a root that leads to the only block; "" for several.
        sample: the block that retains most.
    """

    level: int
    type: TypeLabel | None
    count: int
    bytes: int
    retained_bytes: int
    offsets: tuple[int, ...] = ()
    is_array: bool = False
    root: str = ""
    sample: int = 0


class TypeRuns:
    """The dominator tree with each run of blocks of one type, one below the other, as one: a list is one run.

    A run has the number of its uppermost block.
    """

    def __init__(self, graph: PointerGraph, tree: Retained, typing: BlockTyping, top: int) -> None:
        """Some 0.1 µs for each block. `top`: number of a node that begins a run in any case."""
        count = len(tree.order)
        label = np.full(count, -1, np.int64)
        label[1:] = typing.of_rows(graph.rows[tree.order[1:]].astype(np.int64))
        is_upper = (label != label[tree.dominator]).astype(np.uint8)
        is_upper[top] = 1
        run_of = np.zeros(count, np.int32)
        run(nearest, count, tree.dominator, is_upper, run_of)
        size = np.zeros(count)
        size[1:] = graph.size[tree.order[1:]]
        self.label, self._bytes, self._tree = label, np.bincount(run_of, size, minlength=count), tree
        self._blocks = np.bincount(run_of, minlength=count)
        runs = np.flatnonzero(is_upper[1:]) + 1
        above = run_of[tree.dominator[runs]]
        self._runs = runs[np.argsort(above, kind="stable")]
        self._first = np.concatenate([[0], np.cumsum(np.bincount(above, minlength=count))])

    def below(self, runs: Numbers) -> Numbers:
        """The runs directly below some runs; 0 stands for the roots."""
        low = self._first[runs]
        counts = self._first[runs + 1] - low
        steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        below: Numbers = self._runs[np.repeat(low, counts) + steps]
        return below

    def sums(self, runs: Numbers) -> tuple[int, int]:
        """(blocks, their own bytes) of some runs."""
        return int(self._blocks[runs].sum()), int(self._bytes[runs].sum())

    def retained(self, runs: Numbers) -> Numbers:
        """The bytes that each run retains."""
        retained: Numbers = self._tree.bytes[runs]
        return retained


class TreeFinder:
    """Makes the rows of one graph."""

    def __init__(self, graph: PointerGraph, tree: Retained, typing: BlockTyping, references: References) -> None:
        """Reads nothing yet."""
        self._graph, self._tree, self._typing, self._references = graph, tree, typing, references

    def rows(self, node: int | None, depth: int) -> Iterator[TreeRow]:
        """The rows of `depth` levels; `node`: the only block of the first one, None for all that no block dominates."""
        number = 0 if node is None else self._tree.number_of(node)
        self._runs = TypeRuns(self._graph, self._tree, self._typing, number)
        top = np.array([number], np.int64)
        least = _LEAST_SHARE * int(self._tree.bytes[number])
        yield from self._level(self._runs.below(top) if node is None else top, 0, depth, least)

    def _level(self, runs: Numbers, level: int, depth: int, least: float) -> Iterator[TreeRow]:
        """The rows of one level under one row, each with those below it. `least`: bytes that a row retains."""
        groups = self._groups(runs)
        shown = [one for one in groups[:_BRANCHES] if self._bytes(one) >= least] or groups[:1]
        for group in shown:
            yield self._row(group, level)
            below = self._runs.below(group) if level + 1 < depth else group[:0]
            if len(below):
                yield from self._level(below, level + 1, depth, least)
        rest = groups[len(shown) :]
        if rest:
            together = np.concatenate(rest)
            yield TreeRow(level, None, len(rest), self._runs.sums(together)[1], self._bytes(together))

    def _groups(self, runs: Numbers) -> list[Numbers]:
        """The runs of each type, the type that retains most first; of each type the run that retains most first."""
        label = self._runs.label[runs]
        order = np.lexsort((-self._runs.retained(runs), label))
        groups = np.split(runs[order], np.flatnonzero(np.diff(label[order])) + 1) if len(runs) else []
        return sorted(groups, key=lambda group: (-self._bytes(group), int(group[0])))

    def _bytes(self, runs: Numbers) -> int:
        return int(self._runs.retained(runs).sum())

    def _row(self, group: Numbers, level: int) -> TreeRow:
        node = int(self._tree.order[group[0]])
        label = self._typing.label_of(int(self._graph.rows[node]))
        offsets, root = self._offsets(group[:_SAMPLE]) if level else [], ""
        if level == 0 and len(group) == 1:
            root = next((one.root for one in self._references.roots_of(node)), "")
        count, size = self._runs.sums(group)
        is_array = len(offsets) > _MOST_OFFSETS
        shown = tuple(offsets[: 1 if is_array else _MOST_OFFSETS])
        start = self._graph.span(node).start
        return TreeRow(level, label, count, size, self._bytes(group), shown, is_array, root, start)

    def _offsets(self, runs: Numbers) -> list[int]:
        """Where in their dominators pointers to the first blocks of runs lie, ascending, each once."""
        found = set()
        for node in self._tree.order[runs].tolist():
            above = self._tree.dominator_of(node)
            pointer = None if above is None else next(self._references.pointers(above, node), None)
            if pointer is not None and pointer.at is not None and above is not None:
                found.add(pointer.at - self._graph.span(above).start)
        return sorted(found)
