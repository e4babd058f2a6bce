"""The pointer graph: the pointers between busy blocks of the program, and from roots to them.

In: the block table and the roots. Out: `PointerGraph`. Pointers are searched in the requested bytes of busy blocks. Of
CRT debug blocks they are searched behind the CRT's header, whose list links would connect all of them. Free blocks,
unused bytes, and blocks of the allocators themselves are no sources.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump import memory_plan
from heapdump.analyses.graph.inner_starts import InnerStarts
from heapdump.analyses.graph.node_places import ArrayPlaces, Integers, Places, RowPlaces
from heapdump.analyses.graph.pointer_map import pointer_map
from heapdump.analyses.graph.program_blocks import (
    program_blocks,
    require_rows,
    rows_again,
    size_again,
    start_again,
)
from heapdump.analyses.graph.roots import Area, Roots
from heapdump.analyses.graph.sweep import Edges, Sources, Sweeper
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.heap import Heap
from heapdump.blocks.stored_checks import require_ascending, require_firsts, require_indices, require_length
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.reach import count_targets, invert
from heapdump.large_arrays import empty, zeros
from heapdump.process.model import Process
from heapdump.spans import Span


@dataclass(frozen=True)
class PointerGraph:
    """The pointers between the program's busy blocks. Its n nodes are these blocks, ascending by address, disjoint.

    Attributes:
        rows: (n,) int32 row of each node in the block table.
        start: (n,) int64 user address.
        size: (n,) int32 or int64 requested bytes.
        widths: (n,) uint8 bytes of a pointer in each node, 4 or 8.
        edges: pointers in each node.
        roots: registers and memory where the program can find pointers to its blocks.
        root_edges: pointers in each area of `roots`.
        missing_bytes: bytes of nodes that are not in the dump, and so were not searched.
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
        return len(self.widths)

    @property
    def follows_rows(self) -> bool:
        """True where `start` and `size` are those of the rows in the block table, up to the next block at most."""
        return False

    def forget_places(self) -> None:
        """Frees `start` and `size` where they can be made again; they are when they are asked for."""

    def starts(self, nodes: NDArray[np.integer] | slice) -> NDArray[np.int64]:
        """`start` of some nodes, (nodes,); makes no array of all nodes."""
        return self.start[nodes]

    def sizes(self, nodes: NDArray[np.integer] | slice) -> Integers:
        """`size` of some nodes, likewise."""
        return self.size[nodes]

    def span(self, node: int) -> Span:
        """The bytes of a node."""
        one = np.array([node])
        start = int(self.starts(one)[0])
        return Span(start, start + int(self.sizes(one)[0]))

    @property
    def first(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """The targets of node i are `edges.targets[first[i]:first[i + 1]]`; (n + 1,)."""
        return self.edges.first

    @cached_property
    def nodes(self) -> ArrayPlaces:
        """The places of all nodes."""
        return ArrayPlaces(self.start, self.size)

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(k,) int64 node of each of few addresses, -1 for none; makes no array of all nodes."""
        return self.nodes.find(addresses)

    @cached_property
    def register_targets(self) -> NDArray[np.int64]:
        """The node that each register of the roots points into, or -1; (registers,) int64."""
        return self.find(np.array([register.value for register in self.roots.registers], np.uint64))

    @cached_property
    def _registers_at_start(self) -> NDArray[np.bool_]:
        """True for registers that point to the start of a node; (registers,) bool."""
        values = np.array([register.value for register in self.roots.registers], np.uint64).astype(np.int64)
        inside = self.register_targets
        if not len(self):
            return np.zeros(len(inside), bool)
        is_start: NDArray[np.bool_] = (inside >= 0) & (values == self.starts(inside))
        return is_start

    def root_targets(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(nodes, other nodes) that roots point to: the first ones by a pointer to their start in a strong root.

        (k,) int64 each, ascending, no duplicates; a node can be in both. The others: by a pointer to their inside, or
        in a weak root.
        """
        targets = self.root_edges.targets.astype(np.int64)
        is_weak = np.repeat(np.array([area.is_weak for area in self.roots.areas], bool), self.root_edges.degree)
        in_register = self.register_targets
        is_start = self._registers_at_start
        strong = np.concatenate([targets[(targets >= 0) & ~is_weak], in_register[is_start]])
        others = targets[(targets < 0) | is_weak]
        inside = in_register[(in_register >= 0) & ~is_start]
        return np.unique(strong), np.unique(np.concatenate([np.where(others < 0, -1 - others, others), inside]))


@dataclass(frozen=True)
class _GraphOfRows(PointerGraph):
    """A graph whose nodes follow from a block table. Their columns are made where they are asked for and not there."""

    table: BlockTable

    @property
    def follows_rows(self) -> bool:
        """See `PointerGraph`."""
        return True

    def forget_places(self) -> None:
        """See `PointerGraph`."""
        for name in ("start", "size", "nodes"):
            self.__dict__.pop(name, None)

    def forget_rows(self) -> None:
        """Frees `rows`, likewise. Searches the registers first, which every question about roots needs."""
        self.root_targets()
        self.__dict__.pop("rows", None)

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """See `PointerGraph`."""
        return (RowPlaces(self.table, self.rows) if "start" not in self.__dict__ else self.nodes).find(addresses)

    def starts(self, nodes: NDArray[np.integer] | slice) -> NDArray[np.int64]:
        """See `PointerGraph`."""
        return RowPlaces(self.table, self.rows).starts(nodes) if "start" not in self.__dict__ else self.start[nodes]

    def sizes(self, nodes: NDArray[np.integer] | slice) -> Integers:
        """See `PointerGraph`."""
        return RowPlaces(self.table, self.rows).sizes(nodes) if "size" not in self.__dict__ else self.size[nodes]

    @cached_property  # type: ignore[misc]  # in the place of a field
    def rows(self) -> NDArray[np.int32]:
        """See `PointerGraph`."""
        return rows_again(self.table, len(self))

    @cached_property  # type: ignore[misc]
    def start(self) -> NDArray[np.int64]:
        """See `PointerGraph`."""
        return start_again(self.table, self.rows)

    @cached_property  # type: ignore[misc]
    def size(self) -> Integers:
        """See `PointerGraph`."""
        return size_again(self.table, self.rows)


@dataclass(frozen=True)
class Referrers:
    """The edges backwards: the nodes that point to node i are `sources[first[i]:first[i + 1]]`, ascending.

    Attributes:
        first: (n + 1,) int32 or int64.
        sources: (edges,) int32: a node that points to the start, or -1 - node for one that points to the inside.
    """

    first: NDArray[np.int32] | NDArray[np.int64]
    sources: NDArray[np.int32]


def referrers_of(graph: PointerGraph) -> Referrers:
    """The edges of a graph backwards, in O(edges)."""
    targets = graph.edges.targets
    kind: type[np.int32 | np.int64] = np.int32 if len(targets) < 1 << 31 else np.int64
    first: NDArray[Any] = zeros(len(graph) + 1, kind)
    run(count_targets, len(targets), targets, first[1:])
    np.cumsum(first, out=first)
    sources = empty(len(targets), np.int32)
    run(invert, len(targets), graph.first, targets, first[:-1].copy(), sources)
    return Referrers(first, sources)


def referrers_to_columns(referrers: Referrers) -> dict[str, NDArray[Any]]:
    """The referrers as columns, which `referrers_from` reads."""
    return {"first": referrers.first, "sources": referrers.sources}


def referrers_from(columns: dict[str, NDArray[Any]], nodes: int) -> Referrers:
    """The referrers that `referrers_to_columns` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, LookupError: they are not what it writes.
    """
    require_firsts(columns["first"], nodes, len(columns["sources"]), "referrers")
    require_indices(columns["sources"], -nodes, nodes, "referrers")
    return Referrers(columns["first"], columns["sources"])


def build_graph(
    process: Process, heaps: tuple[Heap, ...], table: BlockTable, roots: Roots,
    crt: Callable[[NDArray[np.int64]], CrtBlocks], *, unaligned: bool = False,
) -> PointerGraph:  # fmt: skip
    """Sweeps all blocks and roots. `crt`: rows → CRT debug blocks; `unaligned`: pointers may begin at any byte."""
    memory_plan.before("the pointer graph", len(table) * memory_plan.GRAPH_BYTES)
    blocks = program_blocks(table, crt)
    places, rows = blocks.places, blocks.rows
    nodes = pointer_map(places)
    sweeper = Sweeper(process.space.mapped, nodes, unaligned=unaligned, inner=InnerStarts(process, places))
    width_of_view = {view.arch: view.pointer_bytes for view in process.views}
    width_of_heap = np.array([width_of_view[heap.view] for heap in heaps], np.uint8)
    is_one_width = len(width_of_heap) and width_of_heap.min() == width_of_heap.max()
    widths = np.broadcast_to(width_of_heap[0], len(rows)) if is_one_width else width_of_heap[table.heap[rows]]
    edges = _by_width(sweeper, places, widths)
    root_start = np.array([area.span.start for area in roots.areas], np.int64)
    root_size = np.array([area.span.size for area in roots.areas], np.int64)
    root_widths = np.array([area.width for area in roots.areas], np.uint8)
    root_edges = _by_width(sweeper, ArrayPlaces(root_start, root_size), root_widths)
    found = (widths, edges, roots, root_edges, places.total_bytes - edges.present_bytes)
    if isinstance(places, ArrayPlaces):
        return PointerGraph(rows, places.start, places.size, *found)
    graph = _of_rows(rows, found, table)
    graph.forget_rows()
    return graph


def _of_rows(
    rows: NDArray[np.int32], columns: tuple[NDArray[np.uint8], Edges, Roots, Edges, int], table: BlockTable
) -> _GraphOfRows:
    """A graph without places. `columns`: those behind them."""
    graph = _GraphOfRows(rows, np.empty(0, np.int64), np.empty(0, np.int32), *columns, table)
    graph.forget_places()  # they are empty
    return graph


def _by_width(sweeper: Sweeper, places: Places, widths: NDArray[np.uint8]) -> Edges:
    """The edges of sources, in their order. `widths` (n,) uint8: bytes of a pointer in each source."""
    if len(widths) and widths.min() == widths.max():
        return sweeper.edges(Sources(places, int(widths[0])))
    degree, owners, found = (
        np.zeros(len(places), np.int32),
        [np.empty(0, np.int64)],
        [Edges.of(np.empty(0, np.int32), np.empty(0, np.int32))],
    )
    for width in np.unique(widths).tolist():
        nodes = np.flatnonzero(widths == width)
        found.append(sweeper.edges(Sources(ArrayPlaces(places.starts(nodes), places.sizes(nodes)), width)))
        degree[nodes] = found[-1].degree
        owners.append(np.repeat(nodes, found[-1].degree))
    order = np.argsort(np.concatenate(owners), kind="stable")
    return Edges.of(
        degree, np.concatenate([edges.targets for edges in found])[order], sum(edges.present_bytes for edges in found)
    )


def areas_of(graph: PointerGraph, node: int) -> list[Area]:
    """The areas of roots that point into a node."""
    targets = graph.root_edges.targets
    places = np.flatnonzero((targets == node) | (targets == -1 - node))
    return [
        graph.roots.areas[i]
        for i in np.unique(np.searchsorted(graph.root_edges.first, places, side="right") - 1).tolist()
    ]


_PLACES = ("rows", "start", "size")


def columns_of(graph: PointerGraph) -> dict[str, NDArray[Any]]:
    """The graph without its roots as columns, which `from_columns` reads; `areas` says which roots it was made with."""
    present = (graph.edges.present_bytes, graph.root_edges.present_bytes, graph.missing_bytes)
    places = {} if graph.follows_rows else {name: getattr(graph, name) for name in _PLACES}
    return places | {
        "widths": graph.widths, "first": graph.edges.first, "targets": graph.edges.targets,
        "root_first": graph.root_edges.first, "root_targets": graph.root_edges.targets,
        "bytes": np.array(present, np.int64), "areas": _area_bounds(graph.roots),
    }  # fmt: skip


def from_columns(columns: dict[str, NDArray[Any]], roots: Roots, table: BlockTable) -> PointerGraph | None:
    """The graph that `columns_of` wrote; None where it was made with other roots. `table`: of the blocks.

    Raises:
        ValueError, LookupError: it is not what `columns_of` writes.
    """
    if not np.array_equal(columns["areas"], _area_bounds(roots)):
        return None
    present_bytes, root_bytes, missing_bytes = columns["bytes"].tolist()
    edges = Edges(columns["first"], columns["targets"], present_bytes)
    root_edges = Edges(columns["root_first"], columns["root_targets"], root_bytes)
    widths = columns["widths"]
    nodes = len(widths)
    require_length(widths, nodes, np.uint8, "widths")
    for found, sources in ((edges, nodes), (root_edges, len(roots.areas))):
        require_firsts(found.first, sources, len(found.targets), "edges")
        require_indices(found.targets, -nodes, nodes, "edges")
    if min(present_bytes, root_bytes, missing_bytes) < 0:
        raise ValueError("bytes are negative")
    found_columns = (widths, edges, roots, root_edges, missing_bytes)
    if "rows" not in columns:
        return _of_rows(require_rows(table, nodes), found_columns, table)
    rows, start, size = (columns[name] for name in _PLACES)
    require_length(rows, nodes, np.int32, "rows")
    require_indices(rows, 0, len(table), "rows")
    require_length(start, nodes, np.int64, "addresses")
    require_ascending(start, "addresses")
    require_indices(size, 0, 1 << 48, "sizes")
    if len(size) != nodes:
        raise ValueError("sizes do not fit")
    return PointerGraph(rows, start, size, *found_columns)


def _area_bounds(roots: Roots) -> NDArray[np.int64]:
    """(start, end, width) of each area, one after the other; (3 * areas,)."""
    return np.array([(area.span.start, area.span.end, area.width) for area in roots.areas], np.int64).reshape(-1)
