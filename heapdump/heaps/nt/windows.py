"""The committed runs of a heap as stretches of 64-bit words, some megabytes at a time.

Runs that the file holds in one piece are walked where they lie in it, several of them in one window; others are copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Segment
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

WINDOW_BYTES = 4 << 20
_TAIL_BYTES = (3 << 20) + 0x1000
"""More than three of the longest entries: one that begins in a window ends in its tail, and so do two behind it."""

_PHASES = 16
"""Places in the file that differ by a multiple of this lie on granules of the same array of words."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a run: entries that start in granules [start, stop) of the window's words and end by granule `end`.

    `base` = address of granule 0 of the words (perhaps negative).
    """

    start: int
    stop: int
    end: int
    base: int
    run: Span
    is_first: bool


@dataclass(frozen=True)
class Window:
    """Stretches of one heap, ascending, and the words they lie in. `missing`: what reads as zero there."""

    words: NDArray[np.int64]
    stretches: tuple[Stretch, ...]
    missing: tuple[Span, ...]
    granule: int

    @property
    def swept(self) -> Span:
        """From the first stretch's start to the last one's stop, by address: what no later window needs."""
        first, last = self.stretches[0], self.stretches[-1]
        return Span(first.base + first.start * self.granule, last.base + last.stop * self.granule)

    @cached_property
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(addresses where the stretches start, their bases); (n,) int64 each."""
        base = np.array([stretch.base for stretch in self.stretches], np.int64)
        return base + np.array([stretch.start for stretch in self.stretches], np.int64) * self.granule, base

    @cached_property
    def limits(self) -> NDArray[np.int64]:
        """(n, 4) int64: start, stop, end and base of each stretch, for the kernel."""
        return np.array([(s.start, s.stop, s.end, s.base) for s in self.stretches], np.int64)

    def bases(self, addresses: NDArray[np.int64]) -> NDArray[np.int64]:
        """For addresses inside the stretches: the base of the stretch that each lies in."""
        starts, base = self.places
        return base[np.searchsorted(starts, addresses, side="right") - 1]


def runs(segment: Segment) -> Iterator[Span]:
    """The committed runs of a segment, one after the other."""
    start = segment.span.start
    for hole in (*segment.uncommitted, Span(segment.span.end, segment.span.end)):
        if hole.start > start:
            yield Span(start, hole.start)
        start = hole.end


def windows(space: AddressSpace, entry_format: EntryFormat, wanted: Sequence[Span]) -> Iterator[Window]:
    """The runs, ascending, as windows; a run longer than one gets several, each with a tail into the next."""
    granule = entry_format.granule
    batch: list[Stretch] = []
    phase, size = 0, 0
    for run in wanted:
        place = space.mapped.file_place(run) if run.size <= WINDOW_BYTES else None
        if batch and (place is None or place % _PHASES != phase or size + run.size > WINDOW_BYTES):
            yield Window(space.mapped.file_words(phase), tuple(batch), (), granule)
            batch, size = [], 0
        if place is None:
            yield from _alone(space, granule, run)
            continue
        phase = place % _PHASES
        start = (place - phase) // granule
        end = start + run.size // granule
        batch.append(Stretch(start, end, end, run.start - start * granule, run, is_first=True))
        size += run.size
    if batch:
        yield Window(space.mapped.file_words(phase), tuple(batch), (), granule)


def _alone(space: AddressSpace, granule: int, run: Span) -> Iterator[Window]:
    """Windows of one run that is long, or in several pieces."""
    for at in range(run.start, run.end, WINDOW_BYTES):
        stop = min(at + WINDOW_BYTES, run.end)
        span = Span(at, min(stop + _TAIL_BYTES, run.end))
        place, start = space.mapped.file_place(span), 0
        if place is None:
            words, missing = space.mapped.words64(span)
        else:
            words, missing, start = space.mapped.file_words(place % _PHASES), (), place // _PHASES * _PHASES // granule
        first, end = start + (stop - at) // granule, start + span.size // granule
        yield Window(words, (Stretch(start, first, end, at - start * granule, run, at == run.start),), missing, granule)
