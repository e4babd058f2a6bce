"""The types of blocks by the declarations in PDBs: of what variables point to, and what that points to, and so on.

In: the pointer graph, the PDBs, the objects whose class is known. Out: `DeclaredTypes`.

A block has a type where a pointer declared so leads to its start and the requested bytes are those of one element, or
of several. Trust falls: a variable's own pointee is derived, all behind it, and every array, is a guess. Objects with
virtual functions are told by their vtable alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.declared_shapes import DeclaredShapes
from heapdump.memory.mapped import MappedMemory
from heapdump.trust import Trust

_NONE, _TAKEN = -1, -2
_MOST_STEPS, _CHAIN_STEPS, _FEW_CHAINS, _MOST_LEVELS, _BATCH = 256, 8, 64, 24, 1 << 20
_VARIABLE, _POINTEE, _BEHIND = range(3)
"""Steps from a variable: 0 its own words, 1 what it points to, 2 what lies behind."""


@dataclass(frozen=True)
class DeclaredTypes:
    """The types of the n nodes of a graph.

    Attributes:
        shape: (n,) int32 number of a shape; negative for none.
        count: (n,) int64 elements of it.
        step: (n,) uint8 inferences from a variable: 1, or 2 for more.
        shapes: what the numbers mean.
    """

    shape: NDArray[np.int32]
    count: NDArray[np.int64]
    step: NDArray[np.uint8]
    shapes: DeclaredShapes

    def labels(self) -> Iterator[tuple[str, Trust, bool, NDArray[np.int64]]]:
        """(label, trust, True for structures, nodes) of each type. The trust is that of its least sure block."""
        known = np.flatnonzero(self.shape >= 0)
        for value, nodes in _groups(known, 2 * self.shape[known].astype(np.int64) + (self.count[known] > 1)):
            shape = self.shapes[value // 2]
            label = shape.label.replace(" (", "[] (", 1) if shape.is_struct and value % 2 else shape.label
            is_sure = bool((self.step[nodes] <= _POINTEE).all())
            yield label, Trust.DERIVED if is_sure else Trust.GUESS, shape.is_struct, nodes


def declared_types(
    memory: MappedMemory, graph: PointerGraph, shapes: DeclaredShapes, names: Sequence[tuple[str, bool]],
    number: NDArray[np.integer[Any]],
) -> DeclaredTypes:  # fmt: skip
    """What PDBs declare of all nodes whose class is not known.

    `names`: (label, True for objects) of each type that is known so far; `number`: (n,) index in it of each node.
    """
    objects = np.flatnonzero(np.array([is_object for _, is_object in names], bool)[number])
    search = _Search(memory, graph, shapes)
    search.shape[objects] = _TAKEN
    search.follow_variables()
    for value, nodes in _groups(objects, number[objects].astype(np.int64)):
        shape = shapes.of_label(names[value][0])
        if shape is not None:
            same_size = nodes[graph.size[nodes] == shapes[shape].size]
            search.expand(shape, graph.start[same_size], np.ones(len(same_size), np.int64), _POINTEE)
    search.run()
    return DeclaredTypes(search.shape, search.count, search.step, shapes)


def _groups(nodes: NDArray[np.int64], keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(key, its nodes, ascending), by ascending key."""
    order = np.argsort(keys, kind="stable")
    values, firsts = np.unique(keys[order], return_index=True)
    ends = [*firsts[1:].tolist(), len(keys)]
    for value, first, end in zip(values.tolist(), firsts.tolist(), ends[: len(values)], strict=True):
        yield value, nodes[order[first:end]]


