"""Unreachable blocks as a report: sums by state, groups by key, cycles, suppressed stacks.

In: the pointer graph, how its blocks are reached, a question. Out: `UnreachableBlocks`. Blocks of suppressed stacks
become roots, and the reachability is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.allocated.leaks import LeakContext, LeakGroup, LeakQuestion, Leaks, find_leaks
from heapdump.analyses.allocated.suppressions import Rule, RuleCount, Suppressions
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.unreachable import (
    LEAKED,
    REPORTED,
    Reach,
    Reachability,
    classify,
    without_direct_cycles,
)
from heapdump.analyses.graph.way_in import has_way_in
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.grouping import add_up
from heapdump.large_arrays import batches
from heapdump.wording import plural

_MOST_RUNS = 8
CAVEATS = (
    "not seen: pointers that only the kernel holds (timers, I/O in flight, window data), and encoded ones "
    "(RtlEncodePointer)",
    "taken for pointers: whatever looks like one, such as old values in unused stack slots",
)
"""What can hide a pointer, and what can look like one."""


@dataclass(frozen=True, slots=True)
class BlockSum:
    """Blocks, and the bytes that the program requested in them."""

    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class UnreachableQuestion:
    """The question that an unreachable report answers.

    Attributes:
        grouping: the key of the groups, and the rows that count.
        suppressions: stacks whose leaks are not reported.
        as_lsan: True for the states that LeakSanitizer gives to the blocks of cycles.
    """

    grouping: LeakQuestion
    suppressions: Suppressions
    as_lsan: bool

    @property
    def is_plain(self) -> bool:
        """True for a question about all blocks whose answer depends on nothing but the dump, the key, and names."""
        grouping = self.grouping
        return grouping.is_about_all and not (self.suppressions.rules or grouping.min_bytes or self.as_lsan)


@dataclass(frozen=True, slots=True)
class UnreachableGroup:
    """The unreachable blocks of one state and one key.

    Attributes:
        state: how they are (not) reached.
        found: the key and the sums.
        rows: gives their (k,) int64 rows, ascending by address.
    """

    state: Reach
    found: LeakGroup
    rows: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class UnreachableReport:
    """The part of the answer that the index stores: all that a page of groups shows, but for addresses of cycles.

    Attributes:
        sums: state → its blocks.
        groups: (state, group), in the order of `REPORTED`, then most bytes first.
        by: the key of the groups.
        missing: the reason why this is not the key that was asked for, in words; "" where it is.
        cycles: rows of the blocks of each cycle, (members,) int64 each.
        evidence: sentences on bytes of blocks and roots that the dump does not hold.
        has_way_in: False where no root of the program leads into any heap (`way_in`).
    """

    sums: dict[Reach, BlockSum]
    groups: tuple[tuple[Reach, LeakGroup], ...]
    by: GroupKey
    missing: str
    cycles: tuple[NDArray[np.int64], ...] = ()
    evidence: tuple[str, ...] = ()
    has_way_in: bool = True


@dataclass(frozen=True)
class UnreachableBlocks:
    """The complete answer.

    Attributes:
        report: sums, cycles, and what limits the answer.
        groups: in the order of `REPORTED`, then most bytes first.
        blocks: gives ((k,) int64 rows, (k,) uint8 states) of all blocks of the states `REPORTED`, ascending by address.
        suppressed: rules, each with the blocks that it suppresses.
        unused: rules that match no stack.
    """

    report: UnreachableReport
    groups: tuple[UnreachableGroup, ...]
    blocks: Callable[[], tuple[NDArray[np.int64], NDArray[np.uint8]]]
    suppressed: tuple[RuleCount, ...]
    unused: tuple[Rule, ...]

    @property
    def sums(self) -> dict[Reach, BlockSum]:
        """State → its blocks."""
        return self.report.sums

    @property
    def leaked(self) -> BlockSum:
        """Direct and indirect leaks of these groups together."""
        return self._grouped(LEAKED)

    @property
    def omitted(self) -> BlockSum:
        """Blocks of the states `REPORTED` in groups that are left out."""
        grouped = self._grouped(REPORTED)
        return BlockSum(
            sum(self.sums[state].blocks for state in REPORTED) - grouped.blocks,
            sum(self.sums[state].bytes for state in REPORTED) - grouped.bytes,
        )

    def _grouped(self, states: tuple[Reach, ...]) -> BlockSum:
        found = [one.found.group for one in self.groups if one.state in states]
        return BlockSum(sum(group.count for group in found), sum(group.bytes for group in found))


def find_unreachable(
    context: LeakContext,
    graph: Callable[[], PointerGraph],
    reached: Callable[[], Reachability],
    question: UnreachableQuestion,
    stored: Callable[[Callable[[], UnreachableReport]], UnreachableReport],
) -> UnreachableBlocks:
    """The report.

    Args:
        context: in which blocks are grouped.
        graph: makes the pointer graph; not called for a stored report until rows of blocks are asked for.
        reached: likewise how its blocks are reached, without suppressions.
        question: what is asked.
        stored: `stored(make)` is the report of an earlier run, or `make()`.
    """
    search = _UnreachableSearch(context, graph, reached, question)
    report = stored(lambda: search.report)
    groups = tuple(
        UnreachableGroup(reach, one, partial(search.rows_of, reach, one.group.value)) for reach, one in report.groups
    )
    used, unused = search.rules if question.suppressions.rules else ((), ())
    return UnreachableBlocks(report, groups, search.blocks, used, unused)


@dataclass(frozen=True)
class _UnreachableSearch:
    """The blocks of each state, found when first asked for; see `find_unreachable`."""

    context: LeakContext
    make_graph: Callable[[], PointerGraph]
    make_reached: Callable[[], Reachability]
    question: UnreachableQuestion
    _found: dict[Reach, Leaks] = field(default_factory=dict)

    @cached_property
    def graph(self) -> PointerGraph:
        """The pointers between blocks."""
        return self.make_graph()

    @cached_property
    def suppressed(self) -> _SuppressedStacks:
        """How the blocks are reached, and what suppressions do."""
        return _suppress(self.context, self.graph, self.make_reached(), self.question)

    @cached_property
    def state(self) -> NDArray[np.uint8]:
        """(n,) the `Reach` of each node that is asked about, 0 of others."""
        state, rows = self.suppressed.reached.state, self.question.grouping.rows
        if rows is None:
            return state
        is_asked = np.zeros(len(self.context.table), bool)
        is_asked[rows] = True
        return np.where(is_asked[self.graph.rows], state, np.uint8(0))

    @property
    def report(self) -> UnreachableReport:
        """The part of the answer that the index stores."""
        graph, sums = self.graph, _sums(self.state, self.graph.rows, self.context.table)
        states = [state for state in REPORTED if sums[state].blocks]
        first = self._groups_of(states[0]) if states else None
        groups = tuple((state, one) for state in states for one in self._groups_of(state).groups)
        by, missing = (first.by, first.missing) if first else (self.question.grouping.by, "")
        cycles = (graph.rows[one].astype(np.int64) for one in self.suppressed.reached.cycles if self.state[one].any())
        limits = missing_evidence(graph), has_way_in(self.context.process, graph)
        return UnreachableReport(sums, groups, by, missing, tuple(cycles), *limits)

    @property
    def rules(self) -> tuple[tuple[RuleCount, ...], tuple[Rule, ...]]:
        """(suppressed blocks by rule, rules that match no stack)."""
        if not len(self.suppressed.stacks):
            return (), self.suppressed.unused
        counts = self.suppressed.count(self.context, self.graph, self.state, self.question)
        return counts.suppressed, counts.unused

    def rows_of(self, reach: Reach, value: int) -> NDArray[np.int64]:
        """The rows of one group."""
        leaks = self._groups_of(reach)
        rows: NDArray[np.int64] = leaks.rows[leaks.values == value]
        return rows

    def blocks(self) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Rows and states of all blocks of the states `REPORTED`."""
        reported = np.flatnonzero((self.state >= Reach.POSSIBLE) & (self.state <= Reach.DIRECT))
        return self.graph.rows[reported].astype(np.int64), self.state[reported]

    def _groups_of(self, reach: Reach) -> Leaks:
        """The blocks of one state in groups."""
        if reach not in self._found:
            rows = _rows(self.graph, self.state, reach)
            self._found[reach] = find_leaks(self.context, replace(self.question.grouping, rows=rows))
        return self._found[reach]


