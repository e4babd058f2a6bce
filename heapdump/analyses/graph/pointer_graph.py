"""The pointer graph: which busy block of the program points to which, and what roots point to.

Blocks are sources with their requested bytes only; CRT debug blocks with the bytes behind the CRT's own header, whose
links would hold all of them. Free blocks, bytes behind the requested ones, and the allocators' own memory are no sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_map import TOP, Integers, PointerMap, pointer_map
from heapdump.analyses.graph.roots import Area, Roots
from heapdump.analyses.graph.sweep import Edges, Sources, Sweeper
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BUSY, INTERNAL, BlockTable
from heapdump.kernels import run
from heapdump.kernels.pointer_map import take, thin
from heapdump.kernels.reach import count_targets, invert
from heapdump.process.model import Process

_SAMPLE = 1 << 13


@dataclass(frozen=True)
class PointerGraph:
    """Nodes are the program's busy blocks, ascending by address; n of them.

    `rows` (n,) int32: of the block table. `start` (n,) int64, `size` (n,): the bytes of the program; `widths` (n,) uint8: of
    the pointers in them. `edges`: of every node; `root_edges`: of every area of `roots`. `missing_bytes`: of nodes that
    the dump does not hold.
    """

    rows: NDArray[np.int32]
    start: NDArray[np.int64]
    size: Integers
    widths: NDArray[np.uint8]
    edges: Edges
    roots: Roots
    root_edges: Edges
    missing_bytes: int

    def __len__(self) -> int:
        """The number of nodes."""
        return len(self.rows)

    @property
    def first(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Where in `edges.targets` each node's begin; (n + 1,)."""
        return self.edges.first

    @cached_property
    def nodes(self) -> PointerMap:
        """For looking up addresses by `find`."""
        empty = np.empty(0, np.int32)
        return PointerMap(self.start, self.size, 0, empty, empty, np.empty(0, np.int64))

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
        perhaps = np.concatenate(
            [np.where(targets < 0, -1 - targets, targets)[(targets < 0) | weak], held[(held >= 0) & ~whole]]
        )
        return np.unique(sure), np.unique(perhaps)


@dataclass(frozen=True)
class Referrers:
    """Who points to each node, ascending: `sources[first[node]:first[node + 1]]`, -1 - source for a pointer to its inside."""

    first: NDArray[np.int32] | NDArray[np.int64]
    sources: NDArray[np.int32]


def referrers_of(graph: PointerGraph) -> Referrers:
    """The edges of a graph backwards."""
    targets = graph.edges.targets
    kind: type[np.int32 | np.int64] = np.int32 if len(targets) < 1 << 31 else np.int64
    first: NDArray[Any] = np.zeros(len(graph) + 1, kind)
    run(count_targets, len(targets), targets, first[1:])
    np.cumsum(first, out=first)
    sources = np.empty(len(targets), np.int32)
    run(invert, len(targets), graph.first, targets, first[:-1].copy(), sources)
    return Referrers(first, sources)


def referrers_to_columns(referrers: Referrers) -> dict[str, NDArray[Any]]:
    """The referrers as columns, which `referrers_from` reads."""
    return {"first": referrers.first, "sources": referrers.sources}


def referrers_from(columns: dict[str, NDArray[Any]]) -> Referrers:
    """The referrers that `referrers_to_columns` wrote."""
    return Referrers(columns["first"], columns["sources"])


def program_blocks(table: BlockTable) -> tuple[NDArray[np.int32], NDArray[np.int64], Integers]:
    """(rows int32, address int64, requested bytes) of the program's busy blocks, ascending by address and disjoint."""
    columns: list[NDArray[Any]] = [table.entry, table.size8, table.unused, table.header8, table.tags]
    is_short = len(table) == 0 or int(table.size8.max()) < 1 << 28
    rows, start = np.empty(len(table), np.int32), np.empty(len(table), np.int64)
    size: Integers = np.empty(len(table), np.int32 if is_short else np.int64)
    order = None
    count = run(
        take, len(table), columns[0].view(np.int64), *columns[1:], BUSY | INTERNAL, BUSY, TOP, rows, start, size
    )
    if count < 0:  # heaps over each other: damage
        order = np.argsort(table.address, kind="stable")
        columns = [column[order] for column in columns]
        count = run(
            take, len(table), columns[0].view(np.int64), *columns[1:], BUSY | INTERNAL, BUSY, TOP, rows, start, size
        )
    rows = rows[:count] if order is None else order[rows[:count]].astype(np.int32)
    return rows, start[:count], size[:count]


