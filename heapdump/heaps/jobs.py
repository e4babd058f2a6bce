"""What walking one heap gives besides its blocks, and what a heap kind of its own is given to walk with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import HeapCount, KindCount
from heapdump.memory import limits
from heapdump.process.model import Process, View


@dataclass
class WalkLog:
    """What a walk of one heap found so far besides its blocks: findings, gaps, and how many headers held.

    `hosted`, `uncommitted_bytes`, `uncommitted_free_bytes`: see `blocks.walk.HeapCount`.
    """

    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    headers: int = 0
    good_headers: int = 0
    has_more_gaps: bool = False
    hosted: list[KindCount] = field(default_factory=list)
    uncommitted_bytes: int = 0
    uncommitted_free_bytes: int = 0

    def find(self, finding: Finding) -> None:
        """Keeps a finding; of a heap that is damaged all over, the first ones."""
        if len(self.findings) < limits.MAX_FINDINGS:
            self.findings.append(finding)
        elif len(self.findings) == limits.MAX_FINDINGS:
            self.findings.append(finding)
            self.gaps.append(f"heap {finding.heap:#x}: only its first {len(self.findings):,} findings are kept")

    def gap(self, text: str) -> None:
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


@dataclass
class Job:
    """One heap of `heaps` to walk, and where its blocks go: rows in any order to `columns`, everything else to `walked`.

    `table`: the rows of all NT heaps, ascending, for heaps that keep their blocks inside one of those; entries of its
    rows that belong to this heap go to `owned`, (n,) uint64 each, and are counted as internal from then on; `host` is
    told, by the index of the heap they lie in, what is counted as this heap's.
    `advance(bytes)` tells the progress.
    """

    process: Process
    view: View
    heap: Heap
    heaps: Sequence[Heap]
    columns: BlockColumns
    walked: WalkLog
    table: BlockTable
    advance: Callable[[int], None]
    host: Callable[[int, KindCount], None]
    owned: list[NDArray[np.uint64]] = field(default_factory=list)


@dataclass
class CheckJob:
    """One walked heap of `heaps` to check: what is found goes to `findings`, what could not be checked to `gaps`.

    `table`: all rows; `count`: of this heap; `changing`: who may be changing it at this moment, in words, "" nobody: asked
    when something contradicts that contradicts for a while during a change; `has_damage`: the walk found some. `guards`:
    blocks that may be the CRT's, by the guard where its debug header ends.
    """

    process: Process
    view: View
    heap: Heap
    heaps: Sequence[Heap]
    table: BlockTable
    count: HeapCount
    changing: Callable[[], str]
    has_damage: bool
    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    guards: int = 0


CheckHeap = Callable[[CheckJob], None]
"""Looks at what the walk does not look at. Never raises for bad data."""

WalkHeap = Callable[[Job], None]
"""Walks the heap of a job. Never raises for bad data."""

NumbersOf = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
"""The numbers of the allocation stacks of table rows of one heap; (n,) uint64, 0 where none is recorded."""

ReadTraces = Callable[[View, Heap, BlockTable], NumbersOf]
"""Makes what reads the stack numbers of a heap's rows."""
