"""The counts of each heap after a walk, and the self-check against Windows' counters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.walk import Check, HeapCount, KindCount
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.row_counts import RowCounts
from heapdump.kernels.row import BUSY, INTERNAL

SelfChecks = Callable[[Heap, HeapCount], Iterable[Check]]
"""(heap, its counts) → its self-checks."""


def count_blocks(
    rows: RowCounts, heaps: Sequence[Heap], logs: dict[int, WalkLog], self_checks: SelfChecks
) -> dict[int, HeapCount]:
    """Heap index → its counts. A self-check that fails lowers the integrity and adds a gap to the heap's log."""
    return {
        heap.index: _checked(heap, _count(rows.of(heap.index), logs[heap.index]), logs[heap.index], self_checks)
        for heap in heaps
    }


def _count(sums: NDArray[np.int64], log: WalkLog) -> HeapCount:
    return HeapCount(
        kinds=_kind_counts(sums, 0),
        internal=_kind_counts(sums, INTERNAL),
        hosted=tuple(log.hosted),
        headers=log.headers,
        integrity=log.good_headers / log.headers if log.headers else None,
        uncommitted_bytes=log.uncommitted_bytes,
        uncommitted_free_bytes=log.uncommitted_free_bytes,
    )


def _kind_counts(sums: NDArray[np.int64], internal: int) -> tuple[KindCount, ...]:
    counted = (_kind(sums, kind, internal) for kind in BlockKind.known())
    return tuple(kind for kind in counted if kind.busy_blocks or kind.free_blocks)


def _kind(sums: NDArray[np.int64], kind: BlockKind, internal: int) -> KindCount:
    """The counts of one kind; `internal`: 0 or INTERNAL. `sums`: (3, CLASSES) of one heap (`RowCounts.of`)."""
    busy_blocks, busy_entries, unused = sums[:, kind | BUSY | internal].tolist()
    free_blocks, free_bytes, _ = sums[:, kind | internal].tolist()
    return KindCount(kind, busy_blocks, busy_entries - unused, busy_entries, free_blocks, free_bytes)


def _checked(heap: Heap, count: HeapCount, log: WalkLog, self_checks: SelfChecks) -> HeapCount:
    """The counts with the heap's self-checks. One that does not hold lowers the integrity and adds a gap.

    No self-checks are made where the dump lacks memory of the heap: the walk cannot have counted everything.
    """
    if log.missing_bytes:
        return count
    checks, integrity = tuple(self_checks(heap, count)), count.integrity
    for check in checks:
        if check.holds or integrity is None:
            continue
        integrity *= check.agreement
        log.gaps.append(
            f"heap {heap.address:#x}: {check.kind.words}: {check.walked:,} were found, Windows counted "
            f"{check.counted:,}: damaged, or being changed while the dump was taken"
        )
    return replace(count, integrity=integrity, checks=checks)
