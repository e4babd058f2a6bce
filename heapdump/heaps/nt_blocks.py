"""Every back-end block of one NT heap: the chain of entries through each committed run.

The chain goes from run to run by the heap's own uncommitted ranges, never by which pages the dump holds: free entries of
8 and later contain decommitted pages that no range names, and a shared csr heap of the real Windows 7 dump has committed
pages that its ranges call uncommitted. At a damaged header the walk makes one finding, goes on at the next place where
three headers in a row hold, and calls what follows in this run `derived`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, Segment, Trust
from heapdump.blocks.table import BlockKind, tag
from heapdump.heaps.nt_chain import Chained, next_entries
from heapdump.heaps.nt_generation import Generation
from heapdump.heaps.nt_resync import next_good_header
from heapdump.kernels import chain
from heapdump.memory import limits
from heapdump.process.model import View
from heapdump.spans import Span

_WINDOW_BYTES = 16 << 20
_TAIL_BYTES = (1 << 20) + 0x1000
"""More than the longest entry has: one that begins in a window ends in its tail."""

_WORDS = {
    chain.CHECKSUM: ("a header whose checksum holds", "checksum"),
    chain.PREVIOUS: ("the size of the entry before it", "previous size"),
    chain.SIZE: ("a size that stays inside the segment", "size"),
}


@dataclass
class Walked:
    """What a walk of one heap found so far besides its blocks: findings, gaps, and how many headers held."""

    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    headers: int = 0
    good_headers: int = 0

    def find(self, finding: Finding) -> None:
        """Keeps a finding; of a heap that is damaged all over, the first ones."""
        if len(self.findings) < limits.MAX_FINDINGS:
            self.findings.append(finding)
        elif len(self.findings) == limits.MAX_FINDINGS:
            self.findings.append(finding)
            self.gaps.append(f"heap {finding.heap:#x}: only its first {len(self.findings):,} findings are kept")

    def merge(self, other: Walked) -> None:
        """Adds what another part of the walk found in the same heap."""
        self.findings += other.findings
        self.gaps += other.gaps
        self.headers += other.headers
        self.good_headers += other.good_headers


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a run as words, from granule 0 at `span.start` on; entries that start below granule `stop` belong to it.

    What the dump does not hold reads as zero and is named in `missing`.
    """

    span: Span
    words: NDArray[np.int64]
    missing: tuple[Span, ...]
    stop: int
    end: int


def runs(segment: Segment) -> Iterator[Span]:
    """The committed runs of a segment, one after the other."""
    start = segment.span.start
    for hole in (*segment.uncommitted, Span(segment.span.end, segment.span.end)):
        if hole.start > start:
            yield Span(start, hole.start)
        start = hole.end


class RunWalk:
    """Walks one run of one heap; rows go to `columns`, everything else to `walked`."""

    def __init__(
        self, view: View, heap: Heap, generation: Generation, run: Span, columns: BlockColumns, walked: Walked
    ) -> None:
        """`run`: one of `runs` of a segment of the heap."""
        self._view, self._heap, self._generation, self._run = view, heap, generation, run
        self._columns, self._walked = columns, walked
        self._previous = 0
        self._is_trusted = True
        self._is_lost = False
        self._is_over = False

    def windows(self) -> Iterator[tuple[Window, int]]:
        """(window, number of its first row), each after its rows were added; the window is gone when the next one comes."""
        space, at = self._view.space, self._run.start
        if not space.is_mostly_present(self._run):
            self._walked.gaps.append(
                f"{self._name}: most of its memory at {self._run.start:#x}..{self._run.end:#x} is not in the dump"
            )
            return
        while at < self._run.end and not self._is_over:
            window = self._window(at)
            first = len(self._columns)
            at = window.span.start + self._walk(window) * self._generation.granule
            yield window, first
            space.forget(Span(window.span.start, at))

    @property
    def _name(self) -> str:
        return f"heap {self._heap.address:#x}"

    def _window(self, start: int) -> Window:
        granule = self._generation.granule
        stop = min(start + _WINDOW_BYTES, self._run.end)
        span = Span(start, min(stop + _TAIL_BYTES, self._run.end))
        words, missing = self._view.space.words64(span)
        return Window(span, words, missing, (stop - start) // granule, span.size // granule)

    def _walk(self, window: Window) -> int:
        """Adds the entries that start in the window; the granule where the next one starts."""
        at = 0
        while at < window.stop:
            if self._is_lost:
                at = self._found_again(window, at)
                continue
            chained = self._chain(window, at)
            at, self._previous = chained.at, chained.previous
            self._walked.headers += chained.count
            self._walked.good_headers += chained.count
            if chained.why == chain.RUN_END:
                self._end_run(window, at)
                break
            if chained.why not in (chain.END, chain.FULL):
                at = self._damaged(window, at, chained.why)
        return at

    def _chain(self, window: Window, at: int) -> Chained:
        trust = Trust.EXACT if self._is_trusted else Trust.DERIVED
        place = (window.span.start, window.words, at, window.stop, window.end, self._previous)
        return next_entries(self._generation, self._heap, place, tag(BlockKind.BACKEND, trust=trust), self._columns)

    def _found_again(self, window: Window, at: int) -> int:
        """Goes on behind damage that reached over the end of the window before."""
        good = next_good_header(self._generation, window.words, at, window.end)
        if good is None:
            return window.stop
        self._is_lost, self._previous = False, good[1]
        start = window.span.start + good[0] * self._generation.granule
        self._walked.gaps.append(f"{self._name}: its entries hold again from {start:#x} on")
        return good[0]

    def _damaged(self, window: Window, at: int, why: int) -> int:
        """One finding for a header that does not hold; the granule to go on with."""
        granule, words = self._generation.granule, window.words
        address = window.span.start + at * granule
        hole = next((span for span in window.missing if address in span), None)
        good = next_good_header(self._generation, words, at + 1, window.end)
        until = window.span.start + (good[0] if good else window.end) * granule
        self._is_trusted, self._is_lost = False, good is None
        if hole is not None:
            self._walked.gaps.append(
                f"{self._name}: its memory at {hole.start:#x}..{hole.end:#x} is not in the dump; "
                f"blocks between {address:#x} and {until:#x} are missing"
            )
        else:
            self._report(int(words[at * self._generation.stride + self._generation.lead]), address, until, why)
        if good is None:
            return window.end
        self._previous = good[1]
        return good[0]

    def _report(self, raw: int, address: int, until: int, why: int) -> None:
        expected, what = _WORDS[why]
        found = f"{what} of {(raw & (1 << 64) - 1).to_bytes(8, 'little').hex(' ')}"
        if why == chain.PREVIOUS:
            expected = f"{expected}: {self._previous:#x} granules"
        message = f"{self._name}: the entry header at {address:#x} is damaged ({what}); going on at {until:#x}"
        length = 2 * self._view.pointer_bytes
        self._walked.headers += 1
        self._walked.find(
            Finding("entry_header", "error", self._heap.address, address, length, message, expected, found)
        )
        self._walked.gaps.append(f"{message}; blocks between may be missing")

    def _end_run(self, window: Window, at: int) -> None:
        """The last entry of a run must end where the heap's list says an uncommitted range begins."""
        self._is_over = True
        address = window.span.start + at * self._generation.granule
        if address >= self._run.end or self._generation.is_old:
            return
        message = f"{self._name}: the entries end at {address:#x}, the run at {self._run.end:#x}"
        self._walked.find(
            Finding("ucr", "error", self._heap.address, address, 1, message, f"{self._run.end:#x}", f"{address:#x}")
        )
        self._walked.gaps.append(message)
