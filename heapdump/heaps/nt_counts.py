"""What a walk counted in each heap, and the self-check against what Windows counted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.records import Heap
from heapdump.blocks.table import BUSY, INTERNAL, BlockKind, BlockTable
from heapdump.heaps.nt_blocks import Walked
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.tally import tally

_BATCH = 1 << 16
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


class Tally:
    """Rows and bytes of a block table by heap and class: (heaps, 64) int64 each."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._counts = np.zeros((0, _CLASSES), np.int64)
        self._totals = np.zeros((0, _CLASSES), np.int64)

    def add(self, table: BlockTable) -> Tally:
        """Counts a table; itself."""
        if not len(table):
            return self
        self._grow(int(table.heap.max()) + 1)
        columns = (table.heap, table.units, table.spare, table.tags)
        call = compiled_if_worth(tally, len(table)) or _by_arrays
        call(*columns, self._counts.reshape(-1), self._totals.reshape(-1))
        return self

    def merge(self, other: Tally) -> None:
        """Adds what another one counted."""
        self._grow(len(other._counts))
        self._counts[: len(other._counts)] += other._counts
        self._totals[: len(other._counts)] += other._totals

    def of(self, heap: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(rows, bytes) of one heap by class; (64,) int64 each."""
        self._grow(heap + 1)
        return self._counts[heap], self._totals[heap]

    def _grow(self, heaps: int) -> None:
        more = max(0, heaps - len(self._counts))
        self._counts = np.pad(self._counts, ((0, more), (0, 0)))
        self._totals = np.pad(self._totals, ((0, more), (0, 0)))


def _by_arrays(
    heap: NDArray[np.uint16], units: NDArray[np.uint32], spare: NDArray[np.uint32], tags: NDArray[np.uint16],
    counts: NDArray[np.int64], totals: NDArray[np.int64],
) -> None:  # fmt: skip
    """What `kernels.tally` does, uncompiled ten times as fast as the loop. A batch's sums are exact as floats."""
    for first in range(0, len(heap), _BATCH):
        rows = slice(first, first + _BATCH)
        place = heap[rows].astype(np.int64) * _CLASSES + (tags[rows] & (_CLASSES - 1))
        size = units[rows].astype(np.int64) * 8 - np.where(tags[rows] & BUSY, spare[rows], 0)
        counts += np.bincount(place, minlength=len(counts))
        totals += np.bincount(place, size.astype(np.float64), len(counts)).astype(np.int64)


def count_blocks(tally: Tally, heaps: Sequence[Heap], walked: dict[int, Walked]) -> dict[int, HeapCount]:
    """Heap index → its count. A difference to Windows' own lowers the integrity and adds a gap to `walked`."""
    return {
        heap.index: _checked(heap, _count(*tally.of(heap.index), walked[heap.index]), walked[heap.index])
        for heap in heaps
    }


def _count(counts: NDArray[np.int64], totals: NDArray[np.int64], walked: Walked) -> HeapCount:
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
