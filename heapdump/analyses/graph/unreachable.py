"""How each block can be reached from the roots: LeakSanitizer's algorithm on the pointer graph.

    reachable   a chain of pointers to the starts of blocks leads there from a strong root
    possible    every chain has a pointer to the inside of a block, or begins in a weak root
    indirect    only unreachable blocks point there
    direct      no block points there

In a cycle of unreachable blocks that no other block points to, every block is indirect, and LeakSanitizer reports no
direct leak. Here the first block of such a cycle is direct, unless `as_lsan` is set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.blocks.stored_checks import require_indices, require_length
from heapdump.kernels import run
from heapdump.kernels.reach import flood, flood_in_order, refer, unreached_before
from heapdump.large_arrays import empty, full, zeros

_BATCH = 1 << 12
"""Edges that are followed at once."""

_WIDE_SHARE, _LEAST_WIDE = 32, 1 << 16
"""A queue of more nodes than max(n // _WIDE_SHARE, _LEAST_WIDE) is followed in the order of node numbers.

In a tree of 6 million blocks, scattered over memory, that is twice as fast as the order of the queue.
"""


class Reach(IntEnum):
    """How a block can be reached. IGNORED: a leak of a suppressed stack, or a block that only such leaks point to."""

    REACHABLE = 1
    POSSIBLE = 2
    INDIRECT = 3
    DIRECT = 4
    IGNORED = 5

    @property
    def word(self) -> str:
        """The word of tables and of the JSON."""
        return self.name.lower()


LEAKED = (Reach.DIRECT, Reach.INDIRECT)
REPORTED = (*LEAKED, Reach.POSSIBLE)
"""States of blocks that a report lists, the gravest first."""


@dataclass(frozen=True, slots=True)
class Reachability:
    """How the nodes of a graph can be reached.

    Attributes:
        state: (n,) uint8 `Reach` of each node.
        cycles: unreachable blocks that hold each other, (members,) int64 nodes each, ascending. No block outside a
            cycle points into it.
    """

    state: NDArray[np.uint8]
    cycles: tuple[NDArray[np.int64], ...]

    def nodes(self, *states: Reach) -> NDArray[np.int64]:
        """The nodes of these states, (k,) int64, ascending."""
        return np.flatnonzero(np.isin(self.state, [int(state) for state in states]))


def classify(graph: PointerGraph, ignored: NDArray[np.int64] | None = None, *, as_lsan: bool = False) -> Reachability:
    """The state of every block. Nodes `ignored` (k,) count as strong roots, and are IGNORED themselves.

    `as_lsan`: no block of a cycle is direct.
    """
    count = len(graph)
    state, queue, later = zeros(count, np.uint8), empty(count, np.int32), empty(count, np.int32)
    strong, others = graph.root_targets()
    state[others] = Reach.POSSIBLE
    state[strong] = Reach.REACHABLE
    first = strong
    if ignored is not None and len(ignored):
        state[ignored] = Reach.IGNORED
        first = np.concatenate([ignored, strong[state[strong] != Reach.IGNORED]])
    others = others[state[others] == Reach.POSSIBLE]
    queue[: len(first)], later[: len(others)] = first, others
    _flood(graph, state, queue, later, (len(first), len(others)))
    if ignored is not None:
        state[ignored] = Reach.IGNORED  # `flood_in_order` gives them the state of the nodes that they point to
    unreachable = np.flatnonzero(state == 0)
    run(refer, len(unreachable), graph.first, graph.edges.targets, unreachable, state, int(Reach.INDIRECT))
    direct = unreachable[state[unreachable] == 0]
    state[direct] = Reach.DIRECT
    cycles = _cycles(graph, unreachable, direct, queue)
    if not as_lsan:
        state[_first_members(cycles)] = Reach.DIRECT
    return Reachability(state, cycles)


def without_direct_cycles(reached: Reachability) -> Reachability:
    """The same, with LeakSanitizer's states: every block of a cycle is indirect."""
    state = reached.state.copy()
    state[_first_members(reached.cycles)] = Reach.INDIRECT
    return Reachability(state, reached.cycles)


def _first_members(cycles: tuple[NDArray[np.int64], ...]) -> NDArray[np.int64]:
    return np.array([members[0] for members in cycles], np.int64)


def _flood(
    graph: PointerGraph,
    state: NDArray[np.uint8],
    queue: NDArray[np.int32],
    later: NDArray[np.int32],
    lengths: tuple[int, int],
) -> None:
    """Sets the `state` of the nodes that chains of pointers lead to; `lengths`: nodes in `queue` and in `later`.

    First REACHABLE: from `queue`, by pointers to starts. Then POSSIBLE: from `later`, by all pointers.
    """
    if not len(graph):
        return
    tail, waiting = lengths
    edges, count = (graph.first, graph.edges.targets), len(graph)
    most = max(count // _WIDE_SHARE, _LEAST_WIDE)
    batch = np.empty(max(_BATCH, graph.edges.widest), np.int32)
    for reach in (int(Reach.REACHABLE), int(Reach.POSSIBLE)):
        if reach == Reach.POSSIBLE:
            possible = later[:waiting][state[later[:waiting]] == Reach.POSSIBLE]
            tail = len(possible)
            queue[:tail] = possible
        while tail:
            head, tail, waiting = run(flood, count, *edges, queue, tail, reach, most, later, waiting, batch, state)
            if head == tail:
                break
            tail, waiting = run(flood_in_order, count, *edges, queue, head, tail, reach, most, later, waiting, state)


def _cycles(
    graph: PointerGraph, unreachable: NDArray[np.int64], direct: NDArray[np.int64], queue: NDArray[np.int32]
) -> tuple[NDArray[np.int64], ...]:
    """The cycles of unreachable blocks that no other unreachable block points into."""
    edges = (graph.first, graph.edges.targets)
    seen = full(len(graph), 1, np.uint8)
    seen[unreachable] = 0
    run(unreached_before, len(unreachable), *edges, direct, seen, queue, np.empty(len(direct), np.int64))
    rest = unreachable[seen[unreachable] == 0]  # no direct leak leads there: cycles, and what they point to
    if not len(rest):
        return ()
    starts = np.empty(len(rest), np.int64)
    found = run(unreached_before, len(rest), *edges, rest, seen.copy(), queue, starts)
    # no start reaches a later start; backwards, the starts that remain are not reached by any other start
    backwards, sources = starts[:found][::-1].copy(), np.empty(found, np.int64)
    found = run(unreached_before, len(rest), *edges, backwards, seen, queue, sources)
    return _members(graph, rest, np.sort(sources[:found]))


def _members(graph: PointerGraph, rest: NDArray[np.int64], sources: NDArray[np.int64]) -> tuple[NDArray[np.int64], ...]:
    """The cycle of each source: all nodes of `rest` that lead to it, as no node outside the cycle does."""
    number = full(len(graph), -1, np.int64)
    number[rest] = np.arange(len(rest))
    holders_of = _holders(graph, rest, number)
    out, is_member = [], np.zeros(len(rest), bool)
    for source in number[sources].tolist():
        members, waiting = [source], [source]
        is_member[source] = True
        while waiting:
            for holder in holders_of(waiting.pop()):
                if not is_member[holder]:
                    is_member[holder] = True
                    members.append(holder)
                    waiting.append(holder)
        out.append(rest[np.sort(np.array(members, np.int64))])
    return tuple(sorted(out, key=lambda members: int(members[0])))


def _holders(graph: PointerGraph, rest: NDArray[np.int64], number: NDArray[np.int64]) -> Callable[[int], list[int]]:
    """A function: number of a node of `rest` → numbers of the nodes of `rest` that point to it."""
    degree = (graph.first[rest + 1] - graph.first[rest]).astype(np.int64)
    source = np.repeat(np.arange(len(rest)), degree)
    place = np.repeat(graph.first[rest] - (np.cumsum(degree) - degree), degree) + np.arange(int(degree.sum()))
    target = graph.edges.targets[place].astype(np.int64)
    target = number[np.where(target < 0, -1 - target, target)]
    order = np.argsort(target[target >= 0], kind="stable")
    source = source[target >= 0][order]
    first = np.searchsorted(target[target >= 0][order], np.arange(len(rest) + 1))

    def holders(node: int) -> list[int]:
        """The numbers of the nodes that point to a node."""
        found: list[int] = source[first[node] : first[node + 1]].tolist()
        return found

    return holders


def columns_of(reached: Reachability) -> dict[str, NDArray[Any]]:
    """The states, the members of all cycles one cycle after the other, and the number of members of each cycle."""
    members = np.concatenate([np.empty(0, np.int64), *reached.cycles])
    lengths = np.array([len(cycle) for cycle in reached.cycles], np.int64)
    return {"state": reached.state, "members": members, "lengths": lengths}


def from_columns(columns: dict[str, NDArray[Any]], nodes: int) -> Reachability:
    """The answer that `columns_of` wrote, of a graph of `nodes` nodes.

    Raises:
        ValueError, LookupError: it is not what `columns_of` writes.
    """
    state, members, lengths = columns["state"], columns["members"], columns["lengths"]
    require_length(state, nodes, np.uint8, "states")
    require_indices(state, min(Reach), max(Reach) + 1, "states")
    require_indices(members, 0, nodes, "members")
    require_indices(lengths, 0, len(members) + 1, "lengths")
    if len(lengths) > len(members) or int(lengths.sum()) != len(members):
        raise ValueError("cycles do not fit")
    cycles = np.split(members, np.cumsum(lengths)[:-1]) if len(lengths) else []
    return Reachability(state, tuple(cycles))
