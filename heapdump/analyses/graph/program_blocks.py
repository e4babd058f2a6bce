"""The blocks that are nodes of the pointer graph: the program's busy blocks, their addresses and sizes.

In: the block table. Out: arrays with an element for each node, which can be made again where they are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.pointer_map import TOP, Integers
from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.table import BlockTable
from heapdump.kernels import run
from heapdump.kernels.pointer_map import sizes_of, starts_of, take, take_starts, thin
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.large_arrays import empty

_DENSE = 4
"""Nodes are dense where each so many have one of them."""

_SAMPLE = 1 << 13
"""Rows of each heap that are searched for CRT debug blocks before all rows of the heap are."""


@dataclass
class ProgramBlocks:
    """The n busy blocks of the program, ascending by address and disjoint.

    Attributes:
        rows: (n,) int32 row of each in the block table.
        start: (n,) int64 address.
        size: (n,) int32 or int64 requested bytes, up to the next block at most.
        are_rows: True where all three follow from the block table: `again` makes them.
    """

    rows: NDArray[np.int32]
    start: NDArray[np.int64]
    size: Integers
    are_rows: bool


def program_blocks(table: BlockTable, crt: Callable[[NDArray[np.int64]], CrtBlocks]) -> ProgramBlocks:
    """The blocks of a table; CRT debug blocks, which `crt` finds among rows, begin behind their header."""
    reader = table.reader()
    rows, start = empty(len(table), np.int32), empty(len(table), np.int64)
    size = _sizes(table, len(table))
    order = None
    count = run(take, len(table), reader, BUSY | INTERNAL, BUSY, TOP, rows, start, size)
    if count < 0:  # heaps over each other: damage
        order = np.argsort(table.address, kind="stable")
        reader = BlockTable(*(column[order] for column in table.columns())).reader()
        count = run(take, len(table), reader, BUSY | INTERNAL, BUSY, TOP, rows, start, size)
    rows = rows[:count] if order is None else order[rows[:count]].astype(np.int32)
    found = ProgramBlocks(rows, start[:count], size[:count], are_rows=order is None)
    found.are_rows &= not _skip_crt_headers(found, table, crt)
    return found


def _sizes(table: BlockTable, count: int) -> Integers:
    """Room for the sizes of blocks of the table."""
    is_short = len(table) == 0 or int(table.size8.max()) < 1 << 28
    return empty(count, np.int32) if is_short else empty(count, np.int64)


def rows_again(table: BlockTable, count: int) -> NDArray[np.int32]:
    """`ProgramBlocks.rows` of `count` blocks with `are_rows`."""
    rows, leaves = empty(len(table), np.int32), empty(len(table), np.int64)
    run(take_starts, len(table), table.reader(), BUSY | INTERNAL, BUSY, TOP, rows, leaves)
    return rows[:count]


def start_again(table: BlockTable, rows: NDArray[np.int32]) -> NDArray[np.int64]:
    """`ProgramBlocks.start`, likewise."""
    start = empty(len(rows), np.int64)
    run(starts_of, len(table), table.reader(), rows, start)
    return start


def size_again(table: BlockTable, rows: NDArray[np.int32]) -> Integers:
    """`ProgramBlocks.size`, likewise."""
    size = _sizes(table, len(rows))
    run(sizes_of, len(table), table.reader(), rows, size)
    return size


def some_starts(table: BlockTable, rows: NDArray[np.int32], nodes: NDArray[np.integer] | slice) -> NDArray[np.int64]:
    """The addresses of some of the blocks `rows`; (nodes,) int64."""
    return table.addresses(rows[nodes]).view(np.int64)


def some_sizes(table: BlockTable, rows: NDArray[np.int32], nodes: NDArray[np.integer] | slice) -> NDArray[np.int64]:
    """The bytes of some of the blocks `rows`, up to the next block at most; (nodes,) int64."""
    if isinstance(nodes, slice):
        return _sizes_between(table, rows, nodes.start, nodes.stop)
    if not len(nodes):
        return np.empty(0, np.int64)
    low, high = int(nodes.min()), int(nodes.max()) + 1
    if high - low <= _DENSE * len(nodes):  # takes less time than to look up every column for each
        return np.take(_sizes_between(table, rows, low, high), nodes - low)
    own = table.sizes(rows[nodes]).view(np.int64)
    is_cut = nodes < len(rows) - 1
    here = nodes[is_cut]
    own[is_cut] = np.minimum(own[is_cut], some_starts(table, rows, here + 1) - some_starts(table, rows, here))
    return own


def _sizes_between(table: BlockTable, rows: NDArray[np.int32], low: int, high: int) -> NDArray[np.int64]:
    """`some_sizes` of the nodes [low, high), and of no more."""
    and_next = rows[low : high + 1]
    out = np.empty(len(and_next), np.int64)
    run(sizes_of, len(table), table.reader(), and_next, out)
    return out[: high - low]


def _skip_crt_headers(found: ProgramBlocks, table: BlockTable, crt: Callable[[NDArray[np.int64]], CrtBlocks]) -> bool:
    """Makes CRT debug blocks begin behind their header, in `start` and `size`; True where there are some.

    A heap with no CRT debug block in a sample of some thousand rows is taken to have none.
    """
    rows, start, size = found.rows, found.start, found.size
    heaps = int(table.heap.max()) + 1 if len(rows) else 0
    counts, places = np.zeros(heaps, np.int64), np.empty(len(rows), np.int64)
    count = run(thin, len(rows), rows, table.heap, _SAMPLE, counts, np.zeros(heaps, np.int64), places)
    sample = crt(np.sort(rows[places[:count]]).astype(np.int64))
    for heap in np.unique(table.heap[sample.row]).tolist():
        of_heap = np.flatnonzero(table.heap[rows] == heap)
        debug = crt(np.sort(rows[of_heap]).astype(np.int64))
        order = of_heap[np.argsort(rows[of_heap], kind="stable")]
        nodes = order[np.searchsorted(rows[order], debug.row)]
        start[nodes], size[nodes] = debug.user.astype(np.int64), debug.size
    return len(sample.row) > 0