class _Search:
    """The nodes that were found, breadth first."""

    def __init__(self, memory: MappedMemory, graph: PointerGraph, shapes: DeclaredShapes) -> None:
        self._memory, self._graph, self._shapes = memory, graph, shapes
        self.shape = np.full(len(graph), _NONE, np.int32)
        self.count = np.zeros(len(graph), np.int64)
        self.step = np.zeros(len(graph), np.uint8)
        self._new: list[NDArray[np.int64]] = []
        self._before = np.zeros(len(graph), np.uint8)
        self._table: list[tuple[int, bool, bool]] = []
        self._low = int(graph.start[0]) if len(graph) else 0
        self._high = int(graph.start[-1]) + max(1, int(graph.size[-1])) if len(graph) else 0

    def follow_variables(self) -> None:
        """Follows the pointers in variables."""
        roots = np.array(self._shapes.roots, np.int64).reshape(-1, 3)
        for width in (4, 8):
            of_width = np.array([self._shapes.width(module) == width for module in roots[:, 2].tolist()], bool)
            self.follow(roots[of_width, 0], roots[of_width, 1], width, _VARIABLE)

    def follow(self, places: NDArray[np.int64], numbers: NDArray[np.int64], width: int, step: int) -> None:
        """Gives the blocks that pointers at `places` lead to their shapes, where the sizes fit."""
        words, _ = self._memory.gather(places.astype(np.uint64), width)
        near = np.flatnonzero((words >= np.uint64(self._low)) & (words < np.uint64(self._high)))
        near = near[np.argsort(words[near], kind="stable")]  # then the search is several times as fast
        nodes = self._graph.nodes.find(words[near])
        inside_any = nodes >= 0
        nodes, near = nodes[inside_any], near[inside_any]
        numbers = numbers[near]
        inside = words[near].astype(np.int64) - self._graph.start[nodes]
        sizes, is_class, is_struct = (column[numbers] for column in self._facts())
        room = self._graph.size[nodes].astype(np.int64) - inside
        count = room // sizes
        fits = (count > 0) & (count * sizes == room) & ~is_class & (self.shape[nodes] == _NONE)
        fits &= inside == 0
        counted = np.flatnonzero(is_struct & (inside == width) & ~is_class & (count * sizes == room))
        fits[counted] = (self.shape[nodes[counted]] == _NONE) & self._counts(nodes[counted], count[counted], width)
        rows = np.flatnonzero(fits)
        rows = rows[np.flatnonzero(np.diff(nodes[rows], prepend=-1))]  # nodes ascend
        nodes = nodes[rows]
        self.shape[nodes], self.count[nodes] = numbers[rows], count[rows]
        is_sure = (count[rows] == 1) & is_struct[rows] & (step == _VARIABLE)
        self.step[nodes] = np.where(is_sure, _POINTEE, _BEHIND)
        self._before[nodes] = inside[rows]
        self._new.append(nodes)

    def _facts(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
        """(bytes of one element, True for classes with virtual functions, True for structures) of all shapes so far."""
        for number in range(len(self._table), len(self._shapes)):
            shape = self._shapes[number]
            self._table.append((shape.size, self._shapes.has_functions(number), shape.is_struct))
        columns = np.array(self._table, np.int64).reshape(-1, 3).T
        return columns[0], columns[1] != 0, columns[2] != 0

    def _counts(self, nodes: NDArray[np.int64], count: NDArray[np.integer[Any]], width: int) -> NDArray[np.bool_]:
        """True where the block begins with that number: `new Foo[n]` keeps it before elements with a destructor."""
        words, is_present = self._memory.gather(self._graph.start[nodes].astype(np.uint64), width)
        same: NDArray[np.bool_] = is_present & (words.astype(np.int64) == count)
        return same

    def run(self) -> None:
        """Follows the pointers of all that was found, until nothing new is found or the steps are used up."""
        for number in range(_MOST_STEPS):
            nodes = np.concatenate([np.empty(0, np.int64), *self._new])
            self._new = []
            if not len(nodes):
                return
            is_chain = len(nodes) <= _FEW_CHAINS or number > _MOST_LEVELS  # a tree doubles with every step
            if is_chain and number % _CHAIN_STEPS == _CHAIN_STEPS - 1:
                nodes = np.concatenate([nodes, *map(self._chained, np.unique(self.shape[nodes]).tolist())])
            for low in range(0, len(nodes), _BATCH):
                self._expand_nodes(nodes[low : low + _BATCH])

    def _expand_nodes(self, nodes: NDArray[np.int64]) -> None:
        shapes = self.shape[nodes]
        for shape in np.flatnonzero(np.bincount(shapes)).tolist():
            of_shape = nodes[shapes == shape]
            start = self._graph.start[of_shape] + self._before[of_shape]
            self.expand(shape, start, self.count[of_shape], _BEHIND)

    def expand(self, shape: int, start: NDArray[np.int64], count: NDArray[np.int64], step: int) -> None:
        """Follows the pointers of `count` elements of a shape from the addresses `start` on."""
        fields = np.array(self._shapes.fields(shape), np.int64).reshape(-1, 2)
        if not len(fields):
            return
        one = self._shapes[shape]
        elements = start
        if (count > 1).any():
            total = np.repeat(np.cumsum(count) - count, count)
            elements = np.repeat(start, count) + (np.arange(len(total)) - total) * one.size
        for low in range(0, len(elements), _BATCH):
            places = elements[low : low + _BATCH, None] + fields[:, 0]
            numbers = np.broadcast_to(fields[:, 1], places.shape)
            self.follow(places.reshape(-1), numbers.reshape(-1), self._shapes.width(one.module), step)

    def _chained(self, shape: int) -> NDArray[np.int64]:
        """The nodes of a shape that chains of pointers to its own kind lead to.

        A list is as long as it has elements. Each round doubles the length of the chains that were followed.
        """
        one = self._shapes[shape]
        links = [offset for offset, target in self._shapes.fields(shape) if target == shape]
        may_be = (self.shape == shape) | (self.shape == _NONE)
        nodes = np.flatnonzero(may_be & (self._graph.size == one.size)) if links and one.is_struct else np.empty(0, int)
        reached = self.shape[nodes] == shape
        known = reached.copy()
        for offset in links:
            target = self._targets(nodes, offset, self._shapes.width(one.module))
            for _ in range(max(1, len(nodes)).bit_length()):
                reached[target[reached & (target >= 0)]] = True
                target = np.where(target >= 0, target[target], _NONE)
        found: NDArray[np.int64] = nodes[reached & ~known]
        self.shape[found], self.count[found], self.step[found] = shape, 1, _BEHIND
        return found

    def _targets(self, nodes: NDArray[np.int64], offset: int, width: int) -> NDArray[np.int64]:
        """The place among `nodes`, ascending, of the node that the pointer at an offset of each leads to; else -1."""
        starts = self._graph.start[nodes]
        words, _ = self._memory.gather((starts + offset).astype(np.uint64), width)
        found = np.full(len(nodes), _NONE, np.int64)
        order = np.argsort(words, kind="stable")  # then the search is several times as fast
        ascending = words[order].astype(np.int64)
        place = np.minimum(np.searchsorted(starts, ascending), max(0, len(starts) - 1))
        is_start = starts[place] == ascending
        found[order[is_start]] = place[is_start]
        return found
