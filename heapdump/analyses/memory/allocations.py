"""Allocations: what one VirtualAlloc, one mapping or one image holds of the address space, and what it is for."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.memory.usage import UsageKind, UsageMap
from heapdump.memory.regions import Kind, State, known
from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class VirtualAllocation:
    """Touching regions with the same allocation base.

    Attributes:
        span: its addresses.
        type: private, mapped or image.
        kind: usage of most of its bytes.
        usage: name of that usage.
        detail: of its first region with that usage: module, thread, heap segment, or the first bytes.
        committed_bytes: committed bytes.
        protect: PAGE_… bits of its first committed region; 0 without one.
    """

    span: Span
    type: Kind
    kind: UsageKind
    usage: str
    detail: str
    committed_bytes: int
    protect: int

    @property
    def words(self) -> str:
        """Usage and detail for a person: `Image hook.dll`, `Stack ~3 tid 0x1b3c`, `<unknown> …`."""
        return f"{self.usage} {self.detail}".rstrip()


class Allocations:
    """The allocations of a process, ascending; each is described when it is asked for."""

    def __init__(self, usage: UsageMap) -> None:
        """Finds their rows in the memory map."""
        self._usage = usage
        table = usage.table
        rows = [(low, high) for low, high in table.allocation_rows() if table.state[low] != State.MEM_FREE]
        self._rows = rows
        self._starts = [int(table.start[low]) for low, _ in rows]

    def __len__(self) -> int:
        """The number of allocations."""
        return len(self._rows)

    def span(self, i: int) -> Span:
        """The addresses of allocation `i`."""
        _, high = self._rows[i]
        return Span(self._starts[i], int(self._usage.table.end[high - 1]))

    def before(self, address: int) -> VirtualAllocation | None:
        """The last allocation that begins below an address."""
        i = bisect_left(self._starts, address) - 1
        return self.at(i) if i >= 0 else None

    def indices(self, start: int, end: int) -> range:
        """The indices of the allocations that begin in [start, end)."""
        return range(bisect_left(self._starts, start), bisect_left(self._starts, end))

    def inside(self, span: Span) -> Iterator[VirtualAllocation]:
        """The allocations that have a byte in the span, ascending."""
        i = max(0, bisect_right(self._starts, span.start) - 1)
        while i < len(self._rows) and self._starts[i] < span.end:
            if self.span(i).end > span.start:
                yield self.at(i)
            i += 1

    def at(self, i: int) -> VirtualAllocation:
        """Allocation `i`, described."""
        low, high = self._rows[i]
        usage, table = self._usage, self._usage.table
        codes = usage.codes[low:high]
        sizes = table.size[low:high]
        committed = table.state[low:high] == State.MEM_COMMIT
        totals = np.bincount(codes, weights=sizes.astype(np.float64))
        code = int(np.argmax(totals))
        first = low + int(np.argmax(codes == code))
        region = next(usage.regions(np.array([first], np.int64)))
        first_committed = low + int(np.argmax(committed)) if committed.any() else None
        return VirtualAllocation(
            self.span(i),
            known(Kind, int(table.type[low])),
            usage.kind(code),
            usage.names[code],
            region.detail,
            int(sizes[committed].sum()),
            0 if first_committed is None else int(table.protect[first_committed]),
        )
