"""Free runs: what is left of the address space, in pieces that VirtualAlloc can hand out.

VirtualAlloc begins reservations at multiples of 64 KiB. A free run is therefore counted from the next such boundary on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span

GRANULARITY = 0x10000
MiB = 1 << 20
SIZE_CLASSES = (MiB, 16 * MiB, 64 * MiB, 256 * MiB)
"""Least bytes of the classes that free runs are counted in."""


def free_runs(regions: RegionTable, limit: int | None = None) -> list[Span]:
    """The free runs below `limit` from their first 64 KiB boundary on, ascending; none without a complete map."""
    if not regions.is_complete_map:
        return []
    rows = np.flatnonzero(regions.state == State.MEM_FREE)
    spans = zip(regions.start[rows].tolist(), regions.end[rows].tolist(), strict=True)
    return list(_aligned(spans, limit))


def _aligned(spans: Iterator[tuple[int, int]], limit: int | None) -> Iterator[Span]:
    """Touching spans joined, cut at the limit, each from its first boundary on.

    The first 64 KiB of the address space are never handed out.
    """
    joined: list[Span] = []
    for start, end in spans:
        if joined and joined[-1].end == start:
            joined[-1] = Span(joined[-1].start, end)
        else:
            joined.append(Span(start, end))
    for span in joined:
        first = max(GRANULARITY, -(-span.start // GRANULARITY) * GRANULARITY)
        last = span.end if limit is None else min(span.end, limit)
        if first < last:
            yield Span(first, last)


@dataclass(frozen=True, slots=True)
class FreeSpace:
    """Free runs in numbers.

    Attributes:
        largest: the largest run; None without one.
        runs: number of runs.
        free_bytes: bytes of all runs.
        counts: number of runs of at least each of `SIZE_CLASSES` bytes.
    """

    largest: Span | None
    runs: int
    free_bytes: int
    counts: tuple[int, ...]

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest run; 0 without one."""
        return self.largest.size if self.largest else 0

    @property
    def fragmentation(self) -> float | None:
        """1 - largest / free bytes, 0 to 1; None where nothing is free."""
        return 1 - self.largest_bytes / self.free_bytes if self.free_bytes else None


def free_space(runs: Sequence[Span]) -> FreeSpace:
    """The runs in numbers. The largest of several runs of one size is the lowest."""
    largest = max(runs, key=lambda run: (run.size, -run.start), default=None)
    counts = tuple(sum(run.size >= least for run in runs) for least in SIZE_CLASSES)
    return FreeSpace(largest, len(runs), sum(run.size for run in runs), counts)
