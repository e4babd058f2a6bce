"""Findings explained: each with the block that was damaged, the candidates, the evidence in memory.

In: findings of the heaps, changed CRT guards, reports of Windows. Out: explained findings, in no particular order;
`incidents` joins them. The name of an explained finding (`fingerprint`) is the same for the same bug in another dump.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.blocks.locate import locate
from heapdump.analyses.damage.candidates import Candidate, DamageContext, Judgement, judge
from heapdump.analyses.damage.crash import Crash
from heapdump.analyses.damage.evidence import DamageEvidence, evidence_of
from heapdump.analyses.damage.near_blocks import NearBlocks
from heapdump.analyses.damage.report_context import ReportContext
from heapdump.analyses.damage.reports import windows_reports
from heapdump.analyses.damage.windows_report import WindowsReport
from heapdump.blocks.damage import Damage
from heapdump.blocks.findings import BugKind, Finding, Protected
from heapdump.blocks.table import Block, BlockTable

_LIST_NODE_BYTES = 0x40
"""Bytes from a node of the large-block list to the entry of its block, at most."""

_LOWEST = 0x10000
"""The lowest value that can be a pointer."""

_BATCH = 4096
"""Findings whose blocks are decoded together."""


@dataclass(frozen=True, slots=True)
class ExplainedFinding:
    """A finding, or a report of Windows, with everything known of it.

    Attributes:
        finding: the finding.
        judgement: the bug and the candidates.
        block: the damaged block; None where no block is known there.
        around: reads the memory around a finding; the dump must be open.
        alike: number of other findings of this kind whose first candidate has the same size.
        alike_stack: number of other findings of this kind whose first candidate has the same allocation stack; None
            where no stack is recorded.
        report: the report of Windows; None for damage that was found.
        incident: number of its incident, from 1 on; 0 before incidents are made.
    """

    finding: Finding
    judgement: Judgement
    block: Block | None
    around: Callable[[Finding], DamageEvidence]
    alike: int
    alike_stack: int | None
    report: WindowsReport | None
    incident: int = 0

    def of_incident(self, number: int, bug: BugKind | None) -> ExplainedFinding:
        """A copy that belongs to incident `number`, whose bug is `bug`; None where that is no bug, or not known."""
        known = self.judgement
        judged = known if bug is known.bug else Judgement(bug, known.culprit, known.candidates, known.start)
        return ExplainedFinding(
            self.finding, judged, self.block, self.around, self.alike, self.alike_stack, self.report, number
        )

    @property
    def evidence(self) -> DamageEvidence:
        """The memory around it; without the meaning of its bytes for a report of Windows.

        Read at each call: of thousands of findings few are shown.
        """
        found = self.around(self.finding)
        return found if self.report is None else replace(found, meaning="")

    @property
    def bug(self) -> BugKind | None:
        """The bug that explains it; None where several do."""
        return self.judgement.bug

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The blocks that would explain it, the likeliest first."""
        return self.judgement.candidates

    @property
    def candidate(self) -> Block | None:
        """The block of the first candidate; None without one."""
        return self.candidates[0].block if self.candidates else None

    @property
    def culprit(self) -> Block | None:
        """The candidate that the bytes prove; None where they prove none."""
        return self.judgement.culprit


@dataclass(frozen=True)
class CheckedProcess:
    """A process whose heaps were walked and checked.

    Attributes:
        reports: the context of Windows' reports.
        crash: the crash that a block explains; None without one.
        damage: findings of the heaps.
        guards: changed guards of the CRT's debug heap (`crt_guards`).
        stacks: (n,) int64 rows → (n,) uint64 numbers of their allocation stacks, 0 where none is recorded.
    """

    reports: ReportContext
    crash: Crash | None
    damage: Damage
    guards: Sequence[Finding]
    stacks: Callable[[NDArray[np.int64]], NDArray[np.uint64]]

    @property
    def table(self) -> BlockTable:
        """Every block of every heap."""
        return self.reports.table

    @property
    def context(self) -> DamageContext:
        """The context in which findings are judged."""
        process = self.reports.process
        regions = process.regions
        return DamageContext(
            process.space,
            self.table,
            lambda value: value >= _LOWEST and regions.is_committed(value),
        )


def explain_findings(checked: CheckedProcess) -> tuple[ExplainedFinding, ...]:
    """Every finding and every report of Windows, in no particular order. Without any the block table is not opened."""
    reports, damage = checked.reports, checked.damage
    findings = [*_distinct(damage.findings), *checked.guards]
    found = list(_judged(checked.context, findings)) if findings else []
    around = partial(_around, checked)
    windows = windows_reports(reports, checked.crash, damage.findings)
    return (*(_reported(report, around) for report in windows), *_explained(checked, found, around))


