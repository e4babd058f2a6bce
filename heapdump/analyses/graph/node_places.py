"""Where blocks lie: as arrays of addresses and sizes, or as rows of the block table, from which both follow.

Arrays take 12 or 16 bytes a block, rows 4. Blocks are ascending by address and disjoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.pointer_map import mark, mark_rows, pages, pages_of_rows, places_of, sizes_of
from heapdump.kernels.pointer_sweep import keep, keep_rows

TOP = 1 << 48
"""The end of user address space."""

_DENSE = 4
"""Nodes are dense where each so many have one of them."""

Integers = NDArray[np.signedinteger[Any]]
"""int32 where all values fit, else int64: less memory is touched."""

Found = tuple[NDArray[np.int64], NDArray[np.int32], int, NDArray[np.int32], NDArray[np.int32]]
"""The last arguments of `kernels.pointer_sweep.keep`."""


@dataclass(frozen=True)
class ArrayPlaces:
    """The n blocks with these addresses and bytes, (n,) each; a block of 0 bytes holds its start address."""

    start: NDArray[np.int64]
    size: Integers

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.start)

    @cached_property
    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        return int(self.size.sum(dtype=np.int64))

    def starts(self, blocks: NDArray[np.integer]) -> NDArray[np.int64]:
        """Addresses of some blocks."""
        found: NDArray[np.int64] = self.start[blocks]
        return found

    def sizes(self, blocks: NDArray[np.integer]) -> Integers:
        """Bytes of some blocks."""
        found: Integers = self.size[blocks]
        return found

    def part(self, low: int, high: int) -> tuple[NDArray[np.int64], Integers]:
        """Addresses and bytes of the blocks [low, high)."""
        return self.start[low:high], self.size[low:high]

    def pages(self, leaves: NDArray[np.int64], long: NDArray[np.int64]) -> tuple[int, int, int]:
        """See `kernels.pointer_map.pages`."""
        return run(pages, len(self), self.start, self.size, leaves, long)

    def mark(self, shift: int, cells: NDArray[np.int64]) -> None:
        """See `kernels.pointer_map.mark`."""
        run(mark, len(self), self.start, shift, cells)

    def keep(self, work: int, found: Found) -> int:
        """See `kernels.pointer_sweep.keep`; `work`: as of `kernels.run`."""
        return run(keep, work, self.start, self.size, *found)

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(k,) int64 block of each address, -1 for none; by binary search, O(log blocks) for each."""
        wanted = np.minimum(addresses, np.uint64(TOP)).astype(np.int64)
        block = np.searchsorted(self.start, wanted, side="right").astype(np.int64) - 1
        return _inside(self, wanted, block)


@dataclass(frozen=True)
class RowPlaces:
    """The blocks of the rows `rows`, (n,) int32, of a block table; each up to the next one at most."""

    table: BlockTable
    rows: NDArray[np.int32]
    _total: list[int] = field(default_factory=list)
    """`total_bytes`, once it is known."""

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.rows)

    @property
    def total_bytes(self) -> int:
        """Bytes of all blocks."""
        if not self._total:
            self.pages(np.empty(len(self), np.int64), np.empty(len(self), np.int64))
        return self._total[0]

    def starts(self, blocks: NDArray[np.integer] | slice) -> NDArray[np.int64]:
        """Addresses of some blocks."""
        return self.table.addresses(self.rows[blocks]).view(np.int64)

    def sizes(self, blocks: NDArray[np.integer] | slice) -> NDArray[np.int64]:
        """Bytes of some blocks."""
        if isinstance(blocks, slice):
            return self._sizes_between(blocks.start, blocks.stop)
        if not len(blocks):
            return np.empty(0, np.int64)
        low, high = int(blocks.min()), int(blocks.max()) + 1
        if high - low <= _DENSE * len(blocks):  # takes less time than to look up every column for each
            return np.take(self._sizes_between(low, high), blocks - low)
        own = self.table.sizes(self.rows[blocks]).view(np.int64)
        is_cut = blocks < len(self) - 1
        here = blocks[is_cut]
        own[is_cut] = np.minimum(own[is_cut], self.starts(here + 1) - self.starts(here))
        return own

    def part(self, low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Addresses and bytes of the blocks [low, high)."""
        and_next = self.rows[low : high + 1]
        start, size = np.empty(len(and_next), np.int64), np.empty(len(and_next), np.int64)
        run(places_of, len(self.table), self.table.reader(), and_next, start, size)
        return start[: high - low], size[: high - low]

    def pages(self, leaves: NDArray[np.int64], long: NDArray[np.int64]) -> tuple[int, int, int]:
        """See `kernels.pointer_map.pages`; more blocks may be long, whose sizes are cut."""
        *found, total = run(pages_of_rows, len(self.table), self.table.reader(), self.rows, leaves, long)
        self._total[:] = [total]
        return found[0], found[1], found[2]

    def mark(self, shift: int, cells: NDArray[np.int64]) -> None:
        """See `kernels.pointer_map.mark`."""
        run(mark_rows, len(self.table), self.table.reader(), self.rows, shift, cells)

    def keep(self, work: int, found: Found) -> int:
        """See `kernels.pointer_sweep.keep`; `work`: as of `kernels.run`."""
        return run(keep_rows, work, self.table.reader(), self.rows, *found)

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """As `ArrayPlaces.find`, for few addresses."""
        wanted = np.minimum(addresses, np.uint64(TOP)).astype(np.int64)
        low, high = np.zeros(len(wanted), np.int64), np.full(len(wanted), len(self), np.int64)
        for _ in range(len(self).bit_length()):
            middle = (low + high) >> 1
            is_open = low < high
            is_below = is_open & (self.starts(np.where(is_open, middle, 0)) <= wanted)
            low, high = np.where(is_below, middle + 1, low), np.where(is_open & ~is_below, middle, high)
        return _inside(self, wanted, low - 1)

    def _sizes_between(self, low: int, high: int) -> NDArray[np.int64]:
        """`sizes` of the blocks [low, high), and of no more."""
        and_next = self.rows[low : high + 1]
        out = np.empty(len(and_next), np.int64)
        run(sizes_of, len(self.table), self.table.reader(), and_next, out)
        return out[: high - low]


Places = ArrayPlaces | RowPlaces


def _inside(places: Places, wanted: NDArray[np.int64], block: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last block that begins at or below each address, where the address lies in it; else -1."""
    inside = block >= 0
    known = block[inside]
    inside[inside] = wanted[inside] - places.starts(known) < np.maximum(places.sizes(known), 1)
    return np.where(inside, block, -1)
