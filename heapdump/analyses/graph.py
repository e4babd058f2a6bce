"""The pointer graph: which busy block of the program points to which, and what roots point to.

Blocks are sources with their requested bytes only; CRT debug blocks with the bytes behind the CRT's own header, whose
links would hold all of them. Free blocks, bytes behind the requested ones, and the allocators' own memory are no sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.pointer_map import PointerMap, pointer_map, usable
from heapdump.analyses.roots import Area, Roots
from heapdump.analyses.sweep import Edges, Sources, Sweeper
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.records import Heap
from heapdump.blocks.table import BUSY, INTERNAL, BlockTable
from heapdump.kernels import run
from heapdump.kernels.walk import count_targets, invert
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process


@dataclass(frozen=True)
class PointerGraph:
    """Nodes are the program's busy blocks, ascending by address; n of them.

    `rows` (n,) int64: of the block table. `start`, `size` (n,) int64: the bytes of the program; `widths` (n,) uint8: of
    the pointers in them. `edges`: of every node; `root_edges`: of every area of `roots`. `missing_bytes`: of nodes that
    the dump does not hold.
    """

    rows: NDArray[np.int64]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    widths: NDArray[np.uint8]
    edges: Edges
    roots: Roots
    root_edges: Edges
    missing_bytes: int

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.rows)

    @cached_property
    def first(self) -> NDArray[np.int64]:
        """Where in `edges.targets` each node's begin; (n + 1,) int64."""
        return self.edges.first

    @cached_property
    def nodes(self) -> PointerMap:
        """For looking up addresses by `find`."""
        empty = np.empty(0, np.int32)
        return PointerMap(self.start, np.maximum(self.size, 1), 0, empty, empty, np.empty(0, np.int64))

    @cached_property
    def register_targets(self) -> NDArray[np.int64]:
        """The node that each register of the roots points into, or -1; (registers,) int64."""
        return self.nodes.find(np.array([register.value for register in self.roots.registers], np.uint64))

    def root_targets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(nodes whose start a strong root holds, nodes that roots hold otherwise); each ascending, no duplicates."""
        targets = self.root_edges.targets.astype(np.int64)
        weak = np.repeat(np.array([area.is_weak for area in self.roots.areas], bool), self.root_edges.degree)
        held = self.register_targets
        values = np.array([register.value for register in self.roots.registers], np.uint64).astype(np.int64)
        whole = (held >= 0) & (values == self.start[held]) if len(self) else np.zeros(len(held), bool)
        sure = np.concatenate([targets[(targets >= 0) & ~weak], held[whole]])
        perhaps = np.concatenate([np.where(targets < 0, -1 - targets, targets)[(targets < 0) | weak], held[(held >= 0) & ~whole]])
        return np.unique(sure), np.unique(perhaps)

    @cached_property
    def referrers(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """(first, sources): who points to each node, ascending; -1 - source for a pointer to its inside. Like `edges`."""
        count, targets = np.zeros(len(self), np.int64), self.edges.targets
        run(count_targets, len(targets), targets, count)
        first = np.zeros(len(self) + 1, np.int64)
        np.cumsum(count, out=first[1:])
        sources = np.empty(len(targets), np.int32)
        run(invert, len(targets), self.first, targets, first[:-1].copy(), sources)
        return first, sources


def program_rows(table: BlockTable) -> NDArray[np.int64]:
    """The rows of the program's busy blocks, ascending by address."""
    rows = np.flatnonzero((table.tags & np.uint16(BUSY | INTERNAL)) == BUSY)
    address = table.address[rows]
    if len(rows) > 1 and (address[1:] < address[:-1]).any():
        order = np.argsort(address, kind="stable")
        rows, address = rows[order], address[order]
    return rows[usable(address, table.size[rows])]


def build_graph(
    process: Process, heaps: tuple[Heap, ...], table: BlockTable, roots: Roots,
    crt: Callable[[NDArray[np.int64]], CrtBlocks], *, unaligned: bool = False,
) -> PointerGraph:  # fmt: skip
    """Sweeps all blocks and roots. `crt`: finds CRT debug blocks among rows. `unaligned`: pointers at any byte count."""
    rows = program_rows(table)
    start, size = table.address[rows].astype(np.int64), table.size[rows].astype(np.int64)
    found = crt(rows)
    if len(found):
        order = np.argsort(rows, kind="stable")
        place = order[np.searchsorted(rows, found.row, sorter=order)]
        start[place], size[place] = found.user.astype(np.int64), found.size
    nodes = pointer_map(start, size)
    size = np.minimum(size, nodes.size)
    sweeper = Sweeper(process.space, nodes, unaligned=unaligned)
    of_heap = np.array([next(v.pointer_bytes for v in process.views if v.arch == heap.view) for heap in heaps], np.uint8)
    widths = of_heap[table.heap[rows]]
    edges = _by_width(sweeper, start, size, widths)
    root_start = np.array([area.span.start for area in roots.areas], np.int64)
    root_size = np.array([area.span.size for area in roots.areas], np.int64)
    root_edges = _by_width(sweeper, root_start, root_size, np.array([area.width for area in roots.areas], np.uint8))
    return PointerGraph(rows, start, size, widths, edges, roots, root_edges, _missing(process.space, start, size))


def _by_width(sweeper: Sweeper, start: NDArray[np.int64], size: NDArray[np.int64], widths: NDArray[np.uint8]) -> Edges:
    """The edges of sources that have pointers of `widths` bytes, in their order."""
    if len(widths) and widths.min() == widths.max():
        return sweeper.edges(Sources(start, size, int(widths[0])))
    degree, owners, targets = np.zeros(len(start), np.int32), [np.empty(0, np.int64)], [np.empty(0, np.int32)]
    for width in np.unique(widths).tolist():
        mine = np.flatnonzero(widths == width)
        found = sweeper.edges(Sources(start[mine], size[mine], width))
        degree[mine] = found.degree
        owners.append(np.repeat(mine, found.degree))
        targets.append(found.targets)
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Edges(degree, np.concatenate(targets)[order])


def _missing(space: AddressSpace, start: NDArray[np.int64], size: NDArray[np.int64]) -> int:
    low = start.astype(np.uint64)
    present = space.bytes_present(low, low + size.astype(np.uint64))
    return int(size.sum()) - int(present.sum())


def areas_of(graph: PointerGraph, node: int) -> list[Area]:
    """The areas of roots that point into a node."""
    targets = graph.root_edges.targets
    places = np.flatnonzero((targets == node) | (targets == -1 - node))
    return [graph.roots.areas[i] for i in np.unique(np.searchsorted(graph.root_edges.first, places, side="right") - 1).tolist()]
