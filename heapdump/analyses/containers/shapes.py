"""Places in blocks and in module data whose words may be the head of a container of the C++ libraries.

In: the pointer graph. Out: `Shapes`, which the other files of this room prove or leave out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.flags import ContainerFlags
from heapdump.analyses.graph.node_places import Integers
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.types.members import addresses_of, module_areas, source_words
from heapdump.kernels import run
from heapdump.kernels.container_flags import SHAPES
from heapdump.kernels.container_shapes import shapes_of
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
_ROOM = 1 << 16
_FEWEST_POINTERS = 2
_MOST_A_BLOCK = 4


@dataclass(frozen=True)
class Shapes:
    """k candidates, (k,) int64 each.

    Attributes:
        owner: the node of the graph, -1 - area of a root.
        offset: bytes from the start of the owner to the first pointer.
        shape: one of `kernels.container_shapes`.
        block: the node that the first pointer leads to.
    """

    owner: Numbers
    offset: Numbers
    shape: Numbers
    block: Numbers

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.owner)

    def of(self, shape: int) -> Shapes:
        """Those of one shape."""
        return self.take(np.flatnonzero(self.shape == shape))

    def few_a_block(self) -> Shapes:
        """The first ones of each block, so that not more is read than a few times all blocks."""
        order = np.argsort(self.block, kind="stable")
        block = self.block[order]
        rank = np.arange(len(block)) - np.searchsorted(block, block)
        return self.take(np.sort(order[rank < _MOST_A_BLOCK]))

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Shapes:
        """Some of them."""
        return Shapes(self.owner[rows], self.offset[rows], self.shape[rows], self.block[rows])


class ShapeReader:
    """The words of candidates and of nodes."""

    def __init__(self, memory: MappedMemory, graph: PointerGraph, shapes: Shapes) -> None:
        """`shapes`: all of these have pointers of one width."""
        self.memory, self.graph = memory, graph
        self.width = int(graph.widths[shapes.block[0]]) if len(shapes) else 8
        self._places = addresses_of(graph, shapes.owner, shapes.offset).astype(np.int64)

    def at(self, word: int) -> Numbers:
        """The address of a word of each candidate; word 0 is its first pointer."""
        return self._places + word * self.width

    def word(self, word: int) -> Numbers:
        """The value of a word of each candidate; 0 where it is not in the dump."""
        return self.value(self.at(word))

    def value(self, address: Numbers) -> Numbers:
        """The pointers at addresses; 0 where they are not in the dump."""
        return self.memory.gather(address.astype(np.uint64), self.width)[0].astype(np.int64)

    def nodes(self, address: Numbers) -> Numbers:
        """The nodes that start at addresses; -1 for none."""
        found = self.graph.nodes.find(address.astype(np.uint64))
        return np.where((found >= 0) & (self.graph.start[found] == address), found, -1)


def find_shapes(memory: MappedMemory, graph: PointerGraph, flags: ContainerFlags) -> Shapes:
    """The candidates, those in blocks first. `flags`: of the nodes."""
    found = [np.empty((0, 4), np.int64)]
    found += _search(memory, graph, graph.edges, ((graph.start, graph.size, graph.widths), None), flags.wanted)
    areas, bounds = module_areas(graph)
    for rows in _search(memory, graph, graph.root_edges, (bounds, areas)):
        rows[:, 0] = -1 - rows[:, 0]
        found.append(rows)
    memory.forget_all()
    return Shapes(*np.concatenate(found).T.copy())


def _search(
    memory: MappedMemory, graph: PointerGraph, edges: Edges,
    sources: tuple[tuple[Numbers, Integers, NDArray[np.uint8]], Numbers | None],
    wanted: NDArray[np.uint8] | None = None,
) -> list[Numbers]:  # fmt: skip
    """The candidates of some sources, piece by piece. `sources`: their bounds and numbers."""
    found = []
    flags = (wanted, SHAPES)
    for words, width, places in source_words(memory, edges, *sources, needs=(_FEWEST_POINTERS, 0), flags=flags):
        k, degree = 0, edges.first[places[1] + 1] - edges.first[places[1]]
        rows = np.empty((max(_ROOM, int(degree.max(initial=0))), 4), np.int64)
        while k < len(places[0]):
            many, k = run(
                shapes_of, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *places, k, edges.first,
                edges.targets, graph.start, graph.size, graph.first, graph.edges.targets, int(edges is graph.edges),
                rows,
            )  # fmt: skip
            found.append(rows[:many][graph.widths[rows[:many, 3]] == width])
    return found
