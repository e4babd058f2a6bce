"""Unreachable blocks as a report: sums by state, groups by key, cycles, suppressed stacks.

In: the pointer graph, how its blocks are reached, a question. Out: `UnreachableBlocks`. Blocks of suppressed stacks become
roots, and the reachability is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.by import By
from heapdump.analyses.allocated.groups import BlockGroup
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
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.grouping import add_up
from heapdump.trust import Trust
from heapdump.wording import plural

_MOST_RUNS = 8
CAVEATS = (
    "not seen: pointers that only the kernel holds (timers, I/O in flight, window data), and encoded ones (RtlEncodePointer)",
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
    """`grouping`: the key, and the rows that count where `is_filtered`; else all blocks count.

    `as_lsan`: states of cycles as LeakSanitizer reports them.
    """

    grouping: LeakQuestion
    suppressions: Suppressions
    is_filtered: bool
    as_lsan: bool

    @property
    def is_plain(self) -> bool:
        """True for a question about all blocks whose answer depends on nothing but the dump and the key."""
        grouping = self.grouping
        is_all = not (self.is_filtered or self.suppressions.rules or grouping.min_bytes)
        return is_all and not self.as_lsan and not grouping.by.needs_stacks


@dataclass(frozen=True, slots=True)
class UnreachableGroup:
    """Blocks of one state and one key. `rows()`: (k,) int64 rows, ascending by address; computed when called."""

    state: Reach
    found: LeakGroup
    rows: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True, slots=True)
class UnreachableReport:
    """The part of the answer that is stored in the index.

    `sums` of every state; `groups` in the order of `REPORTED`, most bytes first; `by`: their key; `missing`: why it is
    not the key of the question, or "".
    """

    sums: dict[Reach, BlockSum]
    groups: tuple[tuple[Reach, LeakGroup], ...]
    by: By
    missing: str


@dataclass(frozen=True)
class UnreachableBlocks:
    """The whole answer. `sums`, `by`, `missing` as in `UnreachableReport`.

    `blocks()`: (rows int64, states uint8), (k,) each, of all blocks of the states `REPORTED`, ascending by address; `cycles`:
    rows of each cycle. `suppressed`: rules with the blocks that they suppress; `unused`: rules that match no stack.
    """

    sums: dict[Reach, BlockSum]
    groups: tuple[UnreachableGroup, ...]
    by: By
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
    if question.is_filtered:
        is_asked = np.zeros(len(context.table), bool)
        is_asked[grouping.rows] = True
        state = np.where(is_asked[graph.rows], state, 0)
    counts = suppressed.count(context, graph, state, question) if len(suppressed.stacks) else None

    @cache
    def found(reach: Reach) -> Leaks:
        """The blocks of one state in groups."""
        return find_leaks(context, replace(grouping, rows=_rows(graph, np.flatnonzero(state == reach))))

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


def _rows(graph: PointerGraph, nodes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of nodes, ascending."""
    return np.sort(graph.rows[nodes]).astype(np.int64)


def _report(sums: dict[Reach, BlockSum], found: Callable[[Reach], Leaks], by: By) -> UnreachableReport:
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
class _Suppressed:
    """`reached`: leaks that suppressions end are IGNORED; `stacks` uint64: numbers of suppressed stacks; `unused` rules."""

    reached: Reachability
    stacks: NDArray[np.uint64]
    unused: tuple[Rule, ...]

    def count(
        self, context: LeakContext, graph: PointerGraph, state: NDArray[np.uint8], question: UnreachableQuestion
    ) -> Leaks:
        """Groups the IGNORED blocks of suppressed stacks, so that each rule has its blocks of those asked about."""
        rows = _rows(graph, np.flatnonzero(state == Reach.IGNORED))
        rows = rows[np.isin(context.stacks.numbers(rows), self.stacks)]
        leaks = find_leaks(
            context, replace(question.grouping, by=By.STACK, rows=rows, min_bytes=0), question.suppressions
        )
        return replace(leaks, unused=_still_unused(self.unused, leaks))


def _still_unused(unused: tuple[Rule, ...], leaks: Leaks) -> tuple[Rule, ...]:
    return tuple(rule for rule in unused if rule in leaks.unused)


def _suppress(
    context: LeakContext, graph: PointerGraph, reached: Reachability, question: UnreachableQuestion
) -> _Suppressed:
    """All blocks of a suppressed stack become roots, until no leak of another suppressed stack remains."""
    plain = without_direct_cycles(reached) if question.as_lsan else reached
    unused, known = question.suppressions.rules, np.empty(0, np.uint64)
    if not unused or not context.stacks.are_recorded:
        return _Suppressed(plain, known, unused)
    numbers, current = context.stacks.numbers(graph.rows.astype(np.int64)), plain
    for _ in range(_MOST_RUNS):
        leaked = current.nodes(*LEAKED)
        stacks = LeakQuestion(By.STACK, _rows(graph, leaked), skip=question.grouping.skip)
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
    return _Suppressed(Reachability(np.where(was_leaked, ended, plain.state), current.cycles), known, unused)


def missing_evidence(graph: PointerGraph) -> tuple[str, ...]:
    """Sentences on the bytes of blocks and roots that the dump does not hold."""
    if not graph.missing_bytes:
        return graph.roots.missing
    total = int(graph.size.sum(dtype=np.int64))
    text = f"{graph.missing_bytes:,} of {total:,} bytes of {plural(len(graph), 'busy block')} are not in the dump: what only they hold looks leaked"
    return (text, *graph.roots.missing)


def to_record(report: UnreachableReport) -> dict[str, Any]:
    """A report as a JSON object, which `from_record` reads. Frames are left out: groups by stack are not stored."""
    groups = [
        {"state": state, "key": one.key, "trust": one.trust.value, "group": asdict(one.group), "identity": one.identity}
        for state, one in report.groups
    ]
    sums = {str(int(state)): (found.blocks, found.bytes) for state, found in report.sums.items()}
    return {"sums": sums, "groups": groups, "by": report.by, "missing": report.missing}


def from_record(record: dict[str, Any]) -> UnreachableReport:
    """The report that `to_record` wrote."""
    sums = {Reach(int(state)): BlockSum(*found) for state, found in record["sums"].items()}
    groups = tuple(
        (Reach(one["state"]), LeakGroup(one["key"], _group(one["group"]), (), Trust(one["trust"]), one["identity"]))
        for one in record["groups"]
    )
    return UnreachableReport(sums, groups, By(record["by"]), record["missing"])


def _group(record: dict[str, Any]) -> BlockGroup:
    return BlockGroup(**record | {name: tuple(record[name]) for name in ("heaps", "sample")})
