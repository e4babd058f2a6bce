"""The growing columns of a block table: kernels write rows straight into them.

`tail`, `append` and `extend` may move the columns to other memory. A view that was taken before such a call (a
`RowWriter`, a table of `since`) must not be used after it. Decision: docs/decisions/0004-one-sorted-block-table.md.
"""

from __future__ import annotations

from collections.abc import Callable
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

_SLACK, _MOST_GROWTH = 16, 16
"""Memory is reserved for 1/16 more rows than are foreseen, and for 16 times as many as there are at most."""


class BlockColumns:
    """Rows in the order in which they were added; `sort` brings them into the order of addresses."""

    def __init__(self, expected: int = 0, forecast: Callable[[], int] | None = None) -> None:
        """`expected`: number of rows, as far as it is known. `forecast`: gives the number of all rows.

        The forecast may be 0 as long as it is not known, and wrong: it decides how far the columns grow at a time.
        """
        self._size, self._forecast = 0, forecast
        self._all = _table(min(expected, _MOST_AT_FIRST))

    def __len__(self) -> int:
        """The number of rows that were added."""
        return self._size

    def tail(self, least: int) -> RowWriter:
        """Room for `least` or more rows behind the last row; `add` makes rows of it. Invalidates earlier views."""
        return self._room(least).writer()

    def _room(self, least: int) -> BlockTable:
        have = len(self._all)
        if have - self._size < least:
            self._grow(self._size + least)
        return self._all.part(self._size, len(self._all))

    def _grow(self, least: int) -> None:
        """Reserves memory for `least` rows, and for those that are foreseen; what is not written to costs no memory."""
        foreseen = self._forecast() if self._forecast is not None else 0
        ahead = min(foreseen + foreseen // _SLACK + _MORE, _MOST_GROWTH * max(len(self._all), _MORE))
        if ahead <= least:
            have = len(self._all)
            self._resize(max(least, have + have // 4, _MORE))
            return
        old, self._all = self._all, _table(ahead)
        copy_rows(old.part(0, self._size), self._all.part(0, self._size))

    def has_room(self, count: int) -> bool:
        """True where `count` more rows fit without growing, which moves all rows."""
        return len(self._all) - self._size >= count

    def claim(self, count: int) -> BlockTable:
        """Adds `count` rows whose columns are written later, by another thread perhaps: before the columns grow."""
        claimed = self._room(count).part(0, count)
        self._size += count
        return claimed

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
        copy_rows(rows, self.claim(len(rows)))

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


def _table(rows: int) -> BlockTable:
    """Columns of `rows` rows with any values."""
    made: list[NDArray[Any]] = [large_arrays.empty(rows, kind) for kind in COLUMNS.values()]
    return BlockTable(*made)


def copy_rows(rows: BlockTable, target: BlockTable) -> None:
    """Copies rows into as many rows of another table."""
    for column, added in zip(target.columns(), rows.columns(), strict=True):
        column[:] = added


def _ascends(entry: NDArray[np.uint64]) -> bool:
    """True when no entry is below the one before it. Compares in batches, which keeps the temporary array small."""
    step = 1 << 18
    return all(
        bool((entry[i + 1 : i + step + 1] >= entry[i : i + step][: len(entry) - i - 1]).all())
        for i in range(0, max(0, len(entry) - 1), step)
    )
