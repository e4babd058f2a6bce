"""The growing columns of a block table: kernels write rows straight into them.

`tail`, `append` and `extend` may move the columns to other memory. A view that was taken before such a call (a
`RowWriter`, a table of `since`) must not be used after it. Decision: docs/decisions/0004-one-sorted-block-table.md.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump import large_arrays
from heapdump.blocks.table import COLUMNS, BlockTable
from heapdump.kernels.row import RowWriter

_MORE = 1 << 16
"""Rows by which the columns grow at least."""
_MOST_AT_FIRST = 1 << 22
"""Rows for which memory is set aside before there are any: systems that count what is set aside may refuse more."""


class BlockColumns:
    """Rows in the order in which they were added; `sort` brings them into the order of addresses."""

    def __init__(self, expected: int = 0) -> None:
        """`expected`: number of rows, as far as it is known."""
        self._size = 0
        made: list[NDArray[Any]] = [large_arrays.empty(min(expected, _MOST_AT_FIRST), one) for one in COLUMNS.values()]
        self._all = BlockTable(*made)

    def __len__(self) -> int:
        """The number of rows that were added."""
        return self._size

    def tail(self, least: int) -> RowWriter:
        """Room for `least` or more rows behind the last row; `add` makes rows of it. Invalidates earlier views."""
        return self._room(least).writer()

    def _room(self, least: int) -> BlockTable:
        have = len(self._all)
        if have - self._size < least:
            self._resize(max(self._size + least, have + have // 4, _MORE))
        return self._all.part(self._size, len(self._all))

    def add(self, count: int, heap: int) -> None:
        """Adds the first `count` rows of the tail, which the caller has filled; `heap`: index of their heap."""
        self._all.heap[self._size : self._size + count] = heap
        self._size += count

    def drop(self, first: int) -> None:
        """Removes the rows from `first` on."""
        self._size = first

    def since(self, first: int) -> BlockTable:
        """The rows from `first` on, without a copy; `since(0)` is the block table when all rows have been added."""
        return self._all.part(first, self._size)

    def append(self, heap: int, entry: NDArray[np.integer], size8: NDArray[np.integer], unused: NDArray[np.integer],
               header8: NDArray[np.integer], tags: NDArray[np.integer]) -> None:  # fmt: skip
        """Adds rows of the heap with index `heap`; columns of one length, units as in `kernels.row`."""
        tail, count = self._room(len(entry)), len(entry)
        tail.entry[:count], tail.size8[:count], tail.unused[:count] = entry, size8, unused
        tail.header8[:count], tail.tags[:count] = header8, tags
        self.add(count, heap)

    def append_row(self, heap: int, row: tuple[int, int, int, int, int]) -> None:
        """Adds one row of one heap; `row`: entry, size8, unused, header8, tags."""
        tail = self._room(1)
        tail.entry[0], tail.size8[0], tail.unused[0], tail.header8[0], tail.tags[0] = row
        self.add(1, heap)

    def extend(self, rows: BlockTable) -> None:
        """Adds the rows of a table, which name their heaps themselves."""
        tail = self._room(len(rows))
        for column, added in zip(tail.columns(), rows.columns(), strict=True):
            column[: len(rows)] = added
        self._size += len(rows)

    def sort(self, first: int = 0) -> None:
        """Sorts the rows from `first` on by `entry`, ascending; rows with equal entries keep their order."""
        rows = self.since(first)
        if len(rows) < 2 or _ascends(rows.entry):
            return
        order = np.argsort(rows.entry, kind="stable")
        for column in rows.columns():
            column[:] = np.take(column, order, mode="clip")  # numpy checks no index then: half the time

    def ends_before(self, other: BlockColumns) -> bool:
        """True when no entry lies above the first entry of `other`, or one of the two is empty; both are sorted."""
        return not len(self) or not len(other) or bool(self._all.entry[self._size - 1] <= other._all.entry[0])

    def _resize(self, rows: int) -> None:
        self._all = BlockTable(*(large_arrays.resized(column, rows) for column in self._all.columns()))


def _ascends(entry: NDArray[np.uint64]) -> bool:
    """True when no entry is below the one before it. Compares in batches, which keeps the temporary array small."""
    step = 1 << 18
    return all(
        bool((entry[i + 1 : i + step + 1] >= entry[i : i + step][: len(entry) - i - 1]).all())
        for i in range(0, max(0, len(entry) - 1), step)
    )
