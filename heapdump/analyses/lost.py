"""Unreachable blocks as a report: sums by kind, groups, circles; suppressed stacks are roots, and the check runs again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph import PointerGraph
from heapdump.analyses.leaks import LeakGroup, Leaks, Question
from heapdump.analyses.stacks import Stacks
from heapdump.analyses.suppressions import Rule, Suppressions
from heapdump.analyses.unreachable import Reach, Reached, classify
from heapdump.words import plural

_MOST_RUNS = 8
LEAKED = (Reach.DIRECT, Reach.INDIRECT)
REPORTED = (*LEAKED, Reach.POSSIBLE)
Group = Callable[[Question, Suppressions], Leaks]
"""Groups blocks (see `leaks.find_leaks`)."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Blocks and the bytes that the program asked for in them."""

    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LostGroup:
    """Blocks of one kind and one key. `rows` (n,) int64: the blocks, ascending by address."""

    kind: Reach
    found: LeakGroup
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Lost:
    """`sums` of every kind; `groups`, direct ones first, then by bytes; `missing`: why they have another key than asked.

    `rows` and `kinds` (n,) of all reported blocks, ascending by address; `cycles`: rows of each circle of leaked blocks
    that nothing else holds. `suppressed`, `unused` rules of the suppressions.
    """

    sums: dict[Reach, Sum]
    groups: tuple[LostGroup, ...]
    by: str
    missing: str
    rows: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    cycles: tuple[NDArray[np.int64], ...]
    suppressed: tuple[Rule, ...]
    unused: tuple[Rule, ...]

    @property
    def leaked(self) -> Sum:
        """Direct and indirect leaks together."""
        direct, indirect = (self.sums[kind] for kind in LEAKED)
        return Sum(direct.blocks + indirect.blocks, direct.bytes + indirect.bytes)


def find_lost(
    graph: PointerGraph, sizes: NDArray[np.uint64], stacks: Stacks, question: Question, suppressions: Suppressions,
    group: Group, *, as_lsan: bool = False,
) -> Lost:  # fmt: skip
    """The report on the blocks of `question.rows`. `sizes`: requested bytes of every row of the block table."""
    reached = _suppressed(graph, stacks, question, suppressions, group, as_lsan=as_lsan)
    asked = np.isin(graph.rows, question.rows, assume_unique=True) if len(question.rows) < len(graph) else np.ones(len(graph), bool)
    of_kind = {kind: graph.rows[(reached.state == kind) & asked] for kind in Reach}
    sums = {kind: Sum(len(rows), int(sizes[rows].sum())) for kind, rows in of_kind.items()}
    found = {kind: group(replace(question, rows=np.sort(of_kind[kind])), Suppressions()) for kind in REPORTED if len(of_kind[kind])}
    order = (Reach.DIRECT, Reach.INDIRECT, Reach.POSSIBLE)
    groups = tuple(
        LostGroup(kind, one, found[kind].rows[found[kind].values == one.group.value]) for kind in order if kind in found for one in found[kind].groups
    )
    reported = np.isin(reached.state, [int(kind) for kind in REPORTED]) & asked
    cycles = tuple(graph.rows[members] for members in reached.cycles if asked[members].any())
    first = next(iter(found.values()), None)
    return Lost(
        sums, groups, first.by if first else question.by, first.missing if first else "", graph.rows[reported], reached.state[reported],
        cycles, tuple(rule for rule in suppressions.rules if rule.count), tuple(rule for rule in suppressions.rules if not rule.matched),
    )  # fmt: skip


def _suppressed(
    graph: PointerGraph, stacks: Stacks, question: Question, suppressions: Suppressions, group: Group, *, as_lsan: bool
) -> Reached:
    """All blocks of a suppressed stack become roots, and the check runs again, until no more stacks are suppressed."""
    reached = classify(graph, as_lsan=as_lsan)
    if not suppressions.rules or not stacks.are_recorded:
        return reached
    numbers = stacks.numbers(graph.rows)
    known = np.empty(0, np.uint64)
    for _ in range(_MOST_RUNS):
        lost = reached.nodes(*LEAKED)
        kept = group(Question("stack", np.sort(graph.rows[lost]), skip=question.skip), suppressions).rows
        fresh = np.unique(numbers[lost[~np.isin(graph.rows[lost], kept)]])
        fresh = fresh[(fresh > 0) & ~np.isin(fresh, known)]
        if not len(fresh):
            break
        known = np.concatenate([known, fresh])
        reached = classify(graph, np.flatnonzero(np.isin(numbers, known)), as_lsan=as_lsan)
    return reached


def missing_evidence(graph: PointerGraph) -> tuple[str, ...]:
    """What of blocks and roots the dump lacks, in words."""
    if not graph.missing_bytes:
        return graph.roots.missing
    total = int(graph.size.sum())
    text = f"{graph.missing_bytes:,} of {total:,} bytes of {plural(len(graph), 'busy block')} are not in the dump: what only they hold looks leaked"
    return (text, *graph.roots.missing)


CAVEATS = (
    "not seen: pointers that only the kernel holds (timers, I/O in flight, window data), and encoded ones (RtlEncodePointer)",
    "taken for pointers: whatever looks like one, such as old values in unused stack slots",
)
"""What could hide a reference, and what could fake one."""
