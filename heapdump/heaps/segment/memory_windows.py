"""Parts of the process' memory for the kernels: where they lie in the file, or as copies; and what is committed of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Trust
from heapdump.blocks.table import doubt
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.memory.regions import RegionTable, State
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_PHASES = 16
"""Places in the file that differ by a multiple of this lie on granules of the same array of words."""


@dataclass(frozen=True)
class Batch:
    """Spans whose words lie in one array. `rows`: which of the asked ones; `base`: address of byte 0 of `words`, of each.

    `missing`: parts of the (one) span that the dump does not hold and that read as zero.
    """

    words: NDArray[np.int64]
    rows: NDArray[np.int64]
    base: NDArray[np.int64]
    missing: tuple[Span, ...]


def batches(space: AddressSpace, start: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[Batch]:
    """All spans [start, end), (n,) each and on 8-byte boundaries, as few batches; those in several pieces are copied."""
    place = space.mapped.file_places(start, end)
    place[place % 8 != 0] = -1
    for phase in np.unique(place[place >= 0] % _PHASES).tolist():
        rows = np.flatnonzero((place >= 0) & (place % _PHASES == phase))
        yield Batch(space.mapped.file_words(phase), rows, start[rows] - (place[rows] - phase), ())
    for row in np.flatnonzero(place < 0).tolist():
        words, missing = space.mapped.words64(Span(int(start[row]), int(end[row])))
        yield Batch(words, np.array([row]), start[row : row + 1], missing)


def doubt_missing(job: SegmentHeapJob, first: int, missing: Sequence[Span]) -> None:
    """Busy rows from `first` on whose last bytes are not in the dump: how many were asked for is not known."""
    table = job.columns.since(first)
    last = table.entry + table.entry_size - np.uint64(2)
    lost = np.zeros(len(table), bool)
    for span in missing:
        if job.process.regions.committed_bytes(span) or not job.process.regions.is_complete_map:
            lost |= (last >= np.uint64(span.start)) & (last < np.uint64(span.end))
    lost &= table.is_busy
    if lost.any():
        doubt(table.tags, lost, Trust.GUESS)
        place = int(table.entry[lost][0])
        job.walked.gap(
            f"heap {job.heap.address:#x}: {int(lost.sum()):,} blocks from {place:#x} on are not whole in the dump"
        )


class Committed:
    """How much of any span is committed by the memory map."""

    def __init__(self, regions: RegionTable) -> None:
        """O(regions)."""
        keep = regions.state == State.MEM_COMMIT
        self._start = regions.start[keep].astype(np.int64)
        self._end = regions.end[keep].astype(np.int64)
        self._before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._end - self._start)])

    def bytes(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> NDArray[np.int64]:
        """Committed bytes of each span [start, end); (n,) int64."""
        return self._below(end) - self._below(start)

    def runs(self, start: int, end: int) -> Iterator[Span]:
        """The committed runs of a span; neighbouring ones as one."""
        i = int(np.searchsorted(self._end, start, side="right"))
        run: Span | None = None
        while i < len(self._start) and self._start[i] < end:
            part = Span(max(start, int(self._start[i])), min(end, int(self._end[i])))
            if run is not None and run.end != part.start:
                yield run
                run = None
            run = Span(run.start if run else part.start, part.end)
            i += 1
        if run is not None:
            yield run

    def _below(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        if not len(self._start):
            return np.zeros(len(addresses), np.int64)
        i = np.searchsorted(self._start, addresses, side="right")
        last = np.maximum(i, 1) - 1
        inside = np.minimum(addresses, self._end[last]) - self._start[last]
        return np.where(i == 0, 0, self._before[last] + inside)
