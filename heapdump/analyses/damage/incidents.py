"""Incidents: everything that concerns one bug, joined.

In: explained findings. Out: incidents, errors first. Findings belong together where they concern the same bytes, or the
same block and the same bug; reports of Windows where they concern the same event, or the block or bytes of a finding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.damage.crash import Crash
from heapdump.analyses.damage.explained import CheckedProcess, ExplainedFinding, explain_findings
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.sentences import damage_sentence
from heapdump.blocks.damage import Damage
from heapdump.blocks.findings import BugKind, Finding, Protected, Severity
from heapdump.blocks.table import Block
from heapdump.memory.space import AddressSpace

_NEAR = 0x20
"""Bytes between two damaged places of one heap up to which they are one."""

_SAME_BLOCK = 0x40
"""Bytes between two damaged places of one block up to which they are one, whatever the bugs."""

_LONGEST_RUN = 0x10000
"""Bytes between two damaged places that are read for one write over both."""

_ENTRY_BYTES = 0x20
"""Bytes from an entry that ntdll names to the damage in its header, at most."""

_FREES = (BugKind.DOUBLE_FREE, BugKind.BAD_FREE, BugKind.MISMATCH)


@dataclass(frozen=True, slots=True)
class Incident:
    """All findings and reports of one bug.

    Attributes:
        number: from 1 on; errors come first.
        bug: `heap-corruption` where the bytes do not tell by which bug; None where nothing is wrong with a heap.
        severity: the highest of its findings.
        address: of the first bad byte.
        findings: the finding with the best evidence first.
    """

    number: int
    bug: BugKind | None
    severity: Severity
    address: int
    findings: tuple[ExplainedFinding, ...]

    @property
    def leading(self) -> ExplainedFinding:
        """The finding with the best evidence."""
        return self.findings[0]

    @property
    def sentence(self) -> str:
        """The incident for a person, without what its exception says besides."""
        report = self.leading.report
        if report is not None:
            return report.sentence or self.leading.finding.message
        return damage_sentence(self.bug, self.address, self.leading)

    @property
    def heap(self) -> int:
        """The address of the heap, 0 for none."""
        return next((one.finding.heap for one in self.findings if one.finding.heap), 0)

    @property
    def block(self) -> Block | None:
        """The damaged block of the first finding that has one; None without one."""
        return next((one.block for one in self.findings if one.block is not None), None)

    @property
    def culprit(self) -> Block | None:
        """The candidate that the bytes prove; None where they prove none."""
        return self.leading.culprit

    @property
    def is_error(self) -> bool:
        """True where a heap is damaged, or was misused."""
        return self.severity == "error"

    @property
    def is_of_heap(self) -> bool:
        """True for damage and misuse of a heap; False for an exception that is neither."""
        return self.is_error or any(one.report is None or one.bug is not None for one in self.findings)


def find_incidents(
    context: ReportContext,
    crash: Crash | None,
    damage: Damage,
    guards: Sequence[Finding],
    stacks: Callable[[NDArray[np.int64]], NDArray[np.uint64]],
) -> tuple[Incident, ...]:
    """The incidents: errors first, among these the ones that Windows reported, then by address.

    `guards`: changed guards of the CRT's debug heap. `stacks`: (n,) int64 rows → (n,) uint64 numbers of their
    allocation stacks, 0 where none is recorded.
    """
    explained = explain_findings(CheckedProcess(context, crash, damage, guards, stacks))
    groups = _joined(context.process.space, explained)
    made = sorted((_incident(group) for group in groups), key=_order)
    return tuple(_numbered(one, number) for number, one in enumerate(made, 1))


def _numbered(incident: Incident, number: int) -> Incident:
    findings = tuple(one.of_incident(number, incident.bug) for one in incident.findings)
    return Incident(number, incident.bug, incident.severity, incident.address, findings)


def _order(incident: Incident) -> tuple[bool, bool, int]:
    is_reported = any(one.report is not None for one in incident.findings)
    return not incident.is_error, not is_reported, incident.address


def _incident(group: Sequence[ExplainedFinding]) -> Incident:
    is_error = any(one.finding.is_error for one in group)
    bug = _bug(group) or (BugKind.CORRUPTION if is_error and not _is_other_stop(group) else None)
    ordered = sorted(group, key=lambda one: _rank(one, bug))
    leading = ordered[0]
    return Incident(0, bug, "error" if is_error else "warning", leading.judgement.start, tuple(ordered))


def _bug(group: Sequence[ExplainedFinding]) -> BugKind | None:
    """A free that was wrong explains what follows; then the damaged bytes decide, then what Windows says.

    None where all findings are warnings of heapdump's own: a heap that a thread is changing looks like that.
    """
    frees = (one.bug for one in group if one.report is not None and one.bug in _FREES)
    damage = (one.bug for one in sorted(group, key=_place) if one.report is None and one.finding.is_error)
    reports = (one.bug for one in group if one.report is not None)
    return next((bug for bugs in (frees, damage, reports) for bug in bugs if bug is not None), None)


def _is_other_stop(group: Sequence[ExplainedFinding]) -> bool:
    """True for a verifier stop that says nothing of a heap, and no damage with it."""
    return all(one.report is not None for one in group) and any(one.finding.kind == "verifier_stop" for one in group)


def _place(explained: ExplainedFinding) -> int:
    return explained.finding.address


def _rank(explained: ExplainedFinding, bug: BugKind | None) -> tuple[bool, int, int]:
    """Lowest for the finding that says most: one with the incident's bug, and with bytes before words."""
    finding = explained.finding
    if explained.report is None:
        weight = 0 if bug not in _FREES else 3
    else:
        weight = {"failure_record": 1, "exception": 2}.get(finding.kind, 2 - (explained.block is not None))
    return explained.bug is not bug, weight, finding.address


