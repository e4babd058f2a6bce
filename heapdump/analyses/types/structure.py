"""What data structure blocks make up, told by how those of the most common size point at each other: a guess.

linked list: nearly every element points to one other, or to two that point back, and is pointed to itself; tree or map:
some to several, some to none or to the one above, and none is held by two; array: one block points to elements that do
not know each other; hash table: and these form short chains, or a list. What many elements point to alike (an owner, the
one node that stands for no child) is left out first.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph

_SAMPLE = 5000
_FEWEST = 8
_NEARLY, _SOME = 0.9, 0.15
_FEW, _COMMON = 4, 0.1
"""What more elements than this number, and than this share of those looked at, point to is an owner or a nil node."""

_BATCH = 1 << 18


@dataclass(frozen=True, slots=True)
class Structure:
    """`shape` in words, "" where none is recognised; `elements` blocks of `size` bytes each, the most common size.

    `table`: the node that points to many of them, of arrays and hash tables.
    """

    shape: str
    elements: int
    size: int
    table: int | None = None


def structure_of(graph: PointerGraph, nodes: NDArray[np.int64]) -> Structure:
    """The structure of some nodes, ascending. Looks at some thousand of them."""
    sizes, counts = np.unique(graph.size[nodes], return_counts=True)
    size, count = int(sizes[np.argmax(counts)]), int(counts.max())
    if count < _FEWEST:
        return Structure("", count, size)
    is_element = np.zeros(len(graph), bool)
    elements = nodes[graph.size[nodes] == size]
    is_element[elements] = True
    sample = elements[:: max(1, len(elements) // _SAMPLE)]
    table, spokes = _table(graph, nodes[graph.size[nodes] != size], is_element)
    links = _links(graph, sample, is_element)
    shape = _shape(graph, sample, links, is_element, spokes / count)
    return Structure(shape, count, size, table if shape in ("array of pointers", "hash table") else None)


def _links(graph: PointerGraph, sample: NDArray[np.int64], is_element: NDArray[np.bool_]) -> list[set[int]]:
    """The elements that each one points to, without those that many do."""
    links = [_targets(graph, node, is_element) for node in sample.tolist()]
    counts = Counter(target for found in links for target in found)
    common = {target for target, times in counts.items() if times > max(_FEW, _COMMON * len(sample))}
    return [found - common for found in links]


def _shape(
    graph: PointerGraph, sample: NDArray[np.int64], links: list[set[int]], is_element: NDArray[np.bool_], spokes: float
) -> str:
    """`spokes`: the share of elements that one other block points to."""
    degree = np.array([len(found) for found in links])
    one, none, several = (float(np.mean(found)) for found in (degree == 1, degree == 0, degree >= 2))
    pairs = zip(sample.tolist(), links, strict=True)
    back = np.array([sum(node in _targets(graph, other, is_element) for other in found) for node, found in pairs])
    held = _times_held(graph, sample, is_element)
    both_ways = back[degree == 2] == 2
    is_chained = one >= _NEARLY or (len(both_ways) >= _NEARLY * len(sample) and float(np.mean(both_ways)) >= _NEARLY)
    if spokes >= _SOME and (is_chained or (several < _SOME and one + none >= _NEARLY)):
        return "array of pointers" if none >= _NEARLY else "hash table"
    if float(np.mean(held - back <= 1)) < _NEARLY:  # more than one holds it: neither
        return ""
    if is_chained:
        return "linked list" if float(np.mean(held > 0)) >= _NEARLY else ""
    return "tree or map" if several >= _SOME and one + none >= _SOME else ""


def _times_held(graph: PointerGraph, sample: NDArray[np.int64], is_element: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many pointers of other elements lead to each node of the sample; (n,)."""
    is_wanted = np.zeros(len(graph), bool)
    is_wanted[sample] = True
    found = [sample]  # each once, so that all are counted
    for low in range(0, len(graph), _BATCH):
        high = min(low + _BATCH, len(graph))
        targets = graph.edges.targets[graph.first[low] : graph.first[high]]
        targets = np.where(targets < 0, -1 - targets, targets)
        sources = np.repeat(np.arange(low, high), np.diff(graph.first[low : high + 1]))
        found.append(targets[is_wanted[targets] & is_element[sources] & (targets != sources)].astype(np.int64))
    counts: NDArray[np.int64] = np.unique(np.concatenate(found), return_counts=True)[1] - 1
    return counts


def _table(graph: PointerGraph, others: NDArray[np.int64], is_element: NDArray[np.bool_]) -> tuple[int | None, int]:
    """(the one of the other nodes that has most pointers, how many elements it points to)."""
    if not len(others):
        return None, 0
    widest = int(others[np.argmax(graph.first[others + 1] - graph.first[others])])
    return widest, len(_targets(graph, widest, is_element))


def _targets(graph: PointerGraph, node: int, is_element: NDArray[np.bool_]) -> set[int]:
    """The elements that a node points to, itself left out."""
    found = graph.edges.targets[graph.first[node] : graph.first[node + 1]].astype(np.int64)
    found = np.where(found < 0, -1 - found, found)
    return set(found[is_element[found]].tolist()) - {node}
