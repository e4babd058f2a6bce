"""Reads the numbers of the allocation stacks of an NT heap's blocks (docs/reference/heap-structures.md §4.1).

In 7 and later the number is the address of a trace record, in the front prefix; before, an index in HEAP_ENTRY_EXTRA
(§2.7).
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.nt.entry_format import entry_format_of
from heapdump.heaps.nt.windows import Window, present_runs, windows
from heapdump.kernels import WORTH_COMPILING, nt_stack_records, run
from heapdump.kernels.row import EXTRA, KIND_MASK
from heapdump.process.model import View

_SECOND_HEADER = 0x0502
"""The last two bytes of the second header as a u16: EntryOffset 2, ExtendedBlockSignature 5."""

_PREFIXED_GRANULES = 3
"""Granules from the entry to the user data with a front prefix: the header, then 2 granules, the second of which is the
second header."""

_MAX_THREADS = 4


def nt_traces(view: View, heap: Heap, table: BlockTable) -> TraceReader:
    """The reader of stack numbers. For many rows it sweeps over the heap, for few rows it reads each."""
    swept: list[NDArray[np.uint64]] = []

    def numbers(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stack number of each row, 0 where none is recorded."""
        if len(rows) < WORTH_COMPILING:
            return _numbers(view, table, rows)
        if not swept:
            swept.append(_sweep(view, heap, table))
        out: NDArray[np.uint64] = swept[0][rows]
        others = np.flatnonzero(out == 0)  # rows with an index, large blocks, runs that the file holds in pieces
        out[others] = _numbers(view, table, rows[others])
        return out

    return numbers


def _sweep(view: View, heap: Heap, table: BlockTable) -> NDArray[np.uint64]:
    """Addresses of the trace records of all rows with a front prefix; (len(table),) uint64, 0 for other rows."""
    out = np.zeros(len(table), np.int64)
    entry_format = entry_format_of(view, heap)

    def read(window: Window) -> None:
        """Fills in the rows of one window."""
        span = window.span
        first, last = np.searchsorted(table.entry, np.array([span.start, span.end], np.uint64)).tolist()
        rows = table.part(first, last)
        found = np.zeros(last - first, np.int64)
        run(
            nt_stack_records.read_records, len(table), window.words, window.limits, rows.reader(), heap.index,
            entry_format.stride, found,
        )  # fmt: skip
        out[first:last] = np.where(found != 0, found, out[first:last])
        view.space.mapped.forget(span)

    waiting = windows(view.space, entry_format, present_runs(view.space, heap.segments))
    with ThreadPoolExecutor(min(os.cpu_count() or 1, _MAX_THREADS)) as pool:
        while batch := list(islice(waiting, _MAX_THREADS)):
            list(pool.map(read, batch))
    return out.view(np.uint64)


def _numbers(view: View, table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Address of the trace record, or index, of each row; (n,) uint64, 0 where none is recorded."""
    granule, pointer, mapped = view.granularity, view.pointer_bytes, view.space.mapped
    out = np.zeros(len(rows), np.uint64)
    tags, busy, entry = table.tags[rows], table.is_busy[rows], table.entry[rows]
    user = table.addresses(rows)
    prefixed = np.flatnonzero(busy & (user - entry == np.uint64(_PREFIXED_GRANULES * granule)))
    last_bytes, _ = mapped.gather(user[prefixed] - np.uint64(2), 2)
    prefixed = prefixed[last_bytes == _SECOND_HEADER]
    out[prefixed], _ = mapped.gather(user[prefixed] - np.uint64(4 * pointer), pointer)
    extra = np.flatnonzero(busy & (out == 0) & ((tags & np.uint16(EXTRA)) != 0))
    end = entry[extra] + table.entry_sizes(rows[extra])
    is_large = (tags[extra] & np.uint16(KIND_MASK)) == BlockKind.VIRTUAL
    place = np.where(is_large, entry[extra] - np.uint64(2 * granule), end - np.uint64(granule))
    out[extra], _ = mapped.gather(place, 2)
    return out
