"""Unreachable blocks as a report: sums by kind, groups, circles; suppressed stacks are roots, and the check runs again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.groups import Group as Blocks
from heapdump.analyses.allocated.leaks import LeakGroup, Leaks, Question
from heapdump.analyses.allocated.stacks import Stacks
from heapdump.analyses.allocated.suppressions import Rule, Suppressions
from heapdump.analyses.graph.pointer_graph import PointerGraph
from heapdump.analyses.graph.unreachable import Reach, Reached, classify, without_firsts
from heapdump.blocks.heap import Trust
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.grouping import add_up
from heapdump.wording import plural

_MOST_RUNS = 8
LEAKED = (Reach.DIRECT, Reach.INDIRECT)
_ORDER = (*LEAKED, Reach.POSSIBLE)
Group = Callable[[Question, Suppressions], Leaks]
"""Groups blocks (see `leaks.find_leaks`)."""


@dataclass(frozen=True, slots=True)
class Sum:
    """Blocks and the bytes that the program asked for in them."""

    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class LostGroup:
    """Blocks of one kind and one key. `rows()` (n,) int64: the blocks, ascending by address; found when asked for."""

    kind: Reach
    found: LeakGroup
    rows: Callable[[], NDArray[np.int64]]


@dataclass(frozen=True)
class Report:
    """What of the answer is worth keeping: `sums` of every kind; `groups`, direct ones first, then by bytes.

    `by`: their key; `missing`: why it is another one than asked for.
    """

    sums: dict[Reach, Sum]
    groups: tuple[tuple[Reach, LeakGroup], ...]
    by: str
    missing: str


@dataclass(frozen=True)
class Lost:
    """`sums` of every kind; `groups`, direct ones first, then by bytes; `missing`: why they have another key than asked.

    IGNORED are leaked blocks of suppressed stacks, and what they hold. `blocks()`: (rows, kinds), (n,) each, of all
    reported blocks, ascending by address; `cycles`: rows of each circle of leaked blocks that nothing else holds.
    `suppressed`, `unused` rules of the suppressions.
    """

    sums: dict[Reach, Sum]
    groups: tuple[LostGroup, ...]
    by: str
    missing: str
    blocks: Callable[[], tuple[NDArray[np.int64], NDArray[np.uint8]]]
    cycles: tuple[NDArray[np.int64], ...]
    suppressed: tuple[Rule, ...]
    unused: tuple[Rule, ...]

    @property
    def leaked(self) -> Sum:
        """Direct and indirect leaks of these groups together."""
        return self._grouped(LEAKED)

    @property
    def left(self) -> Sum:
        """Blocks of the reported kinds in groups that were left out."""
        found = self._grouped(_ORDER)
        return Sum(
            sum(self.sums[kind].blocks for kind in _ORDER) - found.blocks,
            sum(self.sums[kind].bytes for kind in _ORDER) - found.bytes,
        )

    def _grouped(self, kinds: tuple[Reach, ...]) -> Sum:
        found = [one.found.group for one in self.groups if one.kind in kinds]
        return Sum(sum(group.count for group in found), sum(group.bytes for group in found))


def find_lost(
    graph: PointerGraph, before: Reached, table: BlockTable, stacks: Stacks, question: Question, suppressions: Suppressions,
    group: Group, kept: Callable[[Callable[[], Report]], Report], *, filtered: bool, as_lsan: bool,
) -> Lost:  # fmt: skip
    """The report on all blocks, or when `filtered` on those of `question.rows`.

    `before`: how they are reached when nothing is suppressed. `kept`: returns what it is given makes, or the same as it
    was made before.
    """
    reached, known = _suppressed(graph, before, stacks, question, suppressions, group, as_lsan=as_lsan)
    state = reached.state
    if filtered:
        wanted = np.zeros(len(table), bool)
        wanted[question.rows] = True
        state = np.where(wanted[graph.rows], state, 0)
    if len(known):
        rows = np.sort(graph.rows[state == Reach.IGNORED]).astype(np.int64)
        _count(
            group,
            replace(question, by="stack", rows=rows[np.isin(stacks.numbers(rows), known)], min_bytes=0),
            suppressions,
        )

    @cache
    def found(kind: Reach) -> Leaks:
        """The blocks of one kind in groups."""
        return group(replace(question, rows=np.sort(graph.rows[state == kind]).astype(np.int64)), Suppressions())

    def rows_of(kind: Reach, value: int) -> NDArray[np.int64]:
        """The rows of one group."""
        rows: NDArray[np.int64] = found(kind).rows[found(kind).values == value]
        return rows

    def blocks() -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """The rows and kinds of all reported blocks."""
        reported = np.flatnonzero((state >= Reach.POSSIBLE) & (state <= Reach.DIRECT))
        return graph.rows[reported].astype(np.int64), state[reported]

    report = kept(lambda: _report(_sums(state, graph.rows, table), found, question.by))
    return Lost(
        report.sums, tuple(LostGroup(kind, one, partial(rows_of, kind, one.group.value)) for kind, one in report.groups), report.by, report.missing,
        blocks, tuple(graph.rows[members].astype(np.int64) for members in reached.cycles if state[members].any()),
        tuple(rule for rule in suppressions.rules if rule.count), tuple(rule for rule in suppressions.rules if not rule.matched),
    )  # fmt: skip


def _report(sums: dict[Reach, Sum], found: Callable[[Reach], Leaks], by: str) -> Report:
    kinds = [kind for kind in _ORDER if sums[kind].blocks]
    first = found(kinds[0]) if kinds else None
    groups = tuple((kind, one) for kind in kinds for one in found(kind).groups)
    return Report(sums, groups, first.by if first else by, first.missing if first else "")


def _sums(state: NDArray[np.uint8], rows: NDArray[np.int32], table: BlockTable) -> dict[Reach, Sum]:
    """Blocks and requested bytes of each kind."""
    counts, totals = np.zeros(len(Reach) + 1, np.int64), np.zeros(len(Reach) + 1, np.int64)
    run(add_up, len(rows), state, rows, table.size8, table.unused, counts, totals)
    return {kind: Sum(int(counts[kind]), int(totals[kind])) for kind in Reach}


def _suppressed(
    graph: PointerGraph,
    before: Reached,
    stacks: Stacks,
    question: Question,
    suppressions: Suppressions,
    group: Group,
    *,
    as_lsan: bool,
) -> tuple[Reached, NDArray[np.uint64]]:
    """All blocks of a suppressed stack become roots, and the check runs again, until no more stacks are suppressed.

    Returns:
        How blocks are reached, IGNORED those that are no leak any more for that, and the suppressed stacks.
    """
    plain = without_firsts(before) if as_lsan else before
    known = np.empty(0, np.uint64)
    if not suppressions.rules or not stacks.are_recorded:
        return plain, known
    numbers, reached = stacks.numbers(graph.rows.astype(np.int64)), plain
    for _ in range(_MOST_RUNS):
        lost = reached.nodes(*LEAKED)
        kept = group(
            Question("stack", np.sort(graph.rows[lost]).astype(np.int64), skip=question.skip), suppressions
        ).rows
        fresh = np.unique(numbers[lost[~np.isin(graph.rows[lost], kept)]])
        fresh = fresh[(fresh > 0) & ~np.isin(fresh, known)]
        if not len(fresh):
            break
        known = np.concatenate([known, fresh])
        reached = classify(graph, np.flatnonzero(np.isin(numbers, known)), as_lsan=as_lsan)
    was_lost, is_lost = np.isin(plain.state, LEAKED), np.isin(reached.state, LEAKED)
    state = np.where(was_lost, np.where(is_lost, reached.state, np.uint8(Reach.IGNORED)), plain.state)
    return Reached(state, reached.cycles), known


def _count(group: Group, question: Question, suppressions: Suppressions) -> None:
    """Counts anew what each rule suppresses: the blocks asked about."""
    for rule in suppressions.rules:
        rule.count = rule.bytes = 0
    group(question, suppressions)


def missing_evidence(graph: PointerGraph) -> tuple[str, ...]:
    """What of blocks and roots the dump lacks, in words."""
    if not graph.missing_bytes:
        return graph.roots.missing
    total = int(graph.size.sum(dtype=np.int64))
    text = f"{graph.missing_bytes:,} of {total:,} bytes of {plural(len(graph), 'busy block')} are not in the dump: what only they hold looks leaked"
    return (text, *graph.roots.missing)


CAVEATS = (
    "not seen: pointers that only the kernel holds (timers, I/O in flight, window data), and encoded ones (RtlEncodePointer)",
    "taken for pointers: whatever looks like one, such as old values in unused stack slots",
)
"""What could hide a reference, and what could fake one."""


def to_record(report: Report) -> dict[str, Any]:
    """A report as a JSON object, which `from_record` reads. Frames are left out: groups by stack are not stored."""
    groups = [
        {"kind": kind, "key": one.key, "trust": one.trust.value, "group": asdict(one.group)}
        for kind, one in report.groups
    ]
    sums = {str(int(kind)): (found.blocks, found.bytes) for kind, found in report.sums.items()}
    return {"sums": sums, "groups": groups, "by": report.by, "missing": report.missing}


def from_record(record: dict[str, Any]) -> Report:
    """The report that `to_record` wrote."""
    sums = {Reach(int(kind)): Sum(*found) for kind, found in record["sums"].items()}
    groups = tuple(
        (Reach(one["kind"]), LeakGroup(one["key"], _group(one["group"]), (), Trust(one["trust"])))
        for one in record["groups"]
    )
    return Report(sums, groups, record["by"], record["missing"])


def _group(record: dict[str, Any]) -> Blocks:
    return Blocks(**record | {name: tuple(record[name]) for name in ("heaps", "sample")})
