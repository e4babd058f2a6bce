"""The jobs of an allocator: to walk all heaps of its kind, to check one heap; and the log of a walk."""

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

MOST_ASSUMED_BUSY = 8
"""Entries of a heap with unknown states of which all choices are tried. A log keeps one more."""


@dataclass(frozen=True, slots=True)
class AssumedBusy:
    """A block that is taken for busy because its state is destroyed.

    Attributes:
        entry: address of its entry.
        finding: the damage; its message is also the log's gap.
        message_if_free: the message where the block turns out to be free.
    """

    entry: int
    finding: Finding
    message_if_free: str


@dataclass
class WalkLog:
    """Everything but rows that the walk of one heap has found so far.

    Attributes:
        findings: the first MAX_FINDINGS.
        damage_gaps: the first MAX_GAPS sentences about damaged places.
        gaps: the first MAX_GAPS of all others, such as those about memory that is not in the dump.
        headers: number of headers that were examined.
        good_headers: number of headers that verified.
        has_more_findings: True once findings were left out.
        has_more_damage_gaps: True once some of `damage_gaps` were left out.
        has_more_gaps: True once some of `gaps` were left out.
        hosted: see `blocks.walk.HeapCount`.
        uncommitted_bytes: see `blocks.walk.HeapCount`.
        uncommitted_free_bytes: see `blocks.walk.HeapCount`.
        facts: see `blocks.walk.Walk`.
        missing_bytes: committed bytes of the heap that are not in the dump; if not 0, its counts are incomplete.
        assumed_busy: blocks of unknown state, which the heap's counters may decide; the first MOST_ASSUMED_BUSY + 1.
    """

    findings: list[Finding] = field(default_factory=list)
    damage_gaps: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    headers: int = 0
    good_headers: int = 0
    has_more_findings: bool = False
    has_more_damage_gaps: bool = False
    has_more_gaps: bool = False
    hosted: list[KindCount] = field(default_factory=list)
    uncommitted_bytes: int = 0
    uncommitted_free_bytes: int = 0
    facts: dict[str, Fact] = field(default_factory=dict)
    missing_bytes: int = 0
    assumed_busy: list[AssumedBusy] = field(default_factory=list)

    @property
    def is_full(self) -> bool:
        """True where the log keeps nothing more about a damaged place."""
        return self.has_more_findings and self.has_more_damage_gaps and len(self.assumed_busy) > MOST_ASSUMED_BUSY

    def all_gaps(self, heap: int) -> Iterator[str]:
        """The gaps, and a sentence for each kind of which some were left out; `heap`: the heap's address."""
        yield from self.damage_gaps
        if self.has_more_damage_gaps:
            yield f"heap {heap:#x}: only the first {limits.MAX_GAPS:,} lines about its damaged places are kept"
        yield from self.gaps
        if self.has_more_gaps:
            yield f"heap {heap:#x}: only the first {limits.MAX_GAPS:,} lines about missing memory are kept"
        if self.has_more_findings:
            yield f"heap {heap:#x}: only its first {limits.MAX_FINDINGS:,} findings are kept"

    def add_finding(self, finding: Finding) -> None:
        """Adds a finding, up to the limit."""
        if len(self.findings) < limits.MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.has_more_findings = True

    def add_damage(self, finding: Finding, gap: str | None) -> None:
        """Adds a finding, and the gap that the damage causes; `gap` is None where no block can be missing."""
        if gap is not None:
            self._add_damage_gap(gap)
        self.add_finding(finding)

    def _add_damage_gap(self, text: str) -> None:
        if len(self.damage_gaps) < limits.MAX_GAPS:
            self.damage_gaps.append(text)
        else:
            self.has_more_damage_gaps = True

    def add_gap(self, text: str) -> None:
        """Adds a sentence about missing blocks that is about no damaged place, up to the limit."""
        if len(self.gaps) < limits.MAX_GAPS:
            self.gaps.append(text)
        else:
            self.has_more_gaps = True

    def merge(self, other: WalkLog) -> None:
        """Adds the log of another step of the walk of the same heap, up to the limits."""
        for finding in other.findings:
            self.add_finding(finding)
        for gap in other.damage_gaps:
            self._add_damage_gap(gap)
        for gap in other.gaps:
            self.add_gap(gap)
        self.has_more_findings |= other.has_more_findings
        self.has_more_damage_gaps |= other.has_more_damage_gaps
        self.has_more_gaps |= other.has_more_gaps
        self.headers += other.headers
        self.good_headers += other.good_headers
        self.uncommitted_bytes += other.uncommitted_bytes
        self.uncommitted_free_bytes += other.uncommitted_free_bytes
        self.facts |= other.facts
        self.assumed_busy = [*self.assumed_busy, *other.assumed_busy][: MOST_ASSUMED_BUSY + 1]


