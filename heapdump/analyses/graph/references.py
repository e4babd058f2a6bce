"""Who points at a block and at which offset, what it points to, and how the roots lead there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph, Referrers, areas_of
from heapdump.analyses.graph.root_names import place_name, register_name
from heapdump.kernels import run
from heapdump.kernels.reach import trace
from heapdump.process.model import Process
from heapdump.process.symbols.namer import Namer
from heapdump.spans import Span

_WEAK, _STRONG = 1, 2
_SHORT = 20_000
"""Nodes that are looked at in plain Python."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to node `target`. `at`: address of the word, None in a register; `value`: where it points.

    `source`: the node that it lies in, or None and `root` names the place; `is_weak`: memory that may be forgotten.
    """

    target: int
    at: int | None
    value: int
    source: int | None
    root: str = ""
    is_weak: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """A way from a root: what it holds, then node after node to the one asked about."""

    root: Pointer
    nodes: tuple[int, ...]


class References:
    """Answers about one pointer graph."""

    def __init__(self, process: Process, graph: PointerGraph, referrers: Callable[[], Referrers], namer: Namer) -> None:
        """Computes nothing yet. `referrers`: of the graph, asked for when they are needed."""
        self._process, self._graph, self._referrers, self._namer = process, graph, referrers, namer

    def node_of(self, row: int) -> int | None:
        """The node of a row of the block table; None for rows that are none."""
        found = np.flatnonzero(self._graph.rows == row).tolist()
        return found[0] if found else None

    def span(self, node: int) -> Span:
        """The bytes of a node."""
        start = int(self._graph.start[node])
        return Span(start, start + int(self._graph.size[node]))

    def roots_of(self, node: int) -> Iterator[Pointer]:
        """The roots that point into a node: registers, then other strong ones, then weak ones."""
        graph = self._graph
        for i in np.flatnonzero(graph.register_targets == node).tolist():
            register = graph.roots.registers[i]
            yield Pointer(node, None, register.value, None, register_name(register))
        seen: set[int] = set()
        for area in sorted(areas_of(graph, node), key=lambda area: (area.is_weak, area.width, area.span)):
            for at, value in self._words(area.span, area.width, self.span(node)):
                if at not in seen:
                    seen.add(at)
                    yield Pointer(node, at, value, None, place_name(self._process, self._namer, area, at), area.is_weak)

    def holders(self, node: int) -> NDArray[np.int64]:
        """The nodes that point into a node, ascending, each once."""
        back = self._referrers()
        mine = back.sources[back.first[node] : back.first[node + 1]].astype(np.int64)
        return np.unique(np.where(mine < 0, -1 - mine, mine))

    def targets(self, node: int) -> NDArray[np.int64]:
        """The nodes that a node points into, ascending, each once."""
        mine = self._graph.edges.targets[self._graph.first[node] : self._graph.first[node + 1]].astype(np.int64)
        return np.unique(np.where(mine < 0, -1 - mine, mine))

    def levels(self, node: int, depth: int) -> Iterator[tuple[int, Pointer]]:
        """(level, pointer) of who points at a node, who points at those, and so on; each holder is gone into once."""
        seen, here = {node}, [node]
        for level in range(1, depth + 1):
            found: list[int] = []
            for target in here:
                yield from ((level, root) for root in self.roots_of(target))
                for source in self.holders(target).tolist():
                    yield from ((level, pointer) for pointer in self.pointers(source, target))
                    if source not in seen:
                        seen.add(source)
                        found.append(source)
            if not found:
                break
            here = found

    def pointers(self, source: int, target: int) -> Iterator[Pointer]:
        """The pointers in one node into another one."""
        for at, value in self._words(self.span(source), int(self._graph.widths[source]), self.span(target)):
            yield Pointer(target, at, value, source)

    def paths(self, node: int, most: int = 1) -> list[Path]:
        """The shortest ways from different roots, strong ones first; none where no root leads there."""
        out: list[Path] = []
        if most == 1 and self._held[node] == _STRONG:  # no need to know who points to whom
            return [Path(next(self.roots_of(node)), (node,))]
        for least in (_STRONG, _WEAK):
            ends, steps = self._trace(node, least, most)
            for end in ends.tolist():
                nodes = [end]
                while nodes[-1] != node:
                    nodes.append(int(steps[nodes[-1]]))
                roots = (
                    root for root in self.roots_of(end) if root.is_weak == (least == _WEAK and self._held[end] == _WEAK)
                )
                out += [Path(root, tuple(nodes)) for root in roots]
            if out:
                break
        return out[:most]

    def _trace(self, node: int, least: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(the nearest nodes that roots hold, the node behind each on the way to this one); -1 for nodes not seen.

        Short searches are over before the compiled loop would be loaded.
        """
        back, count = self._referrers(), len(self._graph)
        ends, queue = np.empty(min(most, count), np.int64), np.empty(count, np.int32)
        for worth, limit in ((0, _SHORT), (len(back.sources), count)):
            steps = np.full(count, -1, np.int32)
            found = run(trace, worth, back.first, back.sources, node, self._held, least, limit, steps, queue, ends)
            if found >= 0:
                break
        return ends[:found], steps

    @cached_property
    def _held(self) -> NDArray[np.uint8]:
        """(n,) what roots hold: 2 strong ones (or a register), 1 weak ones only, 0 none."""
        graph = self._graph
        held, targets = np.zeros(len(graph), np.uint8), graph.root_edges.targets.astype(np.int64)
        nodes = np.where(targets < 0, -1 - targets, targets)
        weak = np.repeat(np.array([area.is_weak for area in graph.roots.areas], bool), graph.root_edges.degree)
        held[nodes[weak]] = _WEAK
        held[nodes[~weak]] = _STRONG
        held[graph.register_targets[graph.register_targets >= 0]] = _STRONG
        return held

    def _words(self, span: Span, width: int, target: Span) -> Iterator[tuple[int, int]]:
        """(address, value) of the words in a span that point into another one."""
        for start, words in self._process.space.mapped.words(span, width):
            for i in np.flatnonzero(
                (words >= np.uint64(target.start)) & (words < np.uint64(max(target.end, target.start + 1)))
            ).tolist():
                yield start + i * width, int(words[i])
