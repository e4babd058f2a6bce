"""Committed memory by the memory map, for many spans at once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.memory.regions import RegionTable, State
from heapdump.spans import Span


class Committed:
    """The committed regions of a memory map, for fast sums over many spans."""

    def __init__(self, regions: RegionTable) -> None:
        """Takes the committed regions of the map; O(regions)."""
        is_committed = regions.state == State.MEM_COMMIT
        self._start = regions.start[is_committed].astype(np.int64)
        self._end = regions.end[is_committed].astype(np.int64)
        self._bytes_before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._end - self._start)])

    def bytes(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Committed bytes of each span [start, end); (n,) int64."""
        return self._bytes_below(end) - self._bytes_below(start)

    def runs(self, start: int, end: int) -> Iterator[Span]:
        """The committed parts of [start, end), ascending; touching regions are joined."""
        i = int(np.searchsorted(self._end, start, side="right"))
        run: Span | None = None
        while i < len(self._start) and self._start[i] < end:
            region = Span(max(start, int(self._start[i])), min(end, int(self._end[i])))
            if run is not None and run.end != region.start:
                yield run
                run = None
            run = Span(run.start if run else region.start, region.end)
            i += 1
        if run is not None:
            yield run

    def _bytes_below(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self._start):
            return np.zeros(len(addresses), np.int64)
        i = np.searchsorted(self._start, addresses, side="right")
        last = np.maximum(i, 1) - 1
        inside = np.minimum(addresses, self._end[last]) - self._start[last]
        return np.where(i == 0, 0, self._bytes_before[last] + inside)