@dataclass
class AllocatorJob:
    """The walk of all heaps of one kind.

    Attributes:
        process: the process.
        heaps: the heaps to walk, by index.
        all_heaps: all heaps of the process, of every kind.
        table: rows of the kinds that were walked before, ascending.
        logs: heap index → log of that heap, to be filled.
        pace: progress, and the request to stop.
        threads: the most threads that may work at once.
        columns: gets the rows, in any order.
        workload: estimate of the number of blocks, which chooses between compiled and plain loops.
        owned: gets (n,) uint64 entries of rows of `table` that hold blocks of these heaps; these rows become internal.
        counts: sums of the new rows, where the allocator has made them; else None.
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
        """Replaces all rows that were added, and drops their sums."""
        self.columns, self.counts = BlockColumns(len(rows)), None
        self.columns.extend(rows)

    def _host(self, heap: int, count: KindCount) -> None:
        self.logs[heap].hosted.append(count)


class Pace:
    """The progress of all threads together, and the request to stop.

    Attributes:
        is_stopped: set by the caller; threads end at their next window.
    """

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        """`total`: bytes to walk; `progress(bytes walked, total)` is called after each step."""
        self._total, self._progress, self._done, self._lock = total, progress, 0, Lock()
        self.is_stopped = Event()

    def advance(self, count: int) -> None:
        """Adds `count` walked bytes."""
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)


@dataclass
class HeapJob:
    """The walk of one heap.

    Attributes:
        process: the process.
        view: the view that the heap lies in.
        heap: the heap to walk.
        heaps: all heaps of the process.
        columns: gets the rows, in any order.
        log: gets findings, gaps and facts.
        table: rows of the kinds that were walked before, ascending.
        advance: `advance(bytes)` reports progress.
        host: `host(index, count)` reports blocks of this heap that lie inside blocks of the heap with that index.
        workload: see `AllocatorJob`.
        owned: see `AllocatorJob`.
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

    @property
    def bytes_present(self) -> int:
        """Bytes of the heap that are in the dump."""
        starts, ends = (
            np.array(side, np.uint64)
            for side in (
                [extent.span.start for extent in self.heap.extents], [extent.span.end for extent in self.heap.extents],
            )
        )  # fmt: skip
        return int(self.process.space.mapped.bytes_present(starts, ends).sum())


@dataclass
class CheckJob:
    """The check of one walked heap.

    Attributes:
        process: the process.
        view: the view that the heap lies in.
        heap: the heap to check.
        heaps: all heaps of the process.
        table: rows of all heaps.
        count: counts of this heap.
        changing: gives words that name a thread which may be changing the heap; "" for none.
        has_damage: True where discovery or walk found damage in the heap.
        facts: see `blocks.walk.Walk`.
        findings: gets the findings; more than limits.MAX_FINDINGS of them are not shown.
        omitted: number of further findings that were counted alone.
        is_cut: set by the check where it may not have seen every damaged place.
        gaps: gets a sentence for each thing that could not be checked.
        in_operation: set by the check to the words of `changing` where contradictions are warnings for that reason.
        remarks: gets sentences about damage that no check of this heap can see.
        guards: set by the check to the number of blocks that may be the CRT's, by a guard where the CRT's header ends;
            None where it did not count them.
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
    omitted: int = 0
    is_cut: bool = False
    gaps: list[str] = field(default_factory=list)
    in_operation: str = ""
    remarks: list[str] = field(default_factory=list)
    guards: int | None = None


TraceReader = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
"""(n,) rows of one heap → (n,) uint64 numbers of their allocation stacks, 0 where none is recorded."""
