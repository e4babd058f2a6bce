"""Makes the arrays with which `kernels.pointer_map` finds the block of an address, for hundreds of millions of them.

They take 24 bytes for each block, and at most 16 MB for each GB of address space in which blocks lie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.kernels import run
from heapdump.kernels.pointer_map import mark, pages
from heapdump.large_arrays import zeros

TOP = 1 << 48
"""The end of user address space."""

_MOST_SHIFT = 4
Integers = NDArray[np.signedinteger[Any]]
"""int32 where all values fit, else int64: less memory is touched."""


@dataclass(frozen=True)
class PointerMap:
    """Finds the block at an address. Blocks are ascending and disjoint; `kernels.pointer_map` defines the arrays.

    Attributes:
        start: (n,) int64 addresses.
        size: (n,) bytes; a block of 0 bytes holds its start address.
        shift: 0 to 4: all starts are multiples of 1 << shift.
        tops: (131072,) int32, by address >> 32.
        middles: (65536 * used tops,) int32, by address >> 16.
        cells: int64: 32 bits of starts, and the number of blocks before them.
    """

    start: NDArray[np.int64]
    size: Integers
    shift: int
    tops: NDArray[np.int32]
    middles: NDArray[np.int32]
    cells: NDArray[np.int64]

    @property
    def low(self) -> int:
        """The start of the first block; 0 without blocks."""
        return int(self.start[0]) if len(self.start) else 0

    @property
    def bits(self) -> int:
        """The least number for which `low + (1 << bits)` lies behind all blocks; 0 without blocks."""
        return (int(self.start[-1] + max(1, self.size[-1])) - self.low - 1).bit_length() if len(self.start) else 0

    def find(self, addresses: NDArray[np.uint64]) -> NDArray[np.int64]:
        """(n,) int64 block of each address, -1 for none; by binary search, O(log blocks) for each."""
        wanted = np.minimum(addresses, np.uint64(TOP)).astype(np.int64)
        block = np.searchsorted(self.start, wanted, side="right").astype(np.int64) - 1
        inside = block >= 0
        inside[inside] = wanted[inside] - self.start[block[inside]] < np.maximum(self.size[block[inside]], 1)
        return np.where(inside, block, -1)


def pointer_map(start: NDArray[np.int64], size: Integers) -> PointerMap:
    """The map of disjoint blocks, ascending by `start`."""
    count = len(start)
    merged = int(np.bitwise_or.reduce(start)) if count else 0
    shift = shift_of(merged)
    leaves, long = np.empty(count, np.int64), np.empty(count, np.int64)
    found, reach = run(pages, count, start, size, leaves, long)
    leaves, long = leaves[:found].copy(), long[:reach].copy()
    cells = zeros(found * (65536 >> shift >> 5), np.int64)
    run(mark, count, start, shift, cells)
    tops, middles = levels(leaves, *_covered(start[long], size[long], long))
    return PointerMap(start, size, shift, tops, middles, cells)


def shift_of(merged: int) -> int:
    """`shift` of a map. `merged`: the starts of all blocks, joined by |."""
    return next(s for s in range(_MOST_SHIFT, -1, -1) if merged % (1 << s) == 0)


def levels(
    leaves: NDArray[np.int64], covered: NDArray[np.int64], by: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(tops, middles). `leaves`: pages in which blocks start; `covered`: other pages, `by`: the block of each."""
    tops = np.full(2 * TOP >> 32, -1, np.int32)  # `low + (1 << bits)` may be as far away as that
    used = np.unique(np.concatenate([leaves, covered]) >> 16)
    tops[used] = np.arange(len(used))
    middles = np.full(len(used) << 16, -1, np.int32)
    for page, values in (
        (covered, -2 - by),
        (leaves, np.arange(len(leaves))),
    ):  # a start in a page wins over a block before
        middles[(tops[page >> 16].astype(np.int64) << 16) + (page & 0xFFFF)] = values
    return tops, middles


def _covered(
    start: NDArray[np.int64], size: Integers, blocks: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """((k,) int64 pages of 64 KiB that blocks reach into behind the one of their start, (k,) int64 block of each)."""
    page = start >> 16
    counts = ((start + size - 1) >> 16) - page
    steps = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(page + 1, counts) + steps, np.repeat(blocks, counts)
