"""Which blocks nobody holds any more: LeakSanitizer's algorithm on the pointer graph.

reachable: a chain of pointers to the starts of blocks leads there from a strong root. possible: only a chain through a
pointer to the inside of a block, or from a weak root. direct: nothing points there; indirect: only other unreachable
blocks do. LeakSanitizer finds no direct leak where unreachable blocks hold each other in a circle; here the first
member of a circle that nothing else holds is direct, unless its own reckoning is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.kernels import run
from heapdump.kernels.reach import flood, flood_in_order, heads, refer

_BATCH = 1 << 12
"""Edges that are followed at once."""

_WIDE, _LEAST_WIDE = 32, 1 << 16
"""Where more than one node in so many, and so many at least, wait to be followed, they are followed in their order: in a
tree of 6 million blocks, scattered over memory, twice as fast."""


class Reach(IntEnum):
    """How a block can be reached; the words of the JSON are these names in lower case. IGNORED: suppressed."""

    REACHABLE = 1
    POSSIBLE = 2
    INDIRECT = 3
    DIRECT = 4
    IGNORED = 5


@dataclass(frozen=True)
class Reached:
    """`state` (n,) uint8: the `Reach` of every node; `cycles`: circles that nothing else holds, members ascending."""

    state: NDArray[np.uint8]
    cycles: tuple[NDArray[np.int64], ...]

    def nodes(self, *kinds: Reach) -> NDArray[np.int64]:
        """The nodes of these kinds, ascending."""
        return np.flatnonzero(np.isin(self.state, [int(kind) for kind in kinds]))


def classify(graph: PointerGraph, ignored: NDArray[np.int64] | None = None, *, as_lsan: bool = False) -> Reached:
    """Every block by how it can be reached. What `ignored` nodes hold is reachable.

    `as_lsan`: no block of a circle is direct.
    """
    count = len(graph)
    state, queue, later = np.zeros(count, np.uint8), np.empty(count, np.int32), np.empty(count, np.int32)
    sure, perhaps = graph.root_targets()
    state[perhaps] = Reach.POSSIBLE
    state[sure] = Reach.REACHABLE
    roots = sure
    if ignored is not None and len(ignored):
        state[ignored] = Reach.IGNORED
        roots = np.concatenate([ignored, sure[state[sure] != Reach.IGNORED]])
    perhaps = perhaps[state[perhaps] == Reach.POSSIBLE]
    queue[: len(roots)], later[: len(perhaps)] = roots, perhaps
    edges = (graph.first, graph.edges.targets)
    _flood(graph, state, queue, len(roots), later, len(perhaps))
    if ignored is not None:
        state[ignored] = Reach.IGNORED  # roots of a wide graph were marked like what they hold
    lost = np.flatnonzero(state == 0)
    run(refer, len(lost), *edges, lost, state, int(Reach.INDIRECT))
    direct = lost[state[lost] == 0]
    state[direct] = Reach.DIRECT
    cycles = _cycles(graph, state, lost, direct, queue)
    if not as_lsan:
        state[np.array([members[0] for members in cycles], np.int64)] = Reach.DIRECT
    return Reached(state, cycles)


def _flood(
    graph: PointerGraph,
    state: NDArray[np.uint8],
    queue: NDArray[np.int32],
    tail: int,
    later: NDArray[np.int32],
    waiting: int,
) -> None:
    """Marks what `queue[:tail]` reaches by pointers to starts alone, then by others or from `later[:waiting]`, too."""
    if not len(graph):
        return
    edges, count, most = (graph.first, graph.edges.targets), len(graph), max(len(graph) // _WIDE, _LEAST_WIDE)
    batch = np.empty(max(_BATCH, graph.edges.widest), np.int32)
    for mark in (int(Reach.REACHABLE), int(Reach.POSSIBLE)):
        if mark == Reach.POSSIBLE:
            held = later[:waiting][state[later[:waiting]] == Reach.POSSIBLE]
            tail = len(held)
            queue[:tail] = held
        while tail:
            head, tail, waiting = run(flood, count, *edges, queue, tail, mark, most, later, waiting, batch, state)
            if head == tail:
                break
            tail, waiting = run(flood_in_order, count, *edges, queue, head, tail, mark, most, later, waiting, state)


def without_firsts(reached: Reached) -> Reached:
    """As LeakSanitizer reckons: every block of a circle is indirect."""
    state = reached.state.copy()
    state[np.array([members[0] for members in reached.cycles], np.int64)] = Reach.INDIRECT
    return Reached(state, reached.cycles)


def _cycles(
    graph: PointerGraph,
    state: NDArray[np.uint8],
    lost: NDArray[np.int64],
    direct: NDArray[np.int64],
    queue: NDArray[np.int32],
) -> tuple[NDArray[np.int64], ...]:
    """The circles of unreachable blocks that no other unreachable block holds."""
    edges = (graph.first, graph.edges.targets)
    seen = np.ones(len(state), np.uint8)
    seen[lost] = 0
    run(heads, len(direct), *edges, direct, seen, queue, np.empty(len(direct), np.int64))
    inside = lost[seen[lost] == 0]
    if not len(inside):
        return ()
    first = np.empty(len(inside), np.int64)
    found = run(heads, len(inside), *edges, inside, seen.copy(), queue, first)
    # nobody before reaches a head; the last one is reached by nobody behind it either, and so on backwards
    last_first, own = first[:found][::-1].copy(), np.empty(found, np.int64)
    found = run(heads, len(inside), *edges, last_first, seen, queue, own)
    return _members(graph, inside, np.sort(own[:found]))


def _members(
    graph: PointerGraph, inside: NDArray[np.int64], heads_of: NDArray[np.int64]
) -> tuple[NDArray[np.int64], ...]:
    """Everything that reaches a head: as nothing else holds a circle, its own members."""
    number = np.full(len(graph), -1, np.int64)
    number[inside] = np.arange(len(inside))
    degree = (graph.first[inside + 1] - graph.first[inside]).astype(np.int64)
    source = np.repeat(np.arange(len(inside)), degree)
    place = np.repeat(graph.first[inside] - (np.cumsum(degree) - degree), degree) + np.arange(int(degree.sum()))
    target = graph.edges.targets[place].astype(np.int64)
    target = number[np.where(target < 0, -1 - target, target)]
    order = np.argsort(target[target >= 0], kind="stable")
    source = source[target >= 0][order]
    first = np.searchsorted(target[target >= 0][order], np.arange(len(inside) + 1))
    out, owner = [], np.zeros(len(inside), bool)
    for head in number[heads_of].tolist():
        members, waiting = [head], [head]
        owner[head] = True
        while waiting:
            node = waiting.pop()
            for other in source[first[node] : first[node + 1]].tolist():
                if not owner[other]:
                    owner[other] = True
                    members.append(other)
                    waiting.append(other)
        out.append(inside[np.sort(np.array(members, np.int64))])
    return tuple(sorted(out, key=lambda members: int(members[0])))


def columns_of(reached: Reached) -> dict[str, NDArray[Any]]:
    """The states, the members of all cycles one cycle after the other, and the number of members of each cycle."""
    members = np.concatenate([np.empty(0, np.int64), *reached.cycles])
    return {
        "state": reached.state,
        "members": members,
        "lengths": np.array([len(cycle) for cycle in reached.cycles], np.int64),
    }


def from_columns(columns: dict[str, NDArray[Any]]) -> Reached:
    """The answer that `columns_of` wrote."""
    ends = np.cumsum(columns["lengths"])[:-1]
    cycles = np.split(columns["members"], ends) if len(columns["lengths"]) else []
    return Reached(columns["state"], tuple(cycles))
