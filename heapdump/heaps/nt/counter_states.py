"""States of entries whose headers are destroyed, by Windows' counter of free bytes.

An entry whose Flags are lost counts as busy unless a free list links it. TotalFreeSize is the sum of all free entries
(docs/reference/heap-structures.md §2.8): where exactly one choice of such entries makes the walk agree with it, these
are free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, combinations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.jobs import MOST_ASSUMED_BUSY, AllocatorJob, AssumedBusy, WalkLog
from heapdump.kernels.row import BUSY, INTERNAL, KIND_MASK, TRUST_GUESS, TRUST_MASK, UNIT


def free_what_the_counters_say(job: AllocatorJob, heap: Heap) -> None:
    """Corrects the rows, findings and gaps of a heap of which all memory is in the dump."""
    log, counted = job.logs[heap.index], heap.counters.free_bytes
    entries = [assumed.entry for assumed in log.assumed_busy]
    if not 0 < len(entries) <= MOST_ASSUMED_BUSY or counted is None or log.missing_bytes:
        return
    table = job.columns.since(0)
    own = (table.heap == np.uint16(heap.index)) & (table.tags & np.uint16(KIND_MASK) == np.uint16(BlockKind.BACKEND))
    is_busy = table.tags & np.uint16(BUSY) > 0
    is_guess = table.tags & np.uint16(TRUST_MASK) == np.uint16(TRUST_GUESS)
    rows = np.flatnonzero(own & is_busy & is_guess & np.isin(table.entry, np.array(entries, np.uint64)))
    walked = int(table.size8[own & ~is_busy].astype(np.int64).sum()) * UNIT
    free = _only_choice(rows, table.size8[rows].astype(np.int64) * UNIT, counted - walked)
    if not len(free):
        return
    table.tags[free] &= np.uint16(0xFFFF & ~(BUSY | INTERNAL))
    table.unused[free] = table.header8[free].astype(np.uint32) * np.uint32(UNIT)
    job.counts = None
    freed = set(table.entry[free].tolist())
    _correct_log(log, [assumed for assumed in log.assumed_busy if assumed.entry in freed])


def _only_choice(rows: NDArray[np.int64], sizes: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """The rows whose sizes sum up to `wanted` bytes; none where no choice does, or more than one."""
    each = range(len(rows))
    choices = chain.from_iterable(combinations(each, count) for count in range(1, len(rows) + 1))
    found = [list(choice) for choice in choices if int(sizes[list(choice)].sum()) == wanted]
    return rows[found[0]] if len(found) == 1 else rows[:0]


def _correct_log(log: WalkLog, free: Sequence[AssumedBusy]) -> None:
    """Says of these entries that they are taken for free blocks."""
    findings = {one.finding: replace(one.finding, message=one.message_if_free) for one in free}
    gaps = {one.finding.message: one.message_if_free for one in free}
    log.findings[:] = [findings.get(finding, finding) for finding in log.findings]
    log.damage_gaps[:] = [gaps.get(gap, gap) for gap in log.damage_gaps]
