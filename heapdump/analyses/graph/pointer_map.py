"""Makes the arrays with which `kernels.pointer_map` finds the block of an address, for hundreds of millions of them.

They take some 2 bytes for each block, and at most 16 MB for each GB of address space in which blocks lie.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.node_places import TOP, Integers, Places
from heapdump.large_arrays import empty, zeros

_MOST_SHIFT = 4


@dataclass(frozen=True)
class PointerMap:
    """Finds the block at an address. `kernels.pointer_map` defines the arrays.

    Attributes:
        places: of the n blocks.
        shift: 0 to 4: all starts are multiples of 1 << shift.
        tops: (131072,) int32, by address >> 32.
        middles: (65536 * used tops,) int32, by address >> 16.
        cells: int64: 32 bits of starts, and the number of blocks before them.
        low: the start of the first block; 0 without blocks.
        bits: the least number for which `low + (1 << bits)` lies behind all blocks; 0 without blocks.
    """

    places: Places
    shift: int
    tops: NDArray[np.int32]
    middles: NDArray[np.int32]
    cells: NDArray[np.int64]
    low: int
    bits: int

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.places)


def pointer_map(places: Places) -> PointerMap:
    """The map of blocks."""
    count = len(places)
    leaves, long = empty(count, np.int64), empty(count, np.int64)
    found, reach, merged = places.pages(leaves, long)
    shift = shift_of(merged)
    leaves, long = leaves[:found].copy(), long[:reach].copy()
    cells = zeros(found * (65536 >> shift >> 5), np.int64)
    places.mark(shift, cells)
    tops, middles = levels(leaves, *_covered(places.starts(long), places.sizes(long), long))
    return PointerMap(places, shift, tops, middles, cells, *_bounds(places))


def _bounds(places: Places) -> tuple[int, int]:
    """`low` and `bits` of a map."""
    if not len(places):
        return 0, 0
    ends = np.array([0, len(places) - 1])
    low, last = places.starts(ends).tolist()
    return low, (last + max(1, int(places.sizes(ends[1:])[0])) - low - 1).bit_length()


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
