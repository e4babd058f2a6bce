"""Sums over the rows of a block table: number, occupied and unused bytes, by heap and class of block."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels import compiled_if_worth
from heapdump.kernels.block_counts import tally
from heapdump.kernels.row import CLASS_MASK, CLASSES, UNIT

_BATCH = 1 << 16


class RowCounts:
    """Number, occupied bytes and unused bytes of rows, by heap and class (`kernels.row.CLASS_MASK`)."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._sums = np.zeros((3, 0, CLASSES), np.int64)

    def add(self, table: BlockTable, expected: int = 0) -> RowCounts:
        """Adds the rows of a table; returns itself. `expected`: estimate of the rows of all tables together."""
        if len(table):
            self._grow(int(table.heap.max()) + 1)
            counts, occupied, unused = (part.reshape(-1) for part in self._sums)
            compiled = compiled_if_worth(tally, max(len(table), expected))
            if compiled is not None:
                compiled(table.reader(), counts, occupied, unused)
            else:
                _add_by_arrays(table, counts, occupied, unused)
        return self

    def merge(self, other: RowCounts) -> None:
        """Adds the sums of `other`."""
        self._grow(other._sums.shape[1])
        self._sums[:, : other._sums.shape[1]] += other._sums

    def of(self, heap: int) -> NDArray[np.int64]:
        """(3, CLASSES) int64 sums of one heap: number of rows, occupied bytes, unused bytes."""
        self._grow(heap + 1)
        return self._sums[:, heap]

    def _grow(self, heaps: int) -> None:
        self._sums = np.pad(self._sums, ((0, 0), (0, max(0, heaps - self._sums.shape[1])), (0, 0)))


def _add_by_arrays(
    table: BlockTable, counts: NDArray[np.int64], occupied: NDArray[np.int64], unused: NDArray[np.int64]
) -> None:
    """Does the same as `kernels.block_counts.tally`, by array arithmetic: ten times as fast as its plain loop.

    Batches are so short that sums of float64 are exact.
    """
    for first in range(0, len(table), _BATCH):
        rows = table.part(first, first + _BATCH)
        place = rows.heap.astype(np.int64) * CLASSES + (rows.tags & np.uint16(CLASS_MASK))
        counts += np.bincount(place, minlength=len(counts))
        occupied += np.bincount(place, rows.size8.astype(np.float64) * UNIT, len(counts)).astype(np.int64)
        unused += np.bincount(place, rows.unused.astype(np.float64), len(counts)).astype(np.int64)
