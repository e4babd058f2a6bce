"""Native blocks that the process holds by objects of managed heaps alone, and the types of these objects.

Such a block is no leak for a sweep. Where the object has a finalizer it goes when that runs: what piles up here waits
for the finalizer thread, or for a Dispose that nobody calls.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.roots import Area, RootKind
from heapdump.analyses.graph.sweep import Edges
from heapdump.analyses.graph.unreachable import Reach, Reachability, classify
from heapdump.memory.space import AddressSpace
from heapdump.runtimes.runtime import ManagedObject, ObjectHeap
from heapdump.spans import Span

_HELD = (Reach.REACHABLE, Reach.POSSIBLE)
_PIECE = 16 << 20
_MOST_WORDS = 20_000
"""Pointers in managed heaps whose objects are looked up."""


@dataclass(frozen=True, slots=True)
class ManagedHolder:
    """The objects of one type that hold blocks which only managed objects hold.

    Attributes:
        type: name of the type.
        is_finalizable: True where its objects have a finalizer.
        objects: number of these objects.
        blocks: number of blocks that they point to.
        bytes: requested bytes of these blocks.
    """

    type: str
    is_finalizable: bool
    objects: int
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class ManagedHolders:
    """The blocks that only managed objects hold.

    Attributes:
        blocks: number of blocks to which only paths from managed objects lead.
        bytes: their requested bytes.
        holders: the holding types, most bytes first.
        is_whole: False where the objects of some pointers were not determined.
    """

    blocks: int
    bytes: int
    holders: tuple[ManagedHolder, ...]
    is_whole: bool


@dataclass(slots=True)
class _HolderTotals:
    objects: set[int] = field(default_factory=set)
    nodes: set[int] = field(default_factory=set)


def managed_holders(
    space: AddressSpace, graph: PointerGraph, reached: Reachability, heaps: Sequence[ObjectHeap]
) -> ManagedHolders | None:
    """The blocks and their holders; None without a managed heap. `reached`: of the same graph.

    Sweeps the roots again without managed objects, and their words where they point to blocks.
    """
    is_managed = np.array([area.kind is RootKind.MANAGED for area in graph.roots.areas], bool)
    if not is_managed.any() or not len(graph):
        return None
    otherwise = classify(replace(graph, root_edges=_without(graph.root_edges, is_managed))).state
    is_alone = np.isin(reached.state, _HELD) & ~np.isin(otherwise, _HELD)
    areas = [graph.roots.areas[i] for i in np.flatnonzero(is_managed & (graph.root_edges.degree > 0)).tolist()]
    sums: dict[tuple[str, bool], _HolderTotals] = {}
    words = _pointers(space, graph, areas, is_alone)
    for address, node in islice(words, _MOST_WORDS):
        found = _object_at(heaps, address)
        if found is not None:
            of_type = sums.setdefault((found.type, found.is_finalizable), _HolderTotals())
            of_type.objects.add(found.address)
            of_type.nodes.add(node)
    holders = [
        ManagedHolder(
            name, last, len(one.objects), len(one.nodes), int(graph.size[list(one.nodes)].sum(dtype=np.int64))
        )
        for (name, last), one in sums.items()
    ]
    alone = np.flatnonzero(is_alone)
    return ManagedHolders(
        len(alone), int(graph.size[alone].sum(dtype=np.int64)),
        tuple(sorted(holders, key=lambda one: (-one.bytes, one.type))), next(words, None) is None,
    )  # fmt: skip


def _without(edges: Edges, left_out: NDArray[np.bool_]) -> Edges:
    """The edges without those of some sources."""
    stays = np.repeat(~left_out, edges.degree)
    return Edges.of(np.where(left_out, 0, edges.degree), edges.targets[stays], edges.present_bytes)


def _pointers(
    space: AddressSpace, graph: PointerGraph, areas: Sequence[Area], wanted: NDArray[np.bool_]
) -> Iterator[tuple[int, int]]:
    """(address of a word, node that it points into) in the areas, ascending, of the wanted nodes."""
    low, high = int(graph.start[0]), int(graph.start[-1]) + int(graph.size[-1])
    for area in areas:
        for first in range(area.span.start, area.span.end, _PIECE):
            piece = Span(first, min(first + _PIECE, area.span.end))
            for start, words in space.mapped.words(piece, area.width):
                places = np.flatnonzero((words >= np.uint64(low)) & (words < np.uint64(high)))
                nodes = graph.nodes.find(words[places])
                keep = (nodes >= 0) & wanted[nodes]
                yield from zip((start + area.width * places[keep]).tolist(), nodes[keep].tolist(), strict=True)


def _object_at(heaps: Sequence[ObjectHeap], address: int) -> ManagedObject | None:
    """The object of any heap that holds an address."""
    return next((found for heap in heaps if (found := heap.object_at(address)) is not None), None)
