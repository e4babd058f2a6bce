"""Busy blocks grouped by a key: how many, how many bytes, how regular in size, with samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.grouping import aggregate, assign

_SAMPLES = 5
_WIDEST = 1 << 26
"""Different values of a key for which a lookup table is made; where they lie further apart they are sorted."""


@dataclass(frozen=True, slots=True)
class Group:
    """Blocks of one key. Sizes are requested bytes; `share` of all grouped bytes; `heaps` indices, `sample` rows.

    `value`: the key itself, as the analysis that made it numbers it.
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
    """(small number of each value, the values by that number), in the order of their first appearance.

    At memory speed where the values lie close together, as the records of one log do; else they are sorted.
    """
    signed = values.view(np.int64)
    some = values[values > 0]
    low, high = (int(some.min()), int(some.max())) if len(some) else (0, 0)
    shift = 3 if not (some & np.uint64(7)).any() else 0
    if (high - low) >> shift >= _WIDEST or high >= 1 << 63:
        found, inverse = np.unique(values, return_inverse=True)
        return inverse.astype(np.int64), found.tolist()
    table = np.zeros((high - low >> shift) + 2, np.int64)
    numbers = np.empty(len(values), np.int64)
    count = run(assign, len(values), signed, low, shift, table, numbers)
    places = np.empty(count, np.int64)
    used = np.flatnonzero(table)
    places[table[used] - 1] = used
    return numbers, np.where(places > 0, (places - 1 << shift) + low, 0).tolist()


def group(
    table: BlockTable, rows: NDArray[np.int64], numbers: NDArray[np.int64], values: Sequence[int]
) -> tuple[Group, ...]:
    """The rows grouped by `numbers` (dense, from 0), most bytes first; `values[number]` is the key. One pass."""
    if not len(rows):
        return ()
    width = len(values)
    counts, totals, low, high = (np.zeros(width, np.int64) for _ in range(4))
    samples = np.zeros(width * _SAMPLES, np.int64)
    most = int(table.heap.max()) + 1
    seen = np.zeros(width * most, np.uint8)
    columns = (rows, numbers, table.size8, table.unused, table.heap)
    run(aggregate, len(rows), *columns, most, _SAMPLES, counts, totals, low, high, seen, samples)
    everything = int(totals.sum()) or 1
    order = np.lexsort((np.arange(width), -counts, -totals))
    order = order[counts[order] > 0]
    owners = _heaps(seen.reshape(width, most))
    some = samples.reshape(width, _SAMPLES)[order].tolist()
    columns_of = zip(
        order.tolist(), *(column[order].tolist() for column in (counts, totals, low, high)), some, strict=True
    )
    return tuple(
        Group(values[i], count, total, smallest, largest, total / everything, owners[i], tuple(sample[:count]))
        for i, count, total, smallest, largest, sample in columns_of
    )


def _heaps(seen: NDArray[np.uint8]) -> list[tuple[int, ...]]:
    """The heaps that each group has blocks in, ascending."""
    out: list[tuple[int, ...]] = [()] * len(seen)
    for number, heap in zip(*(found.tolist() for found in np.nonzero(seen)), strict=True):
        out[number] += (heap,)
    return out
