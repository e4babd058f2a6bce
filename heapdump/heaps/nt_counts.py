"""What a walk counted in each heap, and the self-check against what Windows counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from heapdump.blocks.records import Heap
from heapdump.blocks.table import BUSY, INTERNAL, BlockKind, BlockTable
from heapdump.heaps.nt_blocks import Walked
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.tally import tally

_CLASSES = 64  # the low six bits of a row's tags: kind, busy, internal


@dataclass(frozen=True, slots=True)
class HeapCount:
    """What was counted in one heap; blocks without the allocator's own, sizes in bytes.

    `busy_bytes` as requested; `free_*` back-end free entries, `lfh_free_*` free slots of the front end. `integrity` =
    share of headers that verified.
    """

    busy_blocks: int
    busy_bytes: int
    free_blocks: int
    free_bytes: int
    lfh_free_blocks: int
    lfh_free_bytes: int
    internal_blocks: int
    headers: int
    integrity: float | None


def count_blocks(table: BlockTable, heaps: Sequence[Heap], walked: dict[int, Walked]) -> dict[int, HeapCount]:
    """Heap index → its count. A difference to Windows' own lowers the integrity and adds a gap to `walked`."""
    counts, totals = _tallied(table, 1 + max(walked, default=0))
    out = {}
    for heap in heaps:
        count = _count(counts[heap.index], totals[heap.index], walked[heap.index])
        out[heap.index] = _checked(heap, count, walked[heap.index])
    return out


def _tallied(table: BlockTable, heaps: int) -> tuple[Any, Any]:
    """Rows and bytes by heap and class; (heaps, 64) int64 each."""
    counts, totals = np.zeros(heaps * _CLASSES, np.int64), np.zeros(heaps * _CLASSES, np.int64)
    columns = (table.heap, table.units, table.spare, table.tags)
    quick = compiled_if_worth(tally, len(table))
    if quick is not None:
        quick(*columns, counts, totals)
    else:
        tally(*(memoryview(column) for column in columns), memoryview(counts), memoryview(totals))  # type: ignore[arg-type]
    return counts.reshape(heaps, _CLASSES), totals.reshape(heaps, _CLASSES)


def _count(counts: Any, totals: Any, walked: Walked) -> HeapCount:
    classes = np.arange(_CLASSES)
    busy, internal, lfh = (classes & BUSY) != 0, (classes & INTERNAL) != 0, (classes & 0xF) == BlockKind.LFH
    program, back, slots = busy & ~internal, ~busy & ~internal & ~lfh, ~busy & lfh
    return HeapCount(
        busy_blocks=int(counts[program].sum()),
        busy_bytes=int(totals[program].sum()),
        free_blocks=int(counts[back].sum()),
        free_bytes=int(totals[back].sum()),
        lfh_free_blocks=int(counts[slots].sum()),
        lfh_free_bytes=int(totals[slots].sum()),
        internal_blocks=int(counts[internal].sum()),
        headers=walked.headers,
        integrity=walked.good_headers / walked.headers if walked.headers else None,
    )


def _checked(heap: Heap, count: HeapCount, walked: Walked) -> HeapCount:
    """The walk's free bytes must be TotalFreeSize."""
    stated = heap.free_bytes
    if stated is None or stated == count.free_bytes or count.integrity is None:
        return count
    walked.gaps.append(
        f"heap {heap.address:#x}: {count.free_bytes:,} free bytes were walked, Windows counted {stated:,}: "
        "damaged, or being changed while the dump was taken"
    )
    agreement = min(stated, count.free_bytes) / max(stated, count.free_bytes)
    return replace(count, integrity=count.integrity * agreement)
