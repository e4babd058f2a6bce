"""Jobs that allocators carry out: walking all heaps of a kind, checking one heap; and the log of a walk."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Fact, HeapCount, HeapFacts, KindCount
from heapdump.heaps.row_counts import RowCounts
from heapdump.heaps.workload import Workload
from heapdump.memory import limits
from heapdump.process.model import Process, View


@dataclass
class WalkLog:
    """What a walk of one heap found so far besides its blocks: findings, gaps, and how many headers held.

    `hosted`, `uncommitted_bytes`, `uncommitted_free_bytes`: see `blocks.walk.HeapCount`; `facts`: see `blocks.walk.Walk`.
    `missing_bytes`: committed memory of the heap that the dump lacks, so that its counts are no whole ones.
    """

    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    headers: int = 0
    good_headers: int = 0
    has_more_gaps: bool = False
    hosted: list[KindCount] = field(default_factory=list)
    uncommitted_bytes: int = 0
    uncommitted_free_bytes: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    missing_bytes: int = 0

    def add_finding(self, finding: Finding) -> None:
        """Keeps a finding; of a heap that is damaged all over, the first ones."""
        if len(self.findings) < limits.MAX_FINDINGS:
            self.findings.append(finding)
        elif len(self.findings) == limits.MAX_FINDINGS:
            self.findings.append(finding)
            self.gaps.append(f"heap {finding.heap:#x}: only its first {len(self.findings):,} findings are kept")

    def add_damage(self, finding: Finding, gap: str | None) -> None:
        """Adds a finding, and the gap that the damage leaves; None where no block can be missing."""
        if gap is not None:
            self.add_gap(gap)
        self.add_finding(finding)

    def add_gap(self, text: str) -> None:
        """Keeps a line on what is missing; of a heap that is damaged all over, the first ones."""
        if len(self.gaps) < limits.MAX_GAPS:
            self.gaps.append(text)
        elif not self.has_more_gaps:
            self.has_more_gaps = True
            self.gaps.append(f"… and more of this kind: only the first {limits.MAX_GAPS:,} lines of a heap are kept")

    def merge(self, other: WalkLog) -> None:
        """Adds what another part of the walk found in the same heap."""
        self.findings += other.findings
        self.gaps += other.gaps
        self.headers += other.headers
        self.good_headers += other.good_headers
        self.uncommitted_bytes += other.uncommitted_bytes
        self.uncommitted_free_bytes += other.uncommitted_free_bytes
        self.facts |= other.facts


@dataclass
class AllocatorJob:
    """All heaps of one kind to walk: `heaps`, of all heaps of the process (`all_heaps`).

    `table`: the rows of the kinds that were walked before, ascending; a heap whose blocks lie inside some of those adds
    their addresses to `owned`, (n,) uint64 each, and they count as internal. `columns`: where rows go, in any order.
    `counts`: the sums of these rows where the allocator made them anyway. `logs`: heap index → findings and gaps of that
    heap. `threads`: the most that may work at once. `workload`: the blocks of all these heaps, for the choice of loops.
    """

    process: Process
    heaps: Sequence[Heap]
    all_heaps: Sequence[Heap]
    table: BlockTable
    logs: dict[int, WalkLog]
    pace: Pace
    threads: int
    columns: BlockColumns
    workload: Workload
    owned: list[NDArray[np.uint64]] = field(default_factory=list)
    counts: RowCounts | None = None

    def view_of(self, heap: Heap) -> View:
        """The view of the process that the heap belongs to."""
        return next(view for view in self.process.views if view.arch == heap.view)

    def each(self) -> Iterator[HeapJob]:
        """One job for each heap, in the order of the heaps."""
        for heap in self.heaps:
            log = self.logs[heap.index]
            yield HeapJob(
                self.process, self.view_of(heap), heap, self.all_heaps, self.columns, log, self.table,
                self.pace.advance, self._host, self.workload, self.owned,
            )  # fmt: skip

    def replace_rows(self, rows: BlockTable) -> None:
        """Puts other rows in the place of all that were added."""
        self.columns, self.counts = BlockColumns(len(rows)), None
        self.columns.extend(rows)

    def _host(self, heap: int, count: KindCount) -> None:
        self.logs[heap].hosted.append(count)


class Pace:
    """Progress of all threads together, and the request to stop."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        """`total`: bytes to walk; `progress(bytes done, bytes in all)`."""
        self._total, self._progress, self._done, self._lock = total, progress, 0, Lock()
        self.is_stopped = Event()

    def advance(self, count: int) -> None:
        """Adds `count` bytes to those that are done."""
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)


@dataclass
class HeapJob:
    """One heap of `heaps` to walk, and where its blocks go: rows in any order to `columns`, everything else to `walked`.

    `table`: the rows of all NT heaps, ascending, for heaps that keep their blocks inside one of those; entries of its
    rows that belong to this heap go to `owned`, (n,) uint64 each, and are counted as internal from then on; `host` is
    told, by the index of the heap they lie in, what is counted as this heap's.
    `advance(bytes)` tells the progress. `workload`: the blocks of all heaps of the kind, for the choice of loops.
    """

    process: Process
    view: View
    heap: Heap
    heaps: Sequence[Heap]
    columns: BlockColumns
    log: WalkLog
    table: BlockTable
    advance: Callable[[int], None]
    host: Callable[[int, KindCount], None]
    workload: Workload
    owned: list[NDArray[np.uint64]] = field(default_factory=list)


@dataclass
class CheckJob:
    """One walked heap of `heaps` to check: what is found goes to `findings`, what could not be checked to `gaps`.

    `table`: all rows; `count`: of this heap; `changing()`: who may be changing a heap at this moment, in words, "" for
    nobody: a reason for contradictions that a change leaves for a while. `has_damage`: the walk found some. `facts`: see
    `blocks.walk.Walk`. `in_operation`: set by the check where somebody was changing this heap and its contradictions are
    warnings, in words. `remarks`: lines on damage that no check of the heap can see. `guards`: the number of blocks that
    may be the CRT's, by the guard where its debug header ends; None where nobody counted them.
    """

    process: Process
    view: View
    heap: Heap
    heaps: Sequence[Heap]
    table: BlockTable
    count: HeapCount
    changing: Callable[[], str]
    has_damage: bool
    facts: HeapFacts
    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    in_operation: str = ""
    remarks: list[str] = field(default_factory=list)
    guards: int | None = None


TraceReader = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
"""Rows of one heap → the numbers of their allocation stacks; (n,) uint64, 0 where none is recorded."""