def _joined(space: AddressSpace, explained: Sequence[ExplainedFinding]) -> list[list[ExplainedFinding]]:
    """The findings in groups, by union of pairs that belong together."""
    parents = list(range(len(explained)))

    def root(i: int) -> int:
        """The finding that stands for the group of finding `i`."""
        while parents[i] != i:
            parents[i] = parents[parents[i]]
            i = parents[i]
        return i

    for i, k in _pairs(space, explained):
        parents[root(k)] = root(i)
    groups: dict[int, list[ExplainedFinding]] = {}
    for i, one in enumerate(explained):
        groups.setdefault(root(i), []).append(one)
    return list(groups.values())


def _pairs(space: AddressSpace, explained: Sequence[ExplainedFinding]) -> Iterator[tuple[int, int]]:
    """Pairs that belong together. Damage is compared with the next place by address, and inside each block."""
    reports = [i for i, one in enumerate(explained) if one.report is not None]
    damage = sorted((i for i, one in enumerate(explained) if one.report is None), key=lambda i: _place(explained[i]))
    for i, k in pairwise(damage):
        if _are_one(space, explained[i], explained[k]):
            yield i, k
    last: dict[tuple[int, BugKind | None], int] = {}
    for i in damage:
        block = explained[i].culprit or explained[i].block
        if block is not None:
            key = (block.row, explained[i].bug)
            if key in last and explained[i].bug is not None:
                yield last[key], i
            last[key] = i
    for number, i in enumerate(reports):
        yield from ((i, k) for k in reports[number + 1 :] if _is_same_event(explained[i], explained[k]))
        yield from ((i, k) for k in damage if _concerns(explained[i], explained[k]))


def _are_one(space: AddressSpace, first: ExplainedFinding, second: ExplainedFinding) -> bool:
    """True for neighbouring damage that one write explains."""
    if first.finding.heap != second.finding.heap:
        return False
    end = first.finding.address + max(first.finding.length, 1)
    gap = second.finding.address - end
    if gap <= _NEAR:
        return True
    is_same_block = first.block is not None and second.block is not None and first.block.row == second.block.row
    if is_same_block and gap <= _SAME_BLOCK:
        return True
    if gap > _LONGEST_RUN or Protected.HEADER not in (first.finding.rule.protected, second.finding.rule.protected):
        return False
    found = space.try_read(second.finding.address, max(second.finding.length, 1))
    if not found or not found[0] or found.strip(found[:1]) or space.try_read(end, 1) != found[:1]:
        return False  # without a look at the bytes between, which are many
    between = space.try_read(end, gap)
    return between is not None and not between.strip(found[:1])


def _is_same_event(first: ExplainedFinding, second: ExplainedFinding) -> bool:
    """True for reports of one event: ntdll's own exception and its record, a stop and its exception, one block."""
    both_kinds = {first.finding.kind, second.finding.kind}
    if "verifier_stop" in both_kinds and "exception" in both_kinds:
        return True
    if first.finding.is_error and second.finding.is_error and both_kinds == {"exception", "failure_record"}:
        return True
    is_stopped = "failure_record" in both_kinds and "exception" in both_kinds and _is_breakpoint(first, second)
    return is_stopped or (first.block is not None and second.block is not None and first.block.row == second.block.row)


def _is_breakpoint(*pair: ExplainedFinding) -> bool:
    """True where the exception is the breakpoint at which a debugger stops inside ntdll."""
    return any(one.finding.kind == "exception" and one.finding.found == "0x80000003" for one in pair)


def _concerns(reported: ExplainedFinding, damage: ExplainedFinding) -> bool:
    """True where a report of Windows concerns damage: its block, its header, or a register beside the bytes.

    Or where the failed access went through a pointer into the block whose header is overwritten.
    """
    report, finding = reported.report, damage.finding
    if report is None:
        return False
    rows = {one.row for one in (damage.block, damage.culprit) if one is not None}
    if reported.block is not None and reported.block.row in rows and (reported.bug is not None or finding.is_error):
        return True
    if reported.finding.kind == "failure_record":
        near = 0 <= finding.address - reported.finding.address < _ENTRY_BYTES
        return near or (report.entry <= finding.address < report.entry + _ENTRY_BYTES)
    if not finding.is_error:
        return False
    hit = damage.block if finding.rule.protected is Protected.HEADER else None
    return finding.address in report.beside or (
        hit is not None and any(hit.entry <= value < hit.end for value in report.used)
    )
