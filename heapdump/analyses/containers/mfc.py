"""Lists and maps of MFC (`CObList`, `CPtrList`, `CStringList`, `CList`, `CMap` and its relatives).

    list   { vtable; first; last; elements; free; blocks; elements of a block }      element { next; previous; value }
    map    { vtable; buckets; number of buckets, 4 bytes; elements; free; blocks; elements of a block }
    block  { next block; elements }

Source: `afxcoll.h`, `afxtempl.h`, `afxplex_.h` (`CPlex`). Witnesses: the first word leads into a module; the blocks
form a chain that ends, all of one size, which is that of so many elements and a link; of a list the first element has
none before it, the last one none behind it; of a map the buckets fill their block; first, last and all buckets lead to
elements of these blocks, which have room for as many as are counted.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.node_roles import NodeKind, ProvenContainers, Role
from heapdump.analyses.containers.shapes import ShapeReader, Shapes
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.kernels import container_shapes
from heapdump.memory.mapped import MappedMemory
from heapdump.process.model import Process

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]
_MOST_BLOCKS = 1 << 16
_VTABLE, _FIRST, _SECOND, _COUNT, _OF_BLOCK = -5, -4, -3, -2, 1
"""Words of a list or a map, counted from its pointer to the blocks."""


def find_mfc(process: Process, graph: PointerGraph, shapes: Shapes) -> Iterator[ProvenContainers]:
    """The lists and the maps among the candidates of one width of pointers."""
    memory = process.space.mapped
    found = shapes.of(container_shapes.PLEXES)
    reader = ShapeReader(memory, graph, found)
    found = found.take(process.in_modules(reader.word(_VTABLE).astype(np.uint64)))
    reader = ShapeReader(memory, graph, found)
    number, _ = memory.gather(reader.at(_SECOND).astype(np.uint64), 4)
    buckets = reader.nodes(reader.word(_FIRST))
    is_map = (buckets >= 0) & (number > 0) & (graph.size[buckets] == number.astype(np.int64) * reader.width)
    yield _lists(_Plexes(memory, graph, found.take(~is_map)))
    yield _maps(_Plexes(memory, graph, found.take(is_map)), buckets[is_map])


class _Plexes:
    """Candidates whose blocks form a chain.

    Attributes:
        found: the candidates.
        reader: of their words.
        of, blocks: (m,) candidate of each block, ascending, and the block.
        element: (k,) bytes of an element.
        good: (k,) True where the blocks are of one size and have room for the elements.
    """

    def __init__(self, memory: MappedMemory, graph: PointerGraph, found: Shapes) -> None:
        """`found`: all of these have pointers of one width."""
        self.found, self.graph = found, graph
        self.reader = reader = ShapeReader(memory, graph, found)
        many = np.maximum(reader.word(_OF_BLOCK), 1)
        size = graph.size[found.block].astype(np.int64)
        self.element, self._header = np.zeros(len(found), np.int64), np.zeros(len(found), np.int64)
        for header in (8, 16) if reader.width == 8 else (8, 4):  # the usual one last
            each, rest = np.divmod(size - header, many)
            fits = (rest == 0) & (each >= 2 * reader.width) & (each % (reader.width // 2) == 0)
            self.element[fits], self._header[fits] = each[fits], header
        self.good = self.element > 0
        self.of, self.blocks = self._chain(size)
        self.count = reader.word(_COUNT)
        self.good &= (self.count >= 1) & (self.count <= np.bincount(self.of, minlength=len(found)) * many)
        self._order = np.argsort(graph.start[self.blocks], kind="stable")
        self._starts = graph.start[self.blocks][self._order]

    def _chain(self, size: Numbers) -> tuple[Numbers, Numbers]:
        """(candidate, block) of all blocks; candidates with a broken chain are no longer good."""
        graph, reader = self.graph, self.reader
        of, block = np.arange(len(size)), self.found.block
        owners, blocks = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        seen = np.zeros(len(graph), bool)
        for _ in range(_MOST_BLOCKS):
            same = self.good[of] & (graph.size[block] == size[of]) & ~seen[block]
            _, first = np.unique(block, return_index=True)
            is_first = np.zeros(len(block), bool)
            is_first[first] = True
            same &= is_first
            self.good[of[~same]] = False
            of, block = of[same], block[same]
            if not len(of):
                break
            seen[block] = True
            owners.append(of)
            blocks.append(block)
            following = reader.value(graph.start[block])
            node = reader.nodes(following)
            self.good[of[(following != 0) & (node < 0)]] = False
            of, block = of[node >= 0], node[node >= 0]
        self.good[of] = False
        return np.concatenate(owners), np.concatenate(blocks)

    def are_elements(self, of: Numbers, address: Numbers) -> Mask:
        """True for addresses of elements in the blocks of their candidate."""
        if not len(self._starts):
            return np.zeros(len(address), bool)
        place = self._order[np.maximum(np.searchsorted(self._starts, address, side="right") - 1, 0)]
        inside = address - self.graph.start[self.blocks[place]] - self._header[of]
        size = self.graph.size[self.blocks[place]].astype(np.int64) - self._header[of]
        element = np.maximum(self.element[of], 1)
        good: Mask = (self.of[place] == of) & (inside >= 0) & (inside < size) & (inside % element == 0)
        return good

    def proven(self, good: Mask, kind: NodeKind, more: Numbers) -> ProvenContainers:
        """The good ones. `more`: of each another block, the buckets; none for lists."""
        rows, number = np.flatnonzero(good), np.cumsum(good) - 1
        is_good = good[self.of]
        members = [self.blocks[is_good], more[rows] if len(more) else more]
        of = np.concatenate([number[self.of[is_good]], np.arange(len(members[1]))])
        role = np.repeat(np.array([Role.BLOCK, Role.BUCKETS], np.uint8), [len(one) for one in members])
        offset = self.found.offset[rows] + _VTABLE * self.reader.width
        return ProvenContainers(
            self.found.owner[rows], offset, kind, self.found.block[rows], self.count[rows], np.concatenate(members), of,
            role,
        )  # fmt: skip


def _lists(plexes: _Plexes) -> ProvenContainers:
    reader, of = plexes.reader, np.arange(len(plexes.found))
    first, last = reader.word(_FIRST), reader.word(_SECOND)
    good = plexes.good & plexes.are_elements(of, first) & plexes.are_elements(of, last)
    good &= (reader.value(first + reader.width) == 0) & (reader.value(last) == 0)
    good &= (plexes.count > 1) == (first != last)
    following, before = reader.value(first), reader.value(last + reader.width)
    several = plexes.count > 1
    good &= ~several | (plexes.are_elements(of, following) & plexes.are_elements(of, before))
    return plexes.proven(good, NodeKind.MFC_LIST, np.empty(0, np.int64))


def _maps(plexes: _Plexes, buckets: Numbers) -> ProvenContainers:
    reader, graph = plexes.reader, plexes.graph
    many = graph.size[buckets].astype(np.int64) // reader.width
    of = np.repeat(np.arange(len(many)), many)
    number = np.arange(len(of)) - np.repeat(np.cumsum(many) - many, many)
    value = reader.value(graph.start[buckets[of]] + number * reader.width)
    of, value = of[value != 0], value[value != 0]
    good = plexes.good & (np.bincount(of, minlength=len(many)) <= plexes.count)
    good &= np.bincount(of, minlength=len(many)) >= 1
    good[of[~plexes.are_elements(of, value)]] = False
    _, place, times = np.unique(value, return_index=True, return_counts=True)
    good[of[place[times > 1]]] = False
    return plexes.proven(good, NodeKind.MFC_MAP, buckets)
