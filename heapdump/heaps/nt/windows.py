"""Cuts committed runs into windows: arrays of 64-bit words, of some MiB each, and the parts of runs that lie in them.

A run that the file holds in one piece is read as a view of the file; a window can hold several such runs. Other runs
are copied, each into windows of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Segment
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.memory.mapped import SpanWords
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, merged

WINDOW_BYTES = 4 << 20
_TAIL_BYTES = (3 << 20) + 0x1000
"""Bytes that a window has behind the part that is walked: more than three of the longest entries (0xFFFF granules of 16
bytes). So an entry that begins in the walked part ends in the window, and so do the next two."""


@dataclass(frozen=True, slots=True)
class RunPart:
    """The part of one committed run that lies in a window. Granule 0 is the first word of the window.

    Attributes:
        start: granule where the walked part begins.
        stop: granule behind the walked part: only entries that begin in [start, stop) are walked.
        end: granule behind the readable part, at or behind `stop`: end of the run, or of the window.
        base: address that granule 0 would have: granule g has the address base + g * granule bytes. It may be negative,
            because granule 0 may be the start of the file.
        run: the run that this is a part of.
        is_first: True where the run begins here.
    """

    start: int
    stop: int
    end: int
    base: int
    run: Span
    is_first: bool


@dataclass(frozen=True)
class Window:
    """Words of memory, and the parts of runs of one heap that lie in them.

    Attributes:
        words: (n,) int64 little-endian words.
        run_parts: ascending by address.
        missing: spans of words of which the dump lacks at least one byte, ascending; these words are zero.
        granule: bytes in a granule.
    """

    words: NDArray[np.int64]
    run_parts: tuple[RunPart, ...]
    missing: tuple[Span, ...]
    granule: int

    @property
    def span(self) -> Span:
        """Addresses from the start of the first part to the stop of the last part. No later window reads them."""
        return Span(self.address(0, self.run_parts[0].start), self.address(-1, self.run_parts[-1].stop))

    @property
    def walked_bytes(self) -> int:
        """Bytes of all walked parts."""
        return sum(part.stop - part.start for part in self.run_parts) * self.granule

    def address(self, part: int, granule: int) -> int:
        """The address of a granule of the part with that index."""
        return self.run_parts[part].base + granule * self.granule

    @cached_property
    def limits(self) -> NDArray[np.int64]:
        """(n, 4) int64: start, stop, end and base of each part, as kernels take them."""
        return np.array([(part.start, part.stop, part.end, part.base) for part in self.run_parts], np.int64)

    def lacks(self, addresses: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for each address where the dump lacks a byte of the 8-byte word; (n,) bool."""
        starts, ends = self._missing_edges
        i = np.searchsorted(starts, addresses, side="right") - 1
        lacking: NDArray[np.bool_] = (i >= 0) & (addresses < ends[np.maximum(i, 0)])
        return lacking

    def are_whole(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for spans that the window and the dump hold completely; (n,). Each start must lie in a part."""
        missing_starts, missing_ends = self._missing_edges
        i = np.searchsorted(missing_ends, starts, side="right")
        missing = (i < len(missing_ends)) & (missing_starts[np.minimum(i, len(missing_ends) - 1)] < ends)
        complete: NDArray[np.bool_] = ~missing & ((ends - self.bases(starts)) // 8 <= len(self.words))
        return complete

    def lacks_word(self, address: int) -> bool:
        """True where the dump lacks a byte of the 8-byte word at the address."""
        return bool(self.missing) and bool(self.lacks(np.array([address]))[0])

    @cached_property
    def _missing_edges(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """((k,) start, (k,) end) of the missing spans; one empty span where there is none."""
        spans = self.missing or (Span(0, 0),)
        return np.array([span.start for span in spans], np.int64), np.array([span.end for span in spans], np.int64)

    @cached_property
    def _start_addresses(self) -> NDArray[np.int64]:
        starts: NDArray[np.int64] = self.limits[:, 3] + self.limits[:, 0] * self.granule
        return starts

    def bases(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) `base` of the part that each address lies in; every address must lie in a part."""
        bases: NDArray[np.int64] = self.limits[np.searchsorted(self._start_addresses, addresses, side="right") - 1, 3]
        return bases


def committed_runs(segment: Segment) -> Iterator[Span]:
    """The committed runs of a segment, ascending: the spans between its uncommitted ranges."""
    start = segment.span.start
    for hole in (*segment.uncommitted, Span(segment.span.end, segment.span.end)):
        if hole.start > start:
            yield Span(start, hole.start)
        start = hole.end


def present_runs(space: AddressSpace, segments: Sequence[Segment]) -> list[Span]:
    """The committed runs that have rows, ascending: the walk leaves out long ones that are mostly not in the dump."""
    runs = (run for segment in segments for run in committed_runs(segment))
    return sorted(run for run in runs if space.mapped.is_mostly_present(run))


def windows(space: AddressSpace, entry_format: EntryFormat, runs: Sequence[Span]) -> Iterator[Window]:
    """Cuts runs into windows. `runs`: ascending. A run of more than WINDOW_BYTES gets several windows."""
    granule = entry_format.granule
    pieces: list[RunPart] = []
    size, window_words = 0, None
    for run in runs:
        found = space.mapped.in_file(run) if run.size <= WINDOW_BYTES else None
        is_other = found is None or window_words is None or found.phase != window_words.phase
        if window_words is not None and (is_other or size + run.size > WINDOW_BYTES):
            yield Window(window_words.words, tuple(pieces), (), granule)
            pieces, size = [], 0
        window_words = found
        if found is None:
            yield from windows_of_run(space, granule, run)
            continue
        start = (run.start - found.base) // granule
        end = start + run.size // granule
        pieces.append(RunPart(start, end, end, found.base, run, is_first=True))
        size += run.size
    if window_words is not None:
        yield Window(window_words.words, tuple(pieces), (), granule)


def windows_of_run(space: AddressSpace, granule: int, run: Span) -> Iterator[Window]:
    """The windows of one run, or of a part of a run."""
    for at in range(run.start, run.end, WINDOW_BYTES):
        stop = min(at + WINDOW_BYTES, run.end)
        span = Span(at, min(stop + _TAIL_BYTES, run.end))
        found = space.mapped.span_words(span)
        start = (at - found.base) // granule
        last, end = start + (stop - at) // granule, start + span.size // granule
        part = RunPart(start, last, end, found.base, run, at == run.start)
        yield Window(found.words, (part,), _without_half_words(found), granule)


def _without_half_words(found: SpanWords) -> tuple[Span, ...]:
    """The missing spans, extended to whole words. Words of which only some bytes are in the dump are set to zero."""
    widened = [Span(span.start & ~7, -(-span.end // 8) * 8) for span in found.missing]
    for span in widened:
        for edge in (span.start, span.end - 8):
            found.words[(edge - found.base) // 8] = 0
    return tuple(merged(widened))