def _rows(graph: PointerGraph, state: NDArray[np.uint8], *states: Reach) -> NDArray[np.int64]:
    """Rows of the nodes of these states, ascending."""
    is_wanted = np.zeros(256, bool)
    is_wanted[list(states)] = True
    chosen = (graph.rows[part][is_wanted[state[part]]] for part in batches(len(state)))
    rows = np.concatenate([np.empty(0, np.int32), *chosen], dtype=np.int64)
    if (rows[1:] < rows[:-1]).any():  # heaps over each other
        rows.sort()
    return rows


def _sums(state: NDArray[np.uint8], rows: NDArray[np.int32], table: BlockTable) -> dict[Reach, BlockSum]:
    """Blocks and requested bytes of each state."""
    counts, totals = np.zeros(len(Reach) + 1, np.int64), np.zeros(len(Reach) + 1, np.int64)
    run(add_up, len(rows), state, rows, table.reader(), counts, totals)
    return {reach: BlockSum(int(counts[reach]), int(totals[reach])) for reach in Reach}


@dataclass(frozen=True, slots=True)
class _SuppressedStacks:
    """The result of suppressions.

    Attributes:
        reached: with state IGNORED for leaks of suppressed stacks, and for what only these hold.
        stacks: uint64 numbers of the suppressed stacks.
        unused: rules that match no stack.
    """

    reached: Reachability
    stacks: NDArray[np.uint64]
    unused: tuple[Rule, ...]

    def count(
        self, context: LeakContext, graph: PointerGraph, state: NDArray[np.uint8], question: UnreachableQuestion
    ) -> Leaks:
        """Groups the IGNORED blocks of suppressed stacks, so that each rule has its blocks of those asked about."""
        rows = _rows(graph, state, Reach.IGNORED)
        rows = rows[np.isin(context.stacks.numbers(rows), self.stacks)]
        leaks = find_leaks(
            context, replace(question.grouping, by=GroupKey.STACK, rows=rows, min_bytes=0), question.suppressions
        )
        return replace(leaks, unused=_still_unused(self.unused, leaks))


