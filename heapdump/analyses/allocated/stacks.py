"""The recorded allocation stack of each block: its number, and the return addresses of a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.walk import Walk
from heapdump.process.model import Process, View
from heapdump.process.stacks.trace_database import FIRST_RECORD_ADDRESS, RecordedStacks

Numbers = Callable[[NDArray[np.int64]], NDArray[np.uint64]]
Reader = Callable[[View, Heap, Walk], Numbers | None]
_FIRST_ID = 1 << 56
"""Added to numbers that lead to no frames (`Heap.stack_ids`), with the heap's index above them."""

_ID_BITS = 32
_FIRST_X86_INDEX = 1 << 48
"""Added to indices into the 32-bit database of a WOW64 process, which has two. It is larger than any user address."""


def records_stacks(heaps: Sequence[Heap]) -> bool:
    """True when some heap records allocation stacks. Needs no walk."""
    return any(heap.stack_traces for heap in heaps)


class Stacks:
    """Stack numbers of blocks, and the frames of a number; each number stands for one stack.

    A number is the address of a stack record, or an index into the database (`process.stacks.trace_database`).
    """

    def __init__(self, process: Process, heaps: Sequence[Heap], walk: Walk, reader: Reader) -> None:
        """Reads nothing yet. `reader(view, heap, walk)` gives the reader of stack numbers of a heap's rows."""
        self._process, self._walk, self._heaps, self._reader = process, walk, heaps, reader
        self._numbers_of: dict[int, Numbers | None] = {}
        self._views = {view.arch: view for view in process.views}
        self._databases = {view.arch: RecordedStacks(process, view) for view in process.views}

    @property
    def are_recorded(self) -> bool:
        """True when some heap of the process records allocation stacks."""
        return records_stacks(self._heaps)

    def numbers(self, rows: NDArray[np.int64], *, checked: bool = True) -> NDArray[np.uint64]:
        """The stack number of each row; (n,) uint64, 0 where none is recorded or the number leads to no stack.

        Without `checked` a number that leads to no stack is as recorded, and has no frames; only one beyond every
        user address, which damage can leave, is 0.
        """
        out = np.zeros(len(rows), np.uint64)
        if not self.are_recorded or not len(rows):
            return out
        owners = self._walk.table.heap[rows]
        for heap in self._heaps:
            places = np.flatnonzero(owners == heap.index)
            found = self._read(heap, rows[places]) if heap.stack_traces and len(places) else None
            if found is not None:
                if heap.stack_ids:
                    found = np.where(found > 0, found + np.uint64(_FIRST_ID + (heap.index << _ID_BITS)), found)
                    out[places] = found
                    continue
                found[found >= np.uint64(_FIRST_X86_INDEX)] = 0
                if heap.kind != HeapKind.PAGE:  # a page heap's number comes from its own record: valid without frames
                    found = self._known(heap, found) if checked else found
                    found[(found > 0) & (found < FIRST_RECORD_ADDRESS)] += np.uint64(self._first_index(heap))
                out[places] = found
        return out

    def name_of(self, number: int) -> str:
        """`AddressSanitizer stack 2` for the number of a stack whose frames are not read; "" for other numbers."""
        if number < _FIRST_ID:
            return ""
        owner = self._heaps[(number - _FIRST_ID) >> _ID_BITS]
        return f"{owner.stack_ids} {number & ((1 << _ID_BITS) - 1)}"

    def _first_index(self, heap: Heap) -> int:
        """The number of index 0 of the database of the heap's view."""
        return _FIRST_X86_INDEX if self._process.is_wow64 and heap.view == "x86" else 0

    def frames(self, heap: Heap, number: int) -> tuple[int, ...]:
        """Return addresses of a stack, innermost first; empty for number 0."""
        if number >= _FIRST_ID:
            return ()
        first = self._first_index(heap)
        raw = number - first if first and number >= first else number
        if not raw or (heap.kind == HeapKind.PAGE and raw < FIRST_RECORD_ADDRESS):
            return ()
        return self._databases[heap.view].frames(raw) or ()

    def _known(self, heap: Heap, numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """The numbers, 0 in place of those that lead to no stack."""
        database = self._databases[heap.view]
        bad = [number for number in np.unique(numbers).tolist() if number and database.frames(number) is None]
        numbers[np.isin(numbers, np.array(bad, np.uint64))] = 0
        return numbers

    def _read(self, heap: Heap, rows: NDArray[np.int64]) -> NDArray[np.uint64] | None:
        if heap.index not in self._numbers_of:
            self._numbers_of[heap.index] = self._reader(self._views[heap.view], heap, self._walk)
        numbers = self._numbers_of[heap.index]
        return None if numbers is None else numbers(rows)
