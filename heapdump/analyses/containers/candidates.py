"""Places in blocks and in module data that may be a container with one buffer, and the words that decide about it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.containers.flags import ContainerFlags
from heapdump.analyses.graph.node_places import Integers
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.types.members import Container, ContainerTable, addresses_of, module_areas, source_words
from heapdump.kernels import run
from heapdump.kernels.container_flags import COUNTED
from heapdump.kernels.counted_members import counted_of
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
_ROOM = 1 << 16
_MOST_A_BLOCK = 4
_COLUMNS = 6


@dataclass(frozen=True)
class Candidates:
    """k candidates, (k,) int64 each, with the memory that they lie in.

    Attributes:
        memory: of the process.
        graph: the pointer graph.
        owner: the node of the graph, -1 - area of a root.
        offset: bytes from the start of the owner to the container.
        kind: one of `kernels.counted_members`.
        block: the node that its pointer leads to.
        used: elements in use, as far as words of the owner say it.
        held: elements in all, likewise.
    """

    memory: MappedMemory
    graph: PointerGraph
    owner: Numbers
    offset: Numbers
    kind: Numbers
    block: Numbers
    used: Numbers
    held: Numbers

    def __len__(self) -> int:
        """The number of candidates."""
        return len(self.owner)

    @property
    def width(self) -> int:
        """Bytes of a pointer of all of them; 8 for none."""
        return int(self.graph.widths[self.block[0]]) if len(self) else 8

    @property
    def start(self) -> Numbers:
        """Address of each block."""
        return self.graph.start[self.block]

    @property
    def size(self) -> Numbers:
        """Bytes of each block."""
        return self.graph.size[self.block].astype(np.int64)

    def take(self, rows: Numbers | NDArray[np.bool_]) -> Candidates:
        """Some of them."""
        columns = (self.owner, self.offset, self.kind, self.block, self.used, self.held)
        return Candidates(self.memory, self.graph, *(column[rows] for column in columns))

    def of(self, *kinds: int) -> Candidates:
        """Those of some kinds, the first ones of each block."""
        selected = self.take(np.isin(self.kind, kinds))
        order = np.argsort(selected.block, kind="stable")
        block = selected.block[order]
        rank = np.arange(len(block)) - np.searchsorted(block, block)
        return selected.take(np.sort(order[rank < _MOST_A_BLOCK]))

    def value(self, address: Numbers, size: int = 0) -> Numbers:
        """The unsigned integers of `size` bytes, of a pointer for 0, at addresses; 0 where the dump lacks one."""
        return self.memory.gather(address.astype(np.uint64), size or self.width)[0].astype(np.int64)

    def word(self, number: int) -> Numbers:
        """A word of each candidate, counted from its offset."""
        return self.value(addresses_of(self.graph, self.owner, self.offset).astype(np.int64) + number * self.width)

    def table(self, kind: Container | Numbers, used: Numbers, capacity: Numbers) -> ContainerTable:
        """All of them as containers; `used`, `capacity` in bytes."""
        kinds = np.broadcast_to(np.asarray(kind, np.uint8), (len(self),)).copy()
        return ContainerTable(self.owner, self.offset, kinds, self.block, used, capacity)


def search_candidates(memory: MappedMemory, graph: PointerGraph, flags: ContainerFlags) -> Candidates:
    """The candidates, those in blocks first. `flags`: of the nodes."""
    found = [np.empty((0, _COLUMNS), np.int64)]
    found += _search(memory, graph, graph.edges, ((graph.start, graph.size, graph.widths), None), flags)
    areas, bounds = module_areas(graph)
    for rows in _search(memory, graph, graph.root_edges, (bounds, areas), flags):
        rows[:, 0] = -1 - rows[:, 0]
        found.append(rows)
    return Candidates(memory, graph, *np.concatenate(found).T.copy())


def _search(
    memory: MappedMemory, graph: PointerGraph, edges: Edges,
    sources: tuple[tuple[Numbers, Integers, NDArray[np.uint8]], Numbers | None], flags: ContainerFlags,
) -> list[Numbers]:  # fmt: skip
    """The candidates of some sources, piece by piece. `sources`: their bounds and numbers."""
    found = []
    wanted = flags.wanted if edges is graph.edges else None
    for words, width, places in source_words(memory, edges, *sources, flags=(wanted, COUNTED)):
        k, degree = 0, edges.first[places[1] + 1] - edges.first[places[1]]
        rows = np.empty((5 * max(_ROOM, int(degree.max(initial=0))) + 5, _COLUMNS), np.int64)
        while k < len(places[0]):
            many, k = run(
                counted_of, len(graph), words, -1 if width == 8 else 0xFFFFFFFF, width, *places, k, edges.first,
                edges.targets, graph.start, graph.size, flags.header, rows,
            )  # fmt: skip
            found.append(rows[:many][graph.widths[rows[:many, 3]] == width])
    return found
