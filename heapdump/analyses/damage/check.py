"""What broke the heap: every damaged place with its block, the likeliest culprit, and what lies in it.

In: findings of the heaps, CRT guards, what Windows reported. Out: problems, gravest first, each with a name that is the
same for the same bug in another dump.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.blocks.select import locate
from heapdump.analyses.damage.candidates import HEADER_KINDS, Candidate, bug_of, suspects_of
from heapdump.analyses.damage.crash import Bug, Crash
from heapdump.analyses.damage.evidence import Evidence, look_at
from heapdump.analyses.damage.reports import REPORTED, Report, reports
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.damage import Damage
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import Block, BlockTable
from heapdump.process.model import Process

_GUARD_BYTES = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """One damaged place, or one thing that Windows reported.

    `block`: the victim, None where no block is known there; `candidates`: who may have done it, likeliest first; other
    places with the same kind of damage: `alike` beside blocks of the culprit's size, `alike_stack` beside blocks that were
    allocated by its stack, None where none is recorded; `report`: what Windows said besides.
    """

    finding: Finding
    bug: Bug | None
    block: Block | None
    candidates: tuple[Candidate, ...]
    evidence: Evidence
    alike: int
    alike_stack: int | None
    report: Report | None

    @property
    def culprit(self) -> Block | None:
        """The likeliest one."""
        return self.candidates[0].block if self.candidates else None


@dataclass(frozen=True)
class Examined:
    """What is examined: the walk's rows, what the heaps' own checks found, the crash, CRT debug blocks.

    `stacks`: numbers of the allocation stacks of rows, 0 where none is recorded.
    """

    process: Process
    heaps: Sequence[Heap]
    table: BlockTable
    damage: Damage
    crash: Crash | None
    crt: Callable[[NDArray[np.int64]], CrtBlocks]
    stacks: Callable[[NDArray[np.int64]], NDArray[np.uint64]]


def find_problems(examined: Examined) -> tuple[Problem, ...]:
    """Every problem: errors first, what Windows reported before damage, then by address."""
    found = [_problem(examined, finding) for finding in (*_distinct(examined.damage.findings), *_guards(examined))]
    sizes = [problem.culprit.size if problem.culprit else None for problem in found]
    counted = [
        replace(problem, alike=alike, alike_stack=same if stack else None)
        for problem, alike, stack, same in zip(found, _others(found, sizes), *_by_stack(examined, found), strict=True)
    ]
    told = [
        _reported(examined, report)
        for report in reports(examined.process, examined.table, examined.crash, examined.damage.findings)
    ]
    return tuple(sorted([*told, *counted], key=_order))


def fingerprint(problem: Problem, frames: Sequence[str]) -> str:
    """A name that the same bug has in another dump: of its kind, the sizes of victim and culprit, the culprit's stack.

    `frames`: the stack as module and offset, which do not depend on where modules were loaded.
    """
    culprit, block = problem.culprit, problem.block
    parts = [problem.finding.kind, problem.bug, culprit and culprit.size, block and block.size, *frames]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _order(problem: Problem) -> tuple[bool, bool, int]:
    finding = problem.finding
    return finding.severity != "error", finding.kind not in REPORTED, finding.address


def _others(found: Sequence[Problem], keys: Sequence[int | None]) -> list[int]:
    """How many other places have the same kind of damage, and the same key."""
    shapes = [(problem.finding.kind, key) for problem, key in zip(found, keys, strict=True)]
    counts = Counter(shapes)
    return [counts[shape] - 1 for shape in shapes]


def _by_stack(examined: Examined, found: Sequence[Problem]) -> tuple[list[int], list[int]]:
    """(number of the stack that allocated each culprit, 0 for none; how many other places have the same)."""
    rows = np.array([problem.culprit.row if problem.culprit else -1 for problem in found], np.int64)
    stacks = np.zeros(len(found), np.uint64)
    stacks[rows >= 0] = examined.stacks(rows[rows >= 0])
    return stacks.tolist(), _others(found, stacks.tolist())


def _distinct(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Without those that say again what another finding says of the same header."""
    headers: set[tuple[int, int]] = set()
    for finding in findings:
        key = (finding.heap, finding.address >> 3)
        if finding.kind in HEADER_KINDS:
            if key in headers:
                continue
            headers.add(key)
        yield finding


def _guards(examined: Examined) -> Iterator[Finding]:
    """Changed guards of CRT debug blocks."""
    table, space = examined.table, examined.process.space
    mine = (
        np.isin(table.heap, np.array(examined.damage.guarded, np.uint16))
        if examined.damage.guarded
        else np.zeros(0, bool)
    )
    blocks = examined.crt(np.flatnonzero(mine))
    for i in np.flatnonzero(blocks.guards).tolist():
        user, size, guards = int(blocks.user[i]), int(blocks.size[i]), int(blocks.guards[i])
        heap = examined.heaps[int(table.heap[blocks.row[i]])].address
        for bit, place, where in ((1, user - _GUARD_BYTES, "before"), (2, user + size, "after")):
            found = space.try_read(place, _GUARD_BYTES) or b""
            wrong = [k for k, byte in enumerate(found) if byte != 0xFD]
            if guards & bit and wrong:
                part = found[wrong[0] : wrong[-1] + 1]
                message = (
                    f"heap {heap:#x}: the CRT's guard {where} block #{int(blocks.request[i])} at {user:#x} is changed"
                )
                wanted = " ".join(["fd"] * len(part))
                yield Finding("crt_guard", "error", heap, place + wrong[0], len(part), message, wanted, part.hex(" "))


def _problem(examined: Examined, finding: Finding) -> Problem:
    table, space = examined.table, examined.process.space
    block = _victim(table, finding, locate(table, space, finding.address).block)
    candidates = tuple(suspects_of(space, table, finding, block))
    evidence = look_at(examined.process, table, finding)
    return Problem(finding, bug_of(finding, block, candidates), block, candidates, evidence, 0, None, None)


def _victim(table: BlockTable, finding: Finding, block: Block | None) -> Block | None:
    """The block that was damaged: of a header the one behind it, of a list entry the one it belongs to."""
    if finding.kind in HEADER_KINDS:
        row = int(np.searchsorted(table.entry, np.uint64(finding.address), side="right")) - 1
        own = table.block(row) if row >= 0 else None
        return own if own is not None and not own.is_internal and finding.address < own.address else None
    if finding.kind == "virtual_list":
        after = int(np.searchsorted(table.entry, np.uint64(finding.address)))
        if after < len(table) and int(table.entry[after]) - finding.address <= 0x40:
            return table.block(after)
    return block if block is not None and not block.is_internal else None


def _reported(examined: Examined, report: Report) -> Problem:
    """What Windows itself reported."""
    block = report.block
    candidates = (Candidate(block, "the block at fault"),) if block is not None and report.bug is not None else ()
    evidence = replace(look_at(examined.process, examined.table, report.finding), looks="")
    return Problem(report.finding, report.bug, block, candidates, evidence, 0, None, report)