def build_graph(
    process: Process, heaps: tuple[Heap, ...], table: BlockTable, roots: Roots,
    crt: Callable[[NDArray[np.int64]], CrtBlocks], *, unaligned: bool = False,
) -> PointerGraph:  # fmt: skip
    """Sweeps all blocks and roots. `crt`: finds CRT debug blocks among rows. `unaligned`: pointers at any byte count."""
    rows, start, size = program_blocks(table)
    _without_crt_headers(rows, start, size, table, crt)
    nodes = pointer_map(start, size)
    sweeper = Sweeper(process.space, nodes, unaligned=unaligned)
    of_heap = np.array(
        [next(v.pointer_bytes for v in process.views if v.arch == heap.view) for heap in heaps], np.uint8
    )
    alike = len(of_heap) and of_heap.min() == of_heap.max()
    widths = np.broadcast_to(of_heap[0], len(rows)) if alike else of_heap[table.heap[rows]]
    edges = _by_width(sweeper, start, size, widths)
    root_start = np.array([area.span.start for area in roots.areas], np.int64)
    root_size = np.array([area.span.size for area in roots.areas], np.int64)
    root_edges = _by_width(sweeper, root_start, root_size, np.array([area.width for area in roots.areas], np.uint8))
    return PointerGraph(rows, start, size, widths, edges, roots, root_edges, int(size.sum(dtype=np.int64)) - edges.held)


def _without_crt_headers(
    rows: NDArray[np.int32],
    start: NDArray[np.int64],
    size: Integers,
    table: BlockTable,
    crt: Callable[[NDArray[np.int64]], CrtBlocks],
) -> None:
    """Makes CRT debug blocks begin behind their header; a heap with none among many thousands is taken to have none."""
    heaps = int(table.heap.max()) + 1 if len(rows) else 0
    counts, places = np.zeros(heaps, np.int64), np.empty(len(rows), np.int64)
    many = run(thin, len(rows), rows, table.heap, _SAMPLE, counts, np.zeros(heaps, np.int64), places)
    found = crt(np.sort(rows[places[:many]]).astype(np.int64))
    for heap in np.unique(table.heap[found.row]).tolist():
        mine = np.flatnonzero(table.heap[rows] == heap)
        found = crt(np.sort(rows[mine]).astype(np.int64))
        order = mine[np.argsort(rows[mine], kind="stable")]
        place = order[np.searchsorted(rows[order], found.row)]
        start[place], size[place] = found.user.astype(np.int64), found.size


def _by_width(sweeper: Sweeper, start: NDArray[np.int64], size: Integers, widths: NDArray[np.uint8]) -> Edges:
    """The edges of sources that have pointers of `widths` bytes, in their order."""
    if len(widths) and widths.min() == widths.max():
        return sweeper.edges(Sources(start, size, int(widths[0])))
    degree, owners, found = (
        np.zeros(len(start), np.int32),
        [np.empty(0, np.int64)],
        [Edges.of(np.empty(0, np.int32), np.empty(0, np.int32))],
    )
    for width in np.unique(widths).tolist():
        mine = np.flatnonzero(widths == width)
        found.append(sweeper.edges(Sources(start[mine], size[mine], width)))
        degree[mine] = found[-1].degree
        owners.append(np.repeat(mine, found[-1].degree))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Edges.of(
        degree, np.concatenate([edges.targets for edges in found])[order], sum(edges.held for edges in found)
    )


def areas_of(graph: PointerGraph, node: int) -> list[Area]:
    """The areas of roots that point into a node."""
    targets = graph.root_edges.targets
    places = np.flatnonzero((targets == node) | (targets == -1 - node))
    return [
        graph.roots.areas[i]
        for i in np.unique(np.searchsorted(graph.root_edges.first, places, side="right") - 1).tolist()
    ]


_COLUMNS = ("rows", "start", "size", "widths")


def columns_of(graph: PointerGraph) -> dict[str, NDArray[Any]]:
    """What of a graph is kept: everything but its roots, whose areas tell whether they are still the same."""
    held = np.array([graph.edges.held, graph.root_edges.held, graph.missing_bytes], np.int64)
    return {
        **{name: getattr(graph, name) for name in _COLUMNS}, "first": graph.edges.first, "targets": graph.edges.targets,
        "root_first": graph.root_edges.first, "root_targets": graph.root_edges.targets, "held": held, "areas": _area_bounds(graph.roots),
    }  # fmt: skip


def from_columns(columns: dict[str, NDArray[Any]], roots: Roots) -> PointerGraph | None:
    """The graph that `columns_of` wrote; None where it was made with other roots."""
    if not np.array_equal(columns["areas"], _area_bounds(roots)):
        return None
    held, root_held, missing = columns["held"].tolist()
    edges, root_edges = (
        Edges(columns["first"], columns["targets"], held),
        Edges(columns["root_first"], columns["root_targets"], root_held),
    )
    rows, start, size, widths = (columns[name] for name in _COLUMNS)
    return PointerGraph(rows, start, size, widths, edges, roots, root_edges, missing)


def _area_bounds(roots: Roots) -> NDArray[np.int64]:
    return np.array([(area.span.start, area.span.end, area.width) for area in roots.areas], np.int64).reshape(-1)
