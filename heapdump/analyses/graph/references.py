"""The pointers to a block and from it, with their offsets, and the paths from roots to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph, Referrers, areas_of
from heapdump.analyses.graph.root_names import place_name, register_name
from heapdump.kernels import run
from heapdump.kernels.reach import trace
from heapdump.process.model import Process
from heapdump.spans import Span

if TYPE_CHECKING:
    from heapdump.process.symbols.namer import Namer

_WEAK, _STRONG = 1, 2
_SHORT = 20_000
"""Nodes up to which a search runs in plain Python, without the compiled loop."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """A pointer to a node.

    Attributes:
        target: the node.
        at: address of the pointer; None in a register.
        value: its value.
        source: the node that it lies in; None in a root.
        root: name of the place in a root; "" in a node.
        is_weak: True in a weak root.
    """

    target: int
    at: int | None
    value: int
    source: int | None
    root: str = ""
    is_weak: bool = False


@dataclass(frozen=True, slots=True)
class Path:
    """A path from a root to a node.

    Attributes:
        root: the pointer in the root.
        nodes: the nodes from its target to the node that was asked about, both included.
    """

    root: Pointer
    nodes: tuple[int, ...]


class References:
    """The pointers of one graph, with names of places in roots."""

    def __init__(self, process: Process, graph: PointerGraph, referrers: Callable[[], Referrers], namer: Namer) -> None:
        """Reads nothing yet. `referrers()`: of the graph, called when they are needed."""
        self._process, self._graph, self._referrers, self._namer = process, graph, referrers, namer

    def node_of(self, row: int) -> int | None:
        """The node of a row of the block table; None for a row without a node."""
        found = np.flatnonzero(self._graph.rows == row).tolist()
        return found[0] if found else None

    def span(self, node: int) -> Span:
        """The bytes of a node that are swept."""
        return self._graph.span(node)

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
        sources = back.sources[back.first[node] : back.first[node + 1]].astype(np.int64)
        return np.unique(np.where(sources < 0, -1 - sources, sources))

    def targets(self, node: int) -> NDArray[np.int64]:
        """The nodes that a node points into, ascending, each once."""
        targets = self._graph.edges.targets[self._graph.first[node] : self._graph.first[node + 1]].astype(np.int64)
        return np.unique(np.where(targets < 0, -1 - targets, targets))

    def levels(self, node: int, depth: int) -> Iterator[tuple[int, Pointer]]:
        """(level, pointer): level 1 points to the node, level 2 to a holder of level 1 …; follows each holder once."""
        seen, current = {node}, [node]
        for level in range(1, depth + 1):
            found: list[int] = []
            for target in current:
                yield from ((level, root) for root in self.roots_of(target))
                for source in self.holders(target).tolist():
                    yield from ((level, pointer) for pointer in self.pointers(source, target))
                    if source not in seen:
                        seen.add(source)
                        found.append(source)
            if not found:
                break
            current = found

    def pointers(self, source: int, target: int) -> Iterator[Pointer]:
        """The pointers in one node into another one."""
        for at, value in self._words(self.span(source), int(self._graph.widths[source]), self.span(target)):
            yield Pointer(target, at, value, source)

    def paths(self, node: int, most: int = 1) -> list[Path]:
        """At most `most` shortest paths from different roots, strong ones first; none where no root leads there."""
        out: list[Path] = []
        if most == 1 and self._root_strength[node] == _STRONG:  # no search, so that referrers are not needed
            return [Path(next(self.roots_of(node)), (node,))]
        for least in (_STRONG, _WEAK):
            ends, steps = self._trace(node, least, most)
            for end in ends.tolist():
                nodes = [end]
                while nodes[-1] != node:
                    nodes.append(int(steps[nodes[-1]]))
                is_weak = least == _WEAK and self._root_strength[end] == _WEAK
                roots = (root for root in self.roots_of(end) if root.is_weak == is_weak)
                out += [Path(root, tuple(nodes)) for root in roots]
            if out:
                break
        return out[:most]

    def _trace(self, node: int, least: int, most: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(the nearest nodes that roots point to, the next node of every node on its path to this one).

        (ends,) int64, at most `most`; (n,) int32, -1 for nodes that the search did not reach. Short searches run in
        plain Python, which takes less time than loading the compiled loop.
        """
        back, count = self._referrers(), len(self._graph)
        ends, queue = np.empty(min(most, count), np.int64), np.empty(count, np.int32)
        for worth, limit in ((0, _SHORT), (len(back.sources), count)):
            steps = np.full(count, -1, np.int32)
            found = run(
                trace, worth, back.first, back.sources, node, self._root_strength, least, limit, steps, queue, ends
            )
            if found >= 0:
                break
        return ends[:found], steps

    @cached_property
    def _root_strength(self) -> NDArray[np.uint8]:
        """(n,) uint8: 2 for nodes that a strong root points to, 1 for those that only weak roots point to, else 0."""
        graph = self._graph
        strength, targets = np.zeros(len(graph), np.uint8), graph.root_edges.targets.astype(np.int64)
        nodes = np.where(targets < 0, -1 - targets, targets)
        is_weak = np.repeat(np.array([area.is_weak for area in graph.roots.areas], bool), graph.root_edges.degree)
        strength[nodes[is_weak]] = _WEAK
        strength[nodes[~is_weak]] = _STRONG
        strength[graph.register_targets[graph.register_targets >= 0]] = _STRONG
        return strength

    def _words(self, span: Span, width: int, target: Span) -> Iterator[tuple[int, int]]:
        """(address, value) of the words of `width` bytes in a span that point into `target`."""
        for start, words in self._process.space.mapped.words(span, width):
            for i in np.flatnonzero(
                (words >= np.uint64(target.start)) & (words < np.uint64(max(target.end, target.start + 1)))
            ).tolist():
                yield start + i * width, int(words[i])
