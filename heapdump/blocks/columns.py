"""The columns of a block table while it is made: rows are written straight into them.

Decision: memory is set aside for as many rows as are expected, of which only written ones cost any, and what several
threads made is joined a column at a time, so that 10 M blocks cost 21 bytes each and never twice that. Given up: no
view of a column may live while it grows, which is why the arrays are private and `tail` says so.
"""

from __future__ import annotations

from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable

_MORE = 1 << 16
_PIECES = 8


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of one heap as columns of one length; see `BlockTable` for their meaning. Views of the table's own."""

    entry: NDArray[np.uint64]
    units: NDArray[np.uint32]
    spare: NDArray[np.uint32]
    lead: NDArray[np.uint8]
    tags: NDArray[np.uint16]

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.entry)

    def columns(self) -> tuple[NDArray[np.generic], ...]:
        """All of them, in this order."""
        return self.entry, self.units, self.spare, self.lead, self.tags


class BlockColumns:
    """Rows in the making, in the order they are added."""

    def __init__(self, expected: int = 0) -> None:
        """`expected`: rows for which memory is set aside; only rows that are written cost any."""
        self._size = 0
        self._rows = Rows(
            np.empty(expected, np.uint64), np.empty(expected, np.uint32), np.empty(expected, np.uint32),
            np.empty(expected, np.uint8), np.empty(expected, np.uint16),
        )  # fmt: skip
        self._heap = np.empty(expected, np.uint16)

    def __len__(self) -> int:
        """Rows that were added."""
        return self._size

    def tail(self, least: int) -> Rows:
        """Room for `least` or more rows behind the last; let go of every earlier view before asking for it."""
        have = len(self._heap)
        if have - self._size < least:
            self._resize(max(self._size + least, have + have // 4, _MORE))
        return Rows(*(column[self._size :] for column in self._rows.columns()))  # type: ignore[arg-type]

    def add(self, count: int, heap: int) -> None:
        """The first `count` rows of the tail were written and belong to that heap (its index)."""
        self._heap[self._size : self._size + count] = heap
        self._size += count

    def since(self, first: int) -> Rows:
        """The rows from `first` on."""
        return Rows(*(column[first : self._size] for column in self._rows.columns()))  # type: ignore[arg-type]

    def append(self, heap: int, entry: NDArray[np.integer], units: NDArray[np.integer], spare: NDArray[np.integer],
               lead: NDArray[np.integer], tags: NDArray[np.integer]) -> None:  # fmt: skip
        """Adds rows of one heap that were made elsewhere."""
        tail = self.tail(len(entry))
        for column, values in zip(tail.columns(), (entry, units, spare, lead, tags), strict=True):
            column[: len(entry)] = values
        self.add(len(entry), heap)

    def table(self) -> BlockTable:
        """The rows as a table of the columns themselves, which must not grow any more."""
        rows = self.since(0)
        return BlockTable(rows.entry, rows.units, rows.spare, rows.lead, self._heap[: self._size], rows.tags)

    def sort(self, first: int = 0) -> None:
        """Brings the rows from `first` on into ascending order of their entries; equal ones stay as they are."""
        rows = self.since(first)
        if len(rows) < 2 or _ascends(rows.entry):
            return
        order = np.argsort(rows.entry, kind="stable")
        for column in (*rows.columns(), self._heap[first : self._size]):
            column[:] = column[order]

    def ends_before(self, other: BlockColumns) -> bool:
        """True when the last row's entry is not behind the other's first; both are sorted."""
        return not len(self) or not len(other) or bool(self._rows.entry[self._size - 1] <= other._rows.entry[0])

    def take_over(self, other: BlockColumns, pool: Executor) -> None:
        """Adds the rows of another behind its own and empties it, column by column: an eighth of one is held twice.

        The pool's threads share the copying.
        """
        total = self._size + other._size
        if len(self._heap) < total:
            self._resize(total)
        cuts = [other._size * i // _PIECES for i in range(_PIECES + 1)]
        for mine, theirs in zip((*self._rows.columns(), self._heap), (*other._rows.columns(), other._heap), strict=True):
            for low, high in reversed(list(pairwise(cuts))):
                middle = (low + high) // 2
                halves = [(mine[self._size + a : self._size + b], theirs[a:b]) for a, b in ((low, middle), (middle, high))]
                list(pool.map(lambda half: np.copyto(*half), halves))
                del halves
                theirs.resize(low, refcheck=False)
        self._size = total

    def _resize(self, rows: int) -> None:
        for column in (*self._rows.columns(), self._heap):
            column.resize(rows, refcheck=False)


def _ascends(entry: NDArray[np.uint64]) -> bool:
    """True for ascending order; by parts, so that a long column costs no memory of its size."""
    step = 1 << 18
    return all(
        bool((entry[i + 1 : i + step + 1] >= entry[i : i + step][: len(entry) - i - 1]).all())
        for i in range(0, max(0, len(entry) - 1), step)
    )
