"""Walks every heap and makes the block table of the process.

Allocators walk one after the other, in the order of `ALLOCATORS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from heapdump import memory_plan
from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps import allocator_of, allocators
from heapdump.heaps.counts import count_blocks
from heapdump.heaps.jobs import AllocatorJob, Pace, WalkLog
from heapdump.heaps.row_counts import RowCounts
from heapdump.heaps.workload import Workload
from heapdump.kernels.row import INTERNAL
from heapdump.process.model import Process

_BYTES_A_BLOCK = 64
"""As many bytes of a heap are taken for a block before the blocks are known."""


def walk_heaps(
    process: Process, heaps: Sequence[Heap], progress: Callable[[int, int], None], threads: int | None = None
) -> Walk:
    """Walks all heaps.

    `progress(bytes walked, all bytes)` is called from time to time. `threads`: the most threads at once; None for one a
    processor.
    """
    by_kind = {kind: [heap for heap in heaps if heap.kind == kind] for kind in allocators()}
    walked = [heap for group in by_kind.values() for heap in group]
    pace = Pace(sum(extent.span.size for heap in walked for extent in heap.extents), progress)
    logs = {heap.index: WalkLog() for heap in walked}
    table, rows = BlockColumns().since(0), RowCounts()
    for kind, group in by_kind.items():
        if not group:
            continue
        size = min(sum(extent.span.size for heap in group for extent in heap.extents), process.space.total_bytes)
        memory_plan.before("the walk and its uses", size // _BYTES_A_BLOCK * memory_plan.WALK_BYTES)
        workload = Workload(size)
        columns = BlockColumns(forecast=workload.expected)
        at_once = threads or os.cpu_count() or 1
        job = AllocatorJob(process, group, heaps, table, logs, pace, at_once, columns, workload)
        allocators()[kind].walk(job)
        table, rows = _joined(table, rows, job)
    counts = count_blocks(rows, walked, logs, lambda heap, count: _self_checks(process, heap, count))
    findings = tuple(finding for log in logs.values() for finding in log.findings)
    gaps = tuple(gap for heap in walked for gap in logs[heap.index].all_gaps(heap.address))
    facts = {index: dict(log.facts) for index, log in logs.items() if log.facts}
    return Walk(lambda: table, counts, findings, gaps, facts)


def _joined(table: BlockTable, rows: RowCounts, job: AllocatorJob) -> tuple[BlockTable, RowCounts]:
    """(the rows of a job and of the kinds walked before it, ascending by entry; the sums of all these rows)."""
    if not len(table):
        job.columns.sort()
        added = job.columns.since(0)
        return added, job.counts or RowCounts().add(added)
    if job.owned:
        is_owned = np.isin(table.entry, np.concatenate(job.owned))
        table = replace(table, tags=table.tags | np.where(is_owned, np.uint16(INTERNAL), np.uint16(0)))
    job.columns.extend(table)
    job.columns.sort()
    table = job.columns.since(0)
    return table, RowCounts().add(table)


def _self_checks(process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
    return allocator_of(heap).self_checks(process, heap, count)