def _around(checked: CheckedProcess, finding: Finding) -> DamageEvidence:
    return evidence_of(checked.reports.process, checked.table, finding)


def fingerprint(explained: ExplainedFinding, frames: Sequence[str]) -> str:
    """A name that the same bug has in another dump: a hash of kind, sizes of both blocks, and the candidate's stack.

    `frames`: the stack as module and offset, which do not depend on where modules are loaded.
    """
    candidate, block, bug = explained.candidate, explained.block, explained.bug
    sizes = candidate and candidate.size, block and block.size
    words = [explained.finding.kind, bug and bug.value, *sizes, *frames]
    return hashlib.sha256(repr(words).encode()).hexdigest()[:16]


def _explained(
    checked: CheckedProcess, found: Sequence[_Judged], around: Callable[[Finding], DamageEvidence]
) -> Iterator[ExplainedFinding]:
    """The findings with the numbers of others like them."""
    firsts = [one.judgement.candidates[0].block if one.judgement.candidates else None for one in found]
    sizes, stacks = [block.size if block else None for block in firsts], _stacks(checked, firsts)
    counted = zip(found, _others(found, sizes), stacks, _others(found, stacks), strict=True)
    for (finding, judgement, block), alike, stack, alike_stack in counted:
        yield ExplainedFinding(finding, judgement, block, around, alike, alike_stack if stack else None, None)


def _others(found: Sequence[_Judged], keys: Sequence[int | None]) -> list[int]:
    """For each finding the number of others with the same kind and the same key."""
    pairs = [(one.finding.kind, key) for one, key in zip(found, keys, strict=True)]
    counts = Counter(pairs)
    return [counts[pair] - 1 for pair in pairs]


def _stacks(checked: CheckedProcess, blocks: Sequence[Block | None]) -> list[int]:
    """Numbers of the stacks that allocated the blocks; 0 for none."""
    rows = np.array([block.row if block else -1 for block in blocks], np.int64)
    stacks = np.zeros(len(rows), np.uint64)
    stacks[rows >= 0] = checked.stacks(rows[rows >= 0])
    numbers: list[int] = stacks.tolist()
    return numbers


def _distinct(findings: Sequence[Finding]) -> Iterator[Finding]:
    """The findings without the second and later ones of the same header."""
    headers: set[tuple[int, int]] = set()
    for finding in findings:
        key = (finding.heap, finding.address >> 3)
        if finding.rule.protected is Protected.HEADER:
            if key in headers:
                continue
            headers.add(key)
        yield finding


class _Judged(NamedTuple):
    """A finding with its judgement, and the damaged block; None where no block is known there."""

    finding: Finding
    judgement: Judgement
    block: Block | None


def _judged(context: DamageContext, findings: Sequence[Finding]) -> Iterator[_Judged]:
    for first in range(0, len(findings), _BATCH):
        batch = findings[first : first + _BATCH]
        near = NearBlocks(context.table, [finding.address for finding in batch])
        for finding in batch:
            block = _damaged_block(context, near, finding)
            yield _Judged(finding, judge(context, near, finding, block), block)


def _damaged_block(context: DamageContext, near: NearBlocks, finding: Finding) -> Block | None:
    """The block that was damaged: of a header the block behind it, of a list node the block that it belongs to."""
    table = context.table
    if finding.rule.protected is Protected.HEADER:
        row = near.row_at(finding.address)
        own = near.block(row) if row >= 0 else None
        return own if own is not None and not own.is_internal and finding.address < own.address else None
    if finding.kind == "virtual_list":
        after = int(np.searchsorted(table.entry, np.uint64(finding.address)))
        if after < len(table) and int(table.entry[after]) - finding.address <= _LIST_NODE_BYTES:
            return table.block(after)
    block = locate(table, context.space, finding.address).block
    return block if block is not None and not block.is_internal else None


def _reported(report: WindowsReport, around: Callable[[Finding], DamageEvidence]) -> ExplainedFinding:
    """A report of Windows. The block at fault is the candidate, and the culprit where its own bytes were left."""
    block, finding = report.block, report.finding
    is_known = block is not None and report.bug is not None
    candidates = (Candidate(block, "the block at fault"),) if is_known else ()
    is_overrun = report.bug in (BugKind.OVERFLOW, BugKind.UNDERFLOW)
    judgement = Judgement(report.bug, block if is_overrun else None, candidates, finding.address)
    return ExplainedFinding(finding, judgement, block, around, 0, None, report)
