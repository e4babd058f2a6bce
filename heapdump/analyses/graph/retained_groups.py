"""Bytes that groups of blocks retain together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.leaks import LeakGroup, Leaks
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.retained import Retained


def retained_groups(
    graph: PointerGraph, tree: Retained, group: Callable[[NDArray[np.int64]], Leaks]
) -> tuple[Leaks, list[tuple[LeakGroup, int]]]:
    """(the groups, (group, retained bytes) of each, the one that retains most first) of all blocks that roots lead to.

    `group` groups rows of the block table, (n,) int64 ascending. Bytes that a group retains are counted once.
    """
    nodes = np.sort(tree.order[1:].astype(np.int64))
    nodes = nodes[np.argsort(graph.rows[nodes], kind="stable")]
    found = group(graph.rows[nodes].astype(np.int64))
    place_of_value = {one.group.value: place for place, one in enumerate(found.groups)}
    places = np.full(max(place_of_value, default=-1) + 1, -1, np.int32)
    places[list(place_of_value)] = list(place_of_value.values())
    group_of_node = np.full(len(graph), -1, np.int32)
    group_of_node[nodes[np.searchsorted(graph.rows[nodes], found.rows)]] = places[found.values]
    totals = tree.by_group(group_of_node, len(found.groups)).tolist()
    return found, sorted(zip(found.groups, totals, strict=True), key=lambda pair: -pair[1])
