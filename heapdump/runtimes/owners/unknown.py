"""Memory without a claim, as patterns look at it: allocations, runs of touching allocations, first bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.regions import Kind, RegionTable, State
from heapdump.memory.space import AddressSpace
from heapdump.process.model import Process
from heapdump.spans import Span

_EXECUTABLE = 0x10 | 0x20 | 0x40 | 0x80
_MOST_ALLOCATIONS = 1 << 16
"""Allocations of one kind that a pattern looks at."""


@dataclass(frozen=True, slots=True)
class UnknownAllocation:
    """One allocation of VirtualAlloc or MapViewOfFile.

    Attributes:
        span: all of it.
        rows: [first, last) rows of the region table.
        committed: committed bytes.
        executable: committed bytes that may be executed.
    """

    span: Span
    rows: tuple[int, int]
    committed: int
    executable: int


class UnknownMemory:
    """The memory of a process that no claim of the table names. `table`: rows with claims."""

    def __init__(self, process: Process, table: RegionTable) -> None:
        """Looks at nothing yet."""
        self.process, self.table = process, table

    @property
    def space(self) -> AddressSpace:
        """The memory in the dump, with the pointer size of the program."""
        return self.process.views[-1].space

    @property
    def pointer_bytes(self) -> int:
        """4 or 8, of the program."""
        return self.space.pointer_bytes

    @cached_property
    def private(self) -> tuple[UnknownAllocation, ...]:
        """Private allocations without any claim, ascending. Heaps that no allocator recognises are left out."""
        heaps = {address for view in self.process.views for address in view.heap_addresses}
        return tuple(one for one in self._allocations(Kind.MEM_PRIVATE) if one.span.start not in heaps)

    @cached_property
    def mapped(self) -> tuple[UnknownAllocation, ...]:
        """Mapped allocations without any claim, ascending."""
        return tuple(self._allocations(Kind.MEM_MAPPED))

    @cached_property
    def runs(self) -> tuple[Span, ...]:
        """Touching private memory without a claim, whatever allocations it is made of; ascending.

        A reservation of placeholders falls into several allocations where parts of it are committed.
        """
        table = self.table
        rows = np.flatnonzero(self._is_unclaimed & (table.type == Kind.MEM_PRIVATE))
        if not len(rows):
            return ()
        starts, ends = table.start[rows], table.end[rows]
        breaks = np.flatnonzero(starts[1:] != ends[:-1]) + 1
        firsts, lasts = np.concatenate([[0], breaks]), np.concatenate([breaks, [len(rows)]]) - 1
        return tuple(Span(a, b) for a, b in zip(starts[firsts].tolist(), ends[lasts].tolist(), strict=True))

    @cached_property
    def _is_unclaimed(self) -> NDArray[np.bool_]:
        unclaimed: NDArray[np.bool_] = (self.table.claim < 0) & (self.table.state != State.MEM_FREE)
        return unclaimed

    def _allocations(self, kind: Kind) -> Iterator[UnknownAllocation]:
        table = self.table
        if not len(table):
            return
        bounds = np.array(list(table.allocation_rows()), np.int64)
        firsts = bounds[:, 0]
        is_whole = np.logical_and.reduceat(self._is_unclaimed & (table.type == kind), firsts)
        is_committed = table.state == State.MEM_COMMIT
        committed = np.where(is_committed, table.size, np.uint64(0))
        executable = np.where(table.protect & _EXECUTABLE != 0, committed, np.uint64(0))
        sums = [np.add.reduceat(column, firsts) for column in (committed, executable)]
        for i in np.flatnonzero(is_whole)[:_MOST_ALLOCATIONS].tolist():
            low, high = (int(bound) for bound in bounds[i])
            span = Span(int(table.start[low]), int(table.end[high - 1]))
            yield UnknownAllocation(span, (low, high), int(sums[0][i]), int(sums[1][i]))
