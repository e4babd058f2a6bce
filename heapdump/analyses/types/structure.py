"""The data structure that some blocks make up, by the pointers between blocks of the most common size: a guess.

Blocks of the most common size are the elements. "Links" of an element are the elements that it points to, without
common targets (an owner, the one node that stands for no child).

    linked list       nearly every element has 1 link, or 2 links that both point back; nearly every one is a target
    tree or map       some elements have 2 links or more, some 1 or 0; nearly none is the target of 2 others
                      (elements that point back are not counted)
    array             one other block points to many elements, nearly none of which has a link
    hash table        one other block points to many elements, which form short chains or a list
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.large_arrays import batches

_SAMPLE = 5000
_FEWEST = 8
_NEARLY, _SOMETIMES = 0.9, 0.15
_FEW, _COMMON = 4, 0.1
"""A target of more elements than this number, and than this share of the sample, is common."""

_BATCH = 1 << 18


class StructureKind(StrEnum):
    """A kind of data structure; its value is the JSON word. VECTOR: an array whose owner looks like a std::vector."""

    LINKED_LIST = "linked list"
    TREE = "tree or map"
    ARRAY = "array of pointers"
    VECTOR = "vector of pointers"
    HASH_TABLE = "hash table"


@dataclass(frozen=True, slots=True)
class Structure:
    """The data structure that some blocks form.

    Attributes:
        kind: of the structure; None where none is recognised.
        elements: number of blocks with the most common size.
        size: that size, in bytes.
        table: for arrays and hash tables the node that points to many elements; else None.
    """

    kind: StructureKind | None
    elements: int
    size: int
    table: int | None = None


def structure_of(graph: PointerGraph, inside: NDArray[np.uint8]) -> tuple[Structure, NDArray[np.bool_]]:
    """(the structure that some nodes form, by at most 10,000 of them; (n,) bool: the elements). Reads their edges once.

    `inside` (n,): 1 for these nodes, one or more, else 0; becomes 0 for those that are no elements.
    """
    counts = Counter[int]()
    for _, sizes in _pieces(graph, inside):
        found, many = np.unique(sizes, return_counts=True)
        counts.update(dict(zip(found.tolist(), many.tolist(), strict=True)))
    size, count = max(counts.items(), key=lambda one: (one[1], -one[0]))
    others = []
    for nodes, sizes in _pieces(graph, inside):
        others.append(nodes[sizes != size])
        inside[others[-1]] = 0
    is_element = inside.view(bool)
    if count < _FEWEST:
        return Structure(None, count, size), is_element
    sample = sample_of(is_element, count, _SAMPLE)
    table, spokes = _table(graph, np.concatenate(others), is_element)
    links = _links(graph, sample, is_element)
    kind = _kind(graph, sample, links, is_element, spokes / count)
    has_table = kind in (StructureKind.ARRAY, StructureKind.HASH_TABLE)
    return Structure(kind, count, size, table if has_table else None), is_element


def _pieces(
    graph: PointerGraph, inside: NDArray[np.uint8]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.signedinteger]]]:
    """(nodes, their sizes), piece by piece, ascending."""
    for part in batches(len(inside)):
        nodes = part.start + np.flatnonzero(inside[part])
        if len(nodes):
            yield nodes, graph.sizes(nodes)


def sample_of(is_element: NDArray[np.bool_], count: int, most: int) -> NDArray[np.int64]:
    """Some `most` of the `count` elements, at equal distances, from the first one on."""
    step, seen, found = max(1, count // most), 0, [np.empty(0, np.int64)]
    for part in batches(len(is_element)):
        elements = np.flatnonzero(is_element[part])
        found.append(part.start + elements[-seen % step :: step])
        seen += len(elements)
    return np.concatenate(found)


def _links(graph: PointerGraph, sample: NDArray[np.int64], is_element: NDArray[np.bool_]) -> list[set[int]]:
    """The links of each element of the sample."""
    links = [_targets(graph, node, is_element) for node in sample.tolist()]
    counts = Counter(target for found in links for target in found)
    common = {target for target, times in counts.items() if times > max(_FEW, _COMMON * len(sample))}
    return [found - common for found in links]


def _kind(
    graph: PointerGraph, sample: NDArray[np.int64], links: list[set[int]], is_element: NDArray[np.bool_], spokes: float
) -> StructureKind | None:
    """`spokes`: the share of elements that one other block points to."""
    degree = np.array([len(found) for found in links])
    one, none, several = (float(np.mean(found)) for found in (degree == 1, degree == 0, degree >= 2))
    pairs = zip(sample.tolist(), links, strict=True)
    back = np.array([sum(node in _targets(graph, other, is_element) for other in found) for node, found in pairs])
    sources = _source_counts(graph, sample, is_element)
    both_ways = back[degree == 2] == 2
    is_chained = one >= _NEARLY or (len(both_ways) >= _NEARLY * len(sample) and float(np.mean(both_ways)) >= _NEARLY)
    if spokes >= _SOMETIMES and (is_chained or (several < _SOMETIMES and one + none >= _NEARLY)):
        return StructureKind.ARRAY if none >= _NEARLY else StructureKind.HASH_TABLE
    if float(np.mean(sources - back <= 1)) < _NEARLY:  # several elements point to one: neither list nor tree
        return None
    if is_chained:
        return StructureKind.LINKED_LIST if float(np.mean(sources > 0)) >= _NEARLY else None
    return StructureKind.TREE if several >= _SOMETIMES and one + none >= _SOMETIMES else None


def _source_counts(graph: PointerGraph, sample: NDArray[np.int64], is_element: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of pointers of other elements to each node of the sample; (sample,) int64."""
    in_sample = np.zeros(len(graph), bool)
    in_sample[sample] = True
    found = [sample]  # each node once, so that nodes without a source are counted
    for low in range(0, len(graph), _BATCH):
        high = min(low + _BATCH, len(graph))
        targets = graph.edges.targets[graph.first[low] : graph.first[high]]
        targets = np.where(targets < 0, -1 - targets, targets)
        edges = np.flatnonzero(in_sample[targets])
        targets = targets[edges]
        sources = low + np.searchsorted(graph.first[low + 1 : high + 1], edges + graph.first[low], side="right")
        found.append(targets[is_element[sources] & (targets != sources)].astype(np.int64))
    counts: NDArray[np.int64] = np.unique(np.concatenate(found), return_counts=True)[1] - 1
    return counts


def _table(graph: PointerGraph, others: NDArray[np.integer], is_element: NDArray[np.bool_]) -> tuple[int | None, int]:
    """(the one of the other nodes with most pointers, the number of elements that it points to)."""
    if not len(others):
        return None, 0
    widest = int(others[np.argmax(graph.first[others + 1] - graph.first[others])])
    return widest, len(_targets(graph, widest, is_element))


def _targets(graph: PointerGraph, node: int, is_element: NDArray[np.bool_]) -> set[int]:
    """The elements that a node points to, itself left out."""
    found = graph.edges.targets[graph.first[node] : graph.first[node + 1]].astype(np.int64)
    found = np.where(found < 0, -1 - found, found)
    return set(found[is_element[found]].tolist()) - {node}
