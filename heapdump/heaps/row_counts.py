"""Sums over the rows of a block table: number, occupied and unused bytes, by heap and class of block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.block_counts import tally

_BATCH = 1 << 16
_CLASSES = 64  # the low six bits of a row's tags: kind, busy, internal


class RowCounts:
    """Rows of a block table by heap and class, with their occupied and unused bytes: (3, heaps, 64) int64."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._sums = np.zeros((3, 0, _CLASSES), np.int64)

    def add(self, table: BlockTable) -> RowCounts:
        """Counts the rows of a table; returns itself."""
        if len(table):
            self._grow(int(table.heap.max()) + 1)
            call = compiled_if_worth(tally, len(table)) or _by_arrays
            call(table.heap, table.size8, table.unused, table.tags, *(part.reshape(-1) for part in self._sums))
        return self

    def merge(self, other: RowCounts) -> None:
        """Adds the sums of another one."""
        self._grow(other._sums.shape[1])
        self._sums[:, : other._sums.shape[1]] += other._sums

    def of(self, heap: int) -> NDArray[np.int64]:
        """(3, 64) int64 of one heap: rows, occupied bytes and unused bytes by class."""
        self._grow(heap + 1)
        return self._sums[:, heap]

    def _grow(self, heaps: int) -> None:
        self._sums = np.pad(self._sums, ((0, 0), (0, max(0, heaps - self._sums.shape[1])), (0, 0)))


def _by_arrays(
    heap: NDArray[np.uint16], size8: NDArray[np.uint32], unused: NDArray[np.uint32], tags: NDArray[np.uint16],
    counts: NDArray[np.int64], occupied: NDArray[np.int64], unused_bytes: NDArray[np.int64],
) -> None:  # fmt: skip
    """The sums of `kernels.block_counts.tally` by array arithmetic: uncompiled ten times as fast. Sums of a batch are exact as floats."""
    for first in range(0, len(heap), _BATCH):
        rows = slice(first, first + _BATCH)
        place = heap[rows].astype(np.int64) * _CLASSES + (tags[rows] & (_CLASSES - 1))
        counts += np.bincount(place, minlength=len(counts))
        occupied += np.bincount(place, size8[rows].astype(np.float64) * 8, len(counts)).astype(np.int64)
        unused_bytes += np.bincount(place, unused[rows].astype(np.float64), len(counts)).astype(np.int64)
