"""Which recorded stack each block was allocated by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.records import Heap
from heapdump.blocks.table import BlockKind, BlockTable
from heapdump.process.model import Process
from heapdump.process.stack_db import FIRST_ADDRESS, StackDatabase

_BATCH = 1 << 20
_EXTRA = 0x02  # entry flag: HEAP_ENTRY_EXTRA with an index behind the user data
_STUB = 0x0502  # EntryOffset 2, code 5: the header behind a front prefix
_OF_32_BITS = 1 << 48
"""Added to indices into the 32-bit database of a WOW64 process, which has another one: behind all user addresses."""


class Stacks:
    """Stack numbers of blocks (see `process.stack_db`), and their frames; each number stands for one stack."""

    def __init__(self, process: Process, heaps: Sequence[Heap], table: BlockTable) -> None:
        """Reads nothing yet."""
        self._process, self._table, self._heaps = process, table, heaps
        self._views = {view.arch: view for view in process.views}
        self._databases = {view.arch: StackDatabase(process, view) for view in process.views}

    @property
    def are_recorded(self) -> bool:
        """True when some heap of the process records allocation stacks."""
        return any(heap.stack_traces for heap in self._heaps)

    def numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The stack number of each row; (n,) uint64, 0 where none is recorded or its record cannot be one."""
        out = np.zeros(len(rows), np.uint64)
        if self.are_recorded:
            for first in range(0, len(rows), _BATCH):
                out[first : first + _BATCH] = self._numbers(rows[first : first + _BATCH])
        return out

    def _numbers(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        out = np.zeros(len(rows), np.uint64)
        owners = self._table.heap[rows]
        for heap in self._heaps:
            mine = np.flatnonzero(owners == heap.index)
            if heap.stack_traces and len(mine):
                found = self._known(heap, self._of_heap(heap, rows[mine]))
                found[(found > 0) & (found < FIRST_ADDRESS)] += np.uint64(self._first_index(heap))
                out[mine] = found
        return out

    def _first_index(self, heap: Heap) -> int:
        """What indices into the database of the heap's view are counted from."""
        return _OF_32_BITS if self._process.is_wow64 and heap.view == "x86" else 0

    def frames(self, heap: Heap, number: int) -> tuple[int, ...]:
        """Return addresses of a stack, innermost first; empty for number 0."""
        first = self._first_index(heap)
        raw = number - first if first and number >= first else number
        return self._databases[heap.view].frames(raw) or () if raw else ()

    def _known(self, heap: Heap, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The numbers without those that lead to no stack."""
        database = self._databases[heap.view]
        bad = [number for number in np.unique(numbers).tolist() if number and database.frames(number) is None]
        numbers[np.isin(numbers, np.array(bad, np.uint64))] = 0
        return numbers

    def _of_heap(self, heap: Heap, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        table, view = self._table, self._views[heap.view]
        granule, pointer = view.granularity, view.pointer_bytes
        out = np.zeros(len(rows), np.uint64)
        tags = table.tags[rows]
        busy = table.is_busy[rows]
        address = table.entry[rows] + table.lead[rows].astype(np.uint64) * np.uint64(8)
        prefixed = np.flatnonzero(busy & (table.lead[rows].astype(np.int64) * 8 == 3 * granule))
        stubs, _ = view.space.gather(address[prefixed] - np.uint64(2), 2)
        prefixed = prefixed[stubs == _STUB]
        out[prefixed], _ = view.space.gather(address[prefixed] - np.uint64(4 * pointer), pointer)
        extra = np.flatnonzero(busy & (out == 0) & ((tags >> 8 & _EXTRA) != 0))
        end = table.entry[rows[extra]] + table.units[rows[extra]].astype(np.uint64) * np.uint64(8)
        large = (tags[extra] & 0xF) == BlockKind.VIRTUAL
        place = np.where(large, table.entry[rows[extra]] - np.uint64(2 * granule), end - np.uint64(granule))
        out[extra], _ = view.space.gather(place, 2)
        return out
