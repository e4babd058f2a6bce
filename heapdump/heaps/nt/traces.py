"""Where blocks of an NT heap say which stack allocated them (heap-structures.md §4.1).

A front prefix holds a pointer (7 and later), HEAP_ENTRY_EXTRA behind the user data an index.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.nt.entry_format import entry_format_of
from heapdump.heaps.nt.windows import Window, runs, windows
from heapdump.kernels import WORTH_COMPILING, nt_stack_records, run
from heapdump.kernels.row import BUSY, EXTRA, KIND_MASK, UNIT
from heapdump.process.model import View

_AT_ONCE = 4
_STUB = 0x0502  # EntryOffset 2, code 5: the header behind a front prefix


def nt_traces(view: View, heap: Heap, table: BlockTable) -> TraceReader:
    """Reads stack numbers: of many rows by sweeping over the heap once, of few where they lie."""
    swept: list[NDArray[np.uint64]] = []

    def numbers(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stack number of each row, 0 where none is recorded."""
        if len(rows) < WORTH_COMPILING:
            return _numbers(view, table, rows)
        if not swept:
            swept.append(_sweep(view, heap, table))
        out: NDArray[np.uint64] = swept[0][rows]
        others = np.flatnonzero(out == 0)  # with an index, large blocks, on pages that the file holds in pieces
        out[others] = _numbers(view, table, rows[others])
        return out

    return numbers


def _sweep(view: View, heap: Heap, table: BlockTable) -> NDArray[np.uint64]:
    """The stack records of all rows that have a front prefix; (rows of the table,) uint64, 0 for the others."""
    out = np.zeros(len(table), np.int64)
    entry_format = entry_format_of(view, heap)

    def read(window: Window) -> None:
        """Fills in the rows of one window."""
        swept = window.swept
        first, last = np.searchsorted(table.entry, np.array([swept.start, swept.end], np.uint64)).tolist()
        rows = table.part(first, last)
        mine = np.zeros(last - first, np.int64)
        run(
            nt_stack_records.read_records, len(table), window.words, window.limits, rows.reader(), heap.index,
            entry_format.stride, mine,
        )  # fmt: skip
        out[first:last] = np.where(mine != 0, mine, out[first:last])
        view.space.mapped.forget(swept)

    found = windows(view.space, entry_format, sorted(part for segment in heap.segments for part in runs(segment)))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _AT_ONCE)) as pool:
        while batch := list(islice(found, _AT_ONCE)):
            list(pool.map(read, batch))
    return out.view(np.uint64)


def _numbers(view: View, table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    granule, pointer = view.granularity, view.pointer_bytes
    out = np.zeros(len(rows), np.uint64)
    tags = table.tags[rows]
    busy = tags & np.uint16(BUSY) != 0
    address = table.addresses(rows)
    prefixed = np.flatnonzero(busy & (table.header8[rows].astype(np.int64) * UNIT == 3 * granule))
    stubs, _ = view.space.mapped.gather(address[prefixed] - np.uint64(2), 2)
    prefixed = prefixed[stubs == _STUB]
    out[prefixed], _ = view.space.mapped.gather(address[prefixed] - np.uint64(4 * pointer), pointer)
    extra = np.flatnonzero(busy & (out == 0) & (tags & np.uint16(EXTRA) != 0))
    end = table.entry[rows[extra]] + table.entry_sizes(rows[extra])
    large = (tags[extra] & np.uint16(KIND_MASK)) == BlockKind.VIRTUAL
    place = np.where(large, table.entry[rows[extra]] - np.uint64(2 * granule), end - np.uint64(granule))
    out[extra], _ = view.space.mapped.gather(place, 2)
    return out
