"""Whether owners of one kind have the same container at one place.

A pointer and two small numbers beside it fit a string or an array now and then. A program's owners of one class, or of
one size, have it all or nearly none. In: containers with weak evidence. Out: those that a tenth and more of the like
owners have, of those that have a pointer to a block there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import Container, ContainerTable
from heapdump.process.model import Process

Numbers = NDArray[np.int64]
_WEAK = (
    Container.GNU_STRING, Container.GNU_WSTRING, Container.LLVM_WSTRING, Container.COUNTED, Container.VEC,
    Container.RUST_STRING, Container.VEC_DEQUE,
)  # fmt: skip
_SAMPLE, _LEAST_SHARE = 512, 0.1


def in_common(process: Process, graph: PointerGraph, found: ContainerTable) -> ContainerTable:
    """The containers without those that hardly any like owner has. Reads some words of 512 owners of each size."""
    weak = np.flatnonzero(np.isin(found.kind, _WEAK) & (found.owner >= 0))
    good = np.ones(len(found), bool)
    if len(weak):
        good[weak] = _are_in_common(process, graph, found.take(weak))
    return found.take(good)


def _are_in_common(process: Process, graph: PointerGraph, found: ContainerTable) -> NDArray[np.bool_]:
    """True for containers that like owners have, too; (c,) bool."""
    sample = _sample(graph, np.unique(graph.size[found.owner]))
    offset = _pointer_offsets(process, graph, found)
    class_, of_sample = _first_words(process, graph, found.owner), _first_words(process, graph, sample)
    keys = np.stack([graph.size[found.owner].astype(np.int64), class_, offset, found.kind.astype(np.int64)], axis=1)
    keys, group = np.unique(keys, axis=0, return_inverse=True)
    group = group.reshape(-1)
    has = np.zeros(len(keys))
    np.add.at(has, group[np.isin(found.owner, sample)], 1)
    pointers = np.zeros(len(keys))
    for number, (size, first, at, _) in enumerate(keys.tolist()):
        like = sample[(graph.size[sample] == size) & (of_sample == first)]
        pointers[number] = np.count_nonzero(_targets(process, graph, like, np.full(len(like), at)) >= 0)
    good: NDArray[np.bool_] = (has >= _LEAST_SHARE * pointers)[group]
    return good


def _sample(graph: PointerGraph, sizes: Numbers) -> Numbers:
    """Some nodes of each of the sizes, evenly from all of them."""
    nodes = np.flatnonzero(np.isin(graph.size, sizes))
    order = nodes[np.argsort(graph.size[nodes], kind="stable")]
    size = graph.size[order]
    first = np.searchsorted(size, size)
    step = -(-(np.searchsorted(size, size, side="right") - first) // _SAMPLE)
    chosen: Numbers = order[(np.arange(len(order)) - first) % step == 0]
    return np.sort(chosen)


def _first_words(process: Process, graph: PointerGraph, nodes: Numbers) -> Numbers:
    """The first word of each node where it leads into a module, as a table of virtual functions does; else 0."""
    out = np.zeros(len(nodes), np.int64)
    for width in np.unique(graph.widths[nodes]).tolist():
        rows = np.flatnonzero((graph.widths[nodes] == width) & (graph.size[nodes] >= width))
        value, _ = process.space.mapped.gather(graph.start[nodes[rows]].astype(np.uint64), width)
        out[rows] = np.where(process.in_modules(value), value, 0).astype(np.int64)
    return out


def _pointer_offsets(process: Process, graph: PointerGraph, found: ContainerTable) -> Numbers:
    """Where in its owner the pointer to the buffer of each container lies: in its first, second or third word."""
    width = graph.widths[found.owner].astype(np.int64)
    out = found.offset.copy()
    for word in (2, 1, 0):
        offset = found.offset + word * width
        is_it = _targets(process, graph, found.owner, offset) == found.buffer
        out[is_it] = offset[is_it]
    return out


def _targets(process: Process, graph: PointerGraph, nodes: Numbers, offset: Numbers) -> Numbers:
    """The other node whose start the word at an offset of each node is; -1 for none."""
    out = np.full(len(nodes), -1, np.int64)
    for width in np.unique(graph.widths[nodes]).tolist():
        rows = np.flatnonzero((graph.widths[nodes] == width) & (offset + width <= graph.size[nodes]))
        value, _ = process.space.mapped.gather((graph.start[nodes[rows]] + offset[rows]).astype(np.uint64), width)
        target = graph.nodes.find(value)
        is_start = (target >= 0) & (graph.start[target] == value.astype(np.int64)) & (target != nodes[rows])
        out[rows] = np.where(is_start, target, -1)
    return out
