"""Unreachable blocks as a report: sums by state, groups by key, cycles, suppressed stacks.

In: the pointer graph, how its blocks are reached, a question. Out: `UnreachableBlocks`. Blocks of suppressed stacks
become roots, and the reachability is computed again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated import stored_groups
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
from heapdump.blocks.stored_checks import require_indices, require_length
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
    """The part of the answer that the index stores.

    Attributes:
        sums: state → its blocks.
        groups: (state, group), in the order of `REPORTED`, then most bytes first.
        by: the key of the groups.
        missing: the reason why this is not the key that was asked for, in words; "" where it is.
    """

    sums: dict[Reach, BlockSum]
    groups: tuple[tuple[Reach, LeakGroup], ...]
    by: GroupKey
    missing: str


@dataclass(frozen=True)
class UnreachableBlocks:
    """The complete answer.

    Attributes:
        sums: state → its blocks.
        groups: in the order of `REPORTED`, then most bytes first.
        by: the key of the groups.
        missing: the reason why this is not the key that was asked for, in words; "" where it is.
        blocks: gives ((k,) int64 rows, (k,) uint8 states) of all blocks of the states `REPORTED`, ascending by address.
        cycles: rows of the blocks of each cycle.
        suppressed: rules, each with the blocks that it suppresses.
        unused: rules that match no stack.
    """

    sums: dict[Reach, BlockSum]
    groups: tuple[UnreachableGroup, ...]
    by: GroupKey
    missing: str
    blocks: Callable[[], tuple[NDArray[np.int64], NDArray[np.uint8]]]
    cycles: tuple[NDArray[np.int64], ...]
    suppressed: tuple[RuleCount, ...]
    unused: tuple[Rule, ...]

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
    graph: PointerGraph,
    reached: Reachability,
    question: UnreachableQuestion,
    stored: Callable[[Callable[[], UnreachableReport]], UnreachableReport],
) -> UnreachableBlocks:
    """The report. `reached`: without suppressions; `stored(make)`: the report of an earlier run, or `make()`."""
    suppressed = _suppress(context, graph, reached, question)
    state, grouping = suppressed.reached.state, question.grouping
    if grouping.rows is not None:
        is_asked = np.zeros(len(context.table), bool)
        is_asked[grouping.rows] = True
        state = np.where(is_asked[graph.rows], state, 0)
    counts = suppressed.count(context, graph, state, question) if len(suppressed.stacks) else None

    @cache
    def found(reach: Reach) -> Leaks:
        """The blocks of one state in groups."""
        return find_leaks(context, replace(grouping, rows=_rows(graph, state, reach)))

    def rows_of(reach: Reach, value: int) -> NDArray[np.int64]:
        """The rows of one group."""
        leaks = found(reach)
        rows: NDArray[np.int64] = leaks.rows[leaks.values == value]
        return rows

    def blocks() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """Rows and states of all blocks of the states `REPORTED`."""
        reported = np.flatnonzero((state >= Reach.POSSIBLE) & (state <= Reach.DIRECT))
        return graph.rows[reported].astype(np.int64), state[reported]

    report = stored(lambda: _report(_sums(state, graph.rows, context.table), found, grouping.by))
    groups = tuple(
        UnreachableGroup(reach, one, partial(rows_of, reach, one.group.value)) for reach, one in report.groups
    )
    cycles = (graph.rows[members].astype(np.int64) for members in suppressed.reached.cycles if state[members].any())
    used, unused = (counts.suppressed, counts.unused) if counts else ((), suppressed.unused)
    return UnreachableBlocks(report.sums, groups, report.by, report.missing, blocks, tuple(cycles), used, unused)


def _rows(graph: PointerGraph, state: NDArray[np.uint8], *states: Reach) -> NDArray[np.int64]:
    """Rows of the nodes of these states, ascending."""
    is_wanted = np.zeros(256, bool)
    is_wanted[list(states)] = True
    chosen = (graph.rows[part][is_wanted[state[part]]] for part in batches(len(state)))
    rows = np.concatenate([np.empty(0, np.int32), *chosen], dtype=np.int64)
    if (rows[1:] < rows[:-1]).any():  # heaps over each other
        rows.sort()
    return rows


def _report(sums: dict[Reach, BlockSum], found: Callable[[Reach], Leaks], by: GroupKey) -> UnreachableReport:
    states = [state for state in REPORTED if sums[state].blocks]
    first = found(states[0]) if states else None
    groups = tuple((state, one) for state in states for one in found(state).groups)
    return UnreachableReport(sums, groups, first.by if first else by, first.missing if first else "")


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


def columns_of(report: UnreachableReport) -> dict[str, NDArray[Any]]:
    """A report as columns, which `from_columns` reads."""
    sums = [(report.sums[reach].blocks, report.sums[reach].bytes) for reach in Reach]
    words = np.frombuffer(json.dumps([report.by, report.missing]).encode(), np.uint8)
    states = np.array([state for state, _ in report.groups], np.uint8)
    groups = stored_groups.columns_of([one for _, one in report.groups])
    return groups | {"sums": np.array(sums, np.int64).reshape(-1), "state": states, "words": words}


def from_columns(columns: dict[str, NDArray[Any]], heaps: int) -> UnreachableReport:
    """The report that `columns_of` wrote, of a process with `heaps` heaps.

    Raises:
        ValueError, TypeError, LookupError: it is not what `columns_of` writes.
    """
    sums, states, (by, missing) = columns["sums"], columns["state"], json.loads(columns["words"].tobytes())
    require_length(sums, 2 * len(Reach), np.int64, "sums")
    require_indices(sums, 0, 1 << 62, "sums")
    require_length(states, len(columns["bytes"]), np.uint8, "states")
    require_indices(states, min(REPORTED), max(REPORTED) + 1, "states")
    totals = np.zeros(len(Reach) + 1, np.int64)
    np.add.at(totals, states, columns["bytes"])
    groups = zip(map(Reach, states.tolist()), stored_groups.from_columns(columns, heaps, totals[states]), strict=True)
    by_state = {reach: BlockSum(*pair) for reach, pair in zip(Reach, sums.reshape(-1, 2).tolist(), strict=True)}
    return UnreachableReport(by_state, tuple(groups), GroupKey(by), str(missing))