def _still_unused(unused: tuple[Rule, ...], leaks: Leaks) -> tuple[Rule, ...]:
    return tuple(rule for rule in unused if rule in leaks.unused)


def _suppress(
    context: LeakContext, graph: PointerGraph, reached: Reachability, question: UnreachableQuestion
) -> _SuppressedStacks:
    """All blocks of a suppressed stack become roots, until no leak of another suppressed stack remains."""
    plain = without_direct_cycles(reached) if question.as_lsan else reached
    unused, known = question.suppressions.rules, np.empty(0, np.uint64)
    if not unused or not context.stacks.are_recorded:
        return _SuppressedStacks(plain, known, unused)
    numbers, current = context.stacks.numbers(graph.rows.astype(np.int64)), plain
    for _ in range(_MOST_RUNS):
        leaked = current.nodes(*LEAKED)
        stacks = LeakQuestion(GroupKey.STACK, _rows(graph, current.state, *LEAKED), skip=question.grouping.skip)
        leaks = find_leaks(context, stacks, question.suppressions)
        unused = _still_unused(unused, leaks)
        fresh = np.unique(numbers[leaked[~np.isin(graph.rows[leaked], leaks.rows)]])
        fresh = fresh[(fresh > 0) & ~np.isin(fresh, known)]
        if not len(fresh):
            break
        known = np.concatenate([known, fresh])
        current = classify(graph, np.flatnonzero(np.isin(numbers, known)), as_lsan=question.as_lsan)
    was_leaked, is_leaked = np.isin(plain.state, LEAKED), np.isin(current.state, LEAKED)
    ended = np.where(is_leaked, current.state, np.uint8(Reach.IGNORED))
    return _SuppressedStacks(Reachability(np.where(was_leaked, ended, plain.state), current.cycles), known, unused)


def missing_evidence(graph: PointerGraph) -> tuple[str, ...]:
    """Sentences on the bytes of blocks and roots that the dump does not hold."""
    if not graph.missing_bytes:
        return graph.roots.missing
    total = int(graph.size.sum(dtype=np.int64))
    missing = f"{graph.missing_bytes:,} of {total:,} bytes of {plural(len(graph), 'busy block')}"
    text = f"{missing} are not in the dump: what only they hold looks leaked"
    return (text, *graph.roots.missing)
