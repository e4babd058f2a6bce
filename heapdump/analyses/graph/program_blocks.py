"""The blocks that are nodes of the pointer graph: the program's busy blocks, their addresses and sizes.

In: the block table. Out: arrays with an element for each node, which can be made again where they are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.node_places import TOP, ArrayPlaces, Integers, Places, RowPlaces
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.pointer_map import sizes_of, starts_of, take, take_starts, thin
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.large_arrays import empty

_SAMPLE = 1 << 13
"""Rows of each heap that are searched for CRT debug blocks before all rows of the heap are."""


@dataclass(frozen=True)
class ProgramBlocks:
    """The n busy blocks of the program, ascending by address and disjoint.

    Attributes:
        rows: (n,) int32 row of each in the block table.
        places: of the blocks. `RowPlaces` where rows and places follow from the block table: `rows_again`.
    """

    rows: NDArray[np.int32]
    places: Places


def program_blocks(table: BlockTable, crt: Callable[[NDArray[np.int64]], CrtBlocks]) -> ProgramBlocks:
    """The blocks of a table; CRT debug blocks, which `crt` finds among rows, begin behind their header."""
    rows = _taken(table)
    if rows is None:  # heaps over each other: damage
        order = np.argsort(table.address, kind="stable")
        rows, places = in_arrays(BlockTable(*(column[order] for column in table.columns())))
        rows = order[rows].astype(np.int32)
        _skip_crt_headers(rows, places, table, crt, _debug_heaps(rows, table, crt))
        return ProgramBlocks(rows, places)
    heaps = _debug_heaps(rows, table, crt)
    if not heaps:
        return ProgramBlocks(rows, RowPlaces(table, rows))
    places = ArrayPlaces(start_again(table, rows), size_again(table, rows))
    _skip_crt_headers(rows, places, table, crt, heaps)
    return ProgramBlocks(rows, places)


def in_arrays(table: BlockTable) -> tuple[NDArray[np.int32], ArrayPlaces]:
    """(rows, places) of the blocks of a table that ascends by user address."""
    rows, start, size = empty(len(table), np.int32), empty(len(table), np.int64), _sizes(table, len(table))
    count = run(take, len(table), table.reader(), BUSY | INTERNAL, BUSY, TOP, rows, start, size)
    return rows[:count], ArrayPlaces(start[:count], size[:count])


def _taken(table: BlockTable) -> NDArray[np.int32] | None:
    """The rows of the blocks; None where their addresses do not ascend."""
    rows, leaves = empty(len(table), np.int32), empty(len(table), np.int64)
    count = run(take_starts, len(table), table.reader(), BUSY | INTERNAL, BUSY, TOP, rows, leaves)[0]
    return None if count < 0 else rows[:count]


def _sizes(table: BlockTable, count: int) -> Integers:
    """Room for the sizes of blocks of the table."""
    is_short = len(table) == 0 or int(table.size8.max()) < 1 << 28
    return empty(count, np.int32) if is_short else empty(count, np.int64)


def require_rows(table: BlockTable, count: int) -> NDArray[np.int32]:
    """`rows_again`.

    Raises:
        ValueError: the table has another number of blocks, or their addresses do not ascend.
    """
    rows = _taken(table)
    if rows is None or len(rows) != count:
        raise ValueError("blocks do not fit")
    return rows


def rows_again(table: BlockTable, count: int) -> NDArray[np.int32]:
    """`ProgramBlocks.rows` of `count` blocks whose places follow from the table."""
    rows = _taken(table)
    assert rows is not None
    return rows[:count]


def start_again(table: BlockTable, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """Their addresses, (n,)."""
    start = empty(len(rows), np.int64)
    run(starts_of, len(table), table.reader(), rows, start)
    return start


def size_again(table: BlockTable, rows: NDArray[np.int32]) -> Integers:
    """Their requested bytes, (n,), up to the next block at most."""
    size = _sizes(table, len(rows))
    run(sizes_of, len(table), table.reader(), rows, size)
    return size


def _debug_heaps(
    rows: NDArray[np.int32], table: BlockTable, crt: Callable[[NDArray[np.int64]], CrtBlocks]
) -> list[int]:
    """The heaps with CRT debug blocks, by a sample of some thousand rows of each."""
    heaps = int(table.heap.max()) + 1 if len(rows) else 0
    counts, places = np.zeros(heaps, np.int64), np.empty(len(rows), np.int64)
    count = run(thin, len(rows), rows, table.heap, _SAMPLE, counts, np.zeros(heaps, np.int64), places)
    sample = crt(np.sort(rows[places[:count]]).astype(np.int64))
    found: list[int] = np.unique(table.heap[sample.row]).tolist()
    return found


def _skip_crt_headers(
    rows: NDArray[np.int32], places: ArrayPlaces, table: BlockTable, crt: Callable[[NDArray[np.int64]], CrtBlocks],
    heaps: list[int],
) -> None:  # fmt: skip
    """Makes the CRT debug blocks of these heaps begin behind their header, in `places`."""
    for heap in heaps:
        of_heap = np.flatnonzero(table.heap[rows] == heap)
        debug = crt(np.sort(rows[of_heap]).astype(np.int64))
        order = of_heap[np.argsort(rows[of_heap], kind="stable")]
        nodes = order[np.searchsorted(rows[order], debug.row)]
        places.start[nodes], places.size[nodes] = debug.user.astype(np.int64), debug.size
