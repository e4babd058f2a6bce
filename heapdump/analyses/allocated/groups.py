"""Rows of the block table grouped by a number: blocks, bytes, smallest and largest size, heaps, samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.grouping import aggregate, assign
from heapdump.large_arrays import batches

_SAMPLES = 5
_MOST_PLACES = 1 << 26
"""Places of the largest lookup table for values of a key; values that lie further apart are sorted."""


@dataclass(frozen=True, slots=True)
class BlockGroup:
    """The blocks with one value of a key.

    Attributes:
        value: the value.
        count: number of blocks.
        bytes: requested bytes of all blocks.
        min_size: requested bytes of the smallest block.
        max_size: requested bytes of the largest block.
        share: `bytes` / bytes of all groups, 0.0 to 1.0.
        heaps: indices of the heaps that hold the blocks, ascending.
        sample: user addresses of the first blocks, at most five.
    """

    value: int
    count: int
    bytes: int
    min_size: int
    max_size: int
    share: float
    heaps: tuple[int, ...]
    sample: tuple[int, ...]


def dense(values: NDArray[np.uint64]) -> tuple[NDArray[np.int64], list[int]]:
    """(dense number of each value, (n,) int64 from 0; the values by number).

    Values that lie close together, as the records of one log do, are numbered by their first appearance, in O(n) by a
    lookup table; values that lie far apart are sorted and numbered ascending, in O(n log n).
    """
    signed = values.view(np.int64)
    low, high, shift = _range_of(values)
    if (high - low) >> shift >= _MOST_PLACES or high >= 1 << 63:
        found, inverse = np.unique(values, return_inverse=True)
        return inverse.astype(np.int64), found.tolist()
    table = np.zeros((high - low >> shift) + 2, np.int64)
    numbers = np.empty(len(values), np.int64)
    count = run(assign, len(values), signed, low, shift, table, numbers)
    places = np.empty(count, np.int64)
    used = np.flatnonzero(table)
    places[table[used] - 1] = used
    return numbers, np.where(places > 0, (places - 1 << shift) + low, 0).tolist()


def _range_of(values: NDArray[np.uint64]) -> tuple[int, int, int]:
    """(smallest value that is not 0, largest value, 3 where all are multiples of 8, else 0); 0, 0, 3 without any."""
    lows, high, bits = [], 0, 0
    for part in batches(len(values)):
        nonzero = values[part][values[part] > 0]
        if len(nonzero):
            lows.append(int(nonzero.min()))
            high, bits = max(high, int(nonzero.max())), bits | int(np.bitwise_or.reduce(nonzero))
    return min(lows, default=0), high, 0 if bits & 7 else 3


def number_small(values: NDArray[np.int32]) -> list[int]:
    """Numbers small values, 0 and above, by their first appearance, in place; the values by number."""
    table = np.zeros(int(values.max(initial=0)) + 1, np.int64)
    count = run(assign, len(values), values, 1, 0, table, values)
    places = np.empty(count, np.int64)
    used = np.flatnonzero(table)
    places[table[used] - 1] = used
    return places.tolist()


def group(
    table: BlockTable, rows: NDArray[np.int64], numbers: NDArray[np.integer], values: Sequence[int]
) -> tuple[BlockGroup, ...]:
    """The groups of `rows` by `numbers`: most bytes first, then most blocks, then smallest number. One pass over rows.

    `rows`: (n,) int64; `numbers`: (n,) in [0, len(values)); `values[number]` becomes `BlockGroup.value`.
    """
    if not len(rows):
        return ()
    width = len(values)
    counts, totals, low, high = (np.zeros(width, np.int64) for _ in range(4))
    samples = np.zeros(width * _SAMPLES, np.int64)
    heap_count = int(table.heap.max()) + 1
    has_heap = np.zeros(width * heap_count, np.uint8)
    run(
        aggregate, len(rows), rows, numbers, table.reader(), heap_count, _SAMPLES, counts, totals, low, high, has_heap,
        samples,
    )  # fmt: skip
    all_bytes = int(totals.sum()) or 1
    order = np.lexsort((np.arange(width), -counts, -totals))
    order = order[counts[order] > 0]
    heaps = _heaps(has_heap.reshape(width, heap_count))
    first = table.addresses(samples).reshape(width, _SAMPLES)
    columns = (order, *(column[order] for column in (counts, totals, low, high)), first[order])
    return tuple(
        BlockGroup(values[i], count, total, smallest, largest, total / all_bytes, heaps[i], tuple(sample[:count]))
        for i, count, total, smallest, largest, sample in zip(*(column.tolist() for column in columns), strict=True)
    )


def _heaps(has_heap: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """Indices of the heaps of each group, ascending. `has_heap`: (groups, heaps), 1 for a heap with blocks."""
    out: list[tuple[int, ...]] = [()] * len(has_heap)
    for number, heap in zip(*(found.tolist() for found in np.nonzero(has_heap)), strict=True):
        out[number] += (heap,)
    return out
