"""Which block an address lies in, for very many addresses: the arrays of `kernels.pointers` and how they are made.

24 bytes a block and at most 16 MB for each GB that blocks lie in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.kernels import run
from heapdump.kernels.pointers import mark

_TOP = 1 << 48
_COARSEST = 4


@dataclass(frozen=True)
class PointerMap:
    """Blocks by address. `start`, `size`: (n,) int64, ascending and disjoint; a block of no bytes has one.

    `shift`: starts are multiples of 1 << shift. `tops` (65536,), `middles` (65536 times the tops in use,), both int32,
    and `cells` int64: see `kernels.pointers`.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    shift: int
    tops: NDArray[np.int32]
    middles: NDArray[np.int32]
    cells: NDArray[np.int64]

    @property
    def low(self) -> int:
        """The first address in a block; 0 without blocks."""
        return int(self.start[0]) if len(self.start) else 0

    @property
    def high(self) -> int:
        """Behind the last address in a block; 0 without blocks."""
        return int(self.start[-1] + self.size[-1]) if len(self.start) else 0

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The block that each address lies in, -1 for none; (n,) int64. By binary search: for some addresses."""
        wanted = np.minimum(addresses, np.uint64(_TOP)).astype(np.int64)
        block = np.searchsorted(self.start, wanted, side="right").astype(np.int64) - 1
        inside = block >= 0
        inside[inside] = wanted[inside] - self.start[block[inside]] < self.size[block[inside]]
        return np.where(inside, block, -1)


def usable(start: NDArray[np.uint64], size: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Blocks that a map can have: of user addresses, each with a start of its own; (n,) bool. `start` ascending."""
    good = (start < np.uint64(_TOP)) & (size < np.uint64(_TOP)) & (start + size < np.uint64(_TOP))
    good[1:] &= start[1:] > np.maximum.accumulate(start)[:-1]
    return good


def pointer_map(start: NDArray[np.int64], size: NDArray[np.int64]) -> PointerMap:
    """The map of blocks, ascending by `start`; those that reach into the next one (damage) end there."""
    size = np.maximum(size, 1)
    if len(start) > 1:
        np.minimum(size[:-1], np.diff(start), out=size[:-1])
    merged = int(np.bitwise_or.reduce(start)) if len(start) else 0
    shift = next(s for s in range(_COARSEST, -1, -1) if merged % (1 << s) == 0)
    page = start >> 16
    leaves = page[np.flatnonzero(np.diff(page, prepend=-1))] if len(page) else page
    cells = np.zeros(len(leaves) * (65536 >> shift >> 5), np.int64)
    run(mark, len(start), start, shift, cells)
    covered, by = _covered(start, size)
    tops, middles = np.full(65536, -1, np.int32), np.empty(0, np.int32)
    used = np.unique(np.concatenate([leaves, covered]) >> 16)
    tops[used] = np.arange(len(used))
    middles = np.full(len(used) << 16, -1, np.int32)
    for pages, values in ((covered, -2 - by), (leaves, np.arange(len(leaves)))):  # a start in a page wins over a block before
        middles[(tops[pages >> 16].astype(np.int64) << 16) + (pages & 0xFFFF)] = values
    return PointerMap(start, size, shift, tops, middles, cells)


def _covered(start: NDArray[np.int64], size: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(64 KiB pages that blocks reach into behind that of their start, the block of each)."""
    page, last = start >> 16, (start + size - 1) >> 16
    long = np.flatnonzero(last > page)
    counts = last[long] - page[long]
    steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(page[long] + 1, counts) + steps, np.repeat(long, counts)
