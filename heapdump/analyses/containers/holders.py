"""Who holds a block: the first place in another block, or in module data, that leads to its start.

In: the pointer graph. Out: owner and offset of each, as containers have them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.types.members import module_areas
from heapdump.large_arrays import batches
from heapdump.memory.mapped import MappedMemory

Numbers = NDArray[np.int64]
_MOST_WORDS = 256
"""Words of a block of the program in which the pointer is looked for."""


def holders_of(
    memory: MappedMemory, graph: PointerGraph, nodes: Numbers, members: Numbers, of: Numbers
) -> tuple[Numbers, Numbers]:
    """((k,) owner of each node, (k,) offset in it); the node itself and 0 where none is found.

    `nodes` (k,): distinct. A block is preferred to the data of a module, and is none of `members` (m,), which belong to
    the node of index `of` (m,).
    """
    owner, offset = nodes.copy(), np.zeros(len(nodes), np.int64)
    if not len(nodes):
        return owner, offset
    target, source = _first_sources(graph, nodes, members, of)
    place = _place_in(memory, graph, source, nodes[target])
    known = place >= 0
    owner[target[known]], offset[target[known]] = source[known], place[known]
    _in_modules(memory, graph, nodes, owner, offset)
    return owner, offset


def _first_sources(graph: PointerGraph, nodes: Numbers, members: Numbers, of: Numbers) -> tuple[Numbers, Numbers]:
    """(indices in `nodes`, the first other block that leads to each)."""
    order = np.argsort(nodes)
    ascending, found = nodes[order], dict[int, int]()
    whose = np.full(len(graph), -1, np.int32)
    whose[members] = of
    for part in batches(len(graph.edges.targets)):
        targets = graph.edges.targets[part]
        place = np.minimum(np.searchsorted(ascending, targets), len(ascending) - 1)
        here = np.flatnonzero(ascending[place] == targets)
        pointed_at = order[place[here]]
        edge = np.array(part.start + here, graph.first.dtype)
        source = np.searchsorted(graph.first, edge, side="right") - 1
        other = (source != nodes[pointed_at]) & (whose[source] != pointed_at)
        for one, by in zip(pointed_at[other].tolist(), source[other].tolist(), strict=True):
            found.setdefault(one, by)
    return np.array(list(found), np.int64), np.array(list(found.values()), np.int64)


def _place_in(memory: MappedMemory, graph: PointerGraph, holder: Numbers, nodes: Numbers) -> Numbers:
    """The offset of the pointer to each node in its holder; -1 where it is in none of the words that are read."""
    out = np.full(len(nodes), -1, np.int64)
    size, width = graph.size[holder].astype(np.int64), graph.widths[nodes].astype(np.int64)
    for word in range(_MOST_WORDS):
        rows = np.flatnonzero((out < 0) & ((word + 1) * width <= size))
        if not len(rows):
            break
        at = (graph.start[holder[rows]] + word * width[rows]).astype(np.uint64)
        for bytes_ in np.unique(width[rows]).tolist():
            of_width = np.flatnonzero(width[rows] == bytes_)
            value = memory.gather(at[of_width], bytes_)[0].astype(np.int64)
            out[rows[of_width[value == graph.start[nodes[rows[of_width]]]]]] = word * bytes_
    return out


def _in_modules(memory: MappedMemory, graph: PointerGraph, nodes: Numbers, owner: Numbers, offset: Numbers) -> None:
    """Writes the places in module data to `owner` and `offset` of nodes that have none."""
    edges = graph.root_edges
    for area in module_areas(graph)[0].tolist():
        targets = edges.targets[edges.first[area] : edges.first[area + 1]]
        rows = np.flatnonzero((owner == nodes) & np.isin(nodes, targets))
        if not len(rows):
            continue
        rows = rows[np.argsort(graph.start[nodes[rows]])]
        wanted, one = graph.start[nodes[rows]].astype(np.uint64), graph.roots.areas[area]
        for start, words in memory.words(one.span, one.width):
            place = np.minimum(np.searchsorted(wanted, words), len(wanted) - 1)
            here = np.flatnonzero(wanted[place] == words)[::-1]  # the first one is written last
            owner[rows[place[here]]] = -1 - area
            offset[rows[place[here]]] = start + here * one.width - one.span.start
