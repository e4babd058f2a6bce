"""Every back-end block of one NT heap: the chain of entries through each committed run.

The chain goes from run to run by the heap's own uncommitted ranges, never by which pages the dump holds: free entries of
8 and later contain decommitted pages that no range names, and a shared csr heap of the real Windows 7 dump has committed
pages that its ranges call uncommitted. At a damaged header the walk makes one finding, goes on at the next place where
three headers in a row hold, and calls what follows in this run `derived`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, Trust
from heapdump.blocks.table import BlockKind, tag
from heapdump.heaps.nt_chain import MOST_ROWS, At, next_entries
from heapdump.heaps.nt_generation import Generation
from heapdump.heaps.nt_resync import next_good_header
from heapdump.heaps.nt_windows import Stretch, Window, windows
from heapdump.heaps.walked import Walked
from heapdump.kernels import chain
from heapdump.process.model import View
from heapdump.spans import Span

_FIRST_BATCH = 64
"""Headers that are looked at behind damage before it is known that the chain holds; twice as many each time."""

_WORDS = {
    chain.CHECKSUM: ("a header whose checksum holds", "checksum"),
    chain.PREVIOUS: ("the size of the entry before it", "previous size"),
    chain.SIZE: ("a size that stays inside the segment", "size"),
}


class HeapWalk:
    """Walks the runs of one heap, window by window; rows go to `columns`, everything else to `walked`."""

    def __init__(self, view: View, heap: Heap, generation: Generation, columns: BlockColumns, walked: Walked) -> None:
        """One for some runs of a heap that follow each other."""
        self._view, self._heap, self._generation = view, heap, generation
        self._columns, self._walked = columns, walked
        self._is_trusted = True
        self._is_lost = False
        self._is_over = False
        self._next, self._previous = 0, 0
        self._batch = MOST_ROWS

    def windows(self, wanted: Sequence[Span]) -> Iterator[tuple[Window, int]]:
        """(window, number of its first row), each after its rows were added."""
        space = self._view.space
        there = [run for run in wanted if space.is_mostly_present(run) or self._absent(run)]
        for window in windows(space, self._generation, there):
            first = len(self._columns)
            k = 0
            while k < len(window.stretches):
                k = self._walk(window, k)
            yield window, first

    def _absent(self, run: Span) -> bool:
        self._walked.gap(f"{self._name}: most of its memory at {run.start:#x}..{run.end:#x} is not in the dump")
        return False

    @property
    def _name(self) -> str:
        return f"heap {self._heap.address:#x}"

    def _walk(self, window: Window, k: int) -> int:
        """Adds the entries of stretch `k`, and of those behind it as long as all is well; the number of the next one."""
        at = self._enter(window.stretches[k])
        while at < window.stretches[k].stop and not self._is_over:
            if self._is_lost:
                at = self._found_again(window, k, at)
                continue
            k, at, why = self._chain(window, k, at)
            if why == chain.RUN_END:
                self._end_run(window, k, at)
            elif why not in (chain.END, chain.FULL):
                at = self._damaged(window, k, at, why)
        self._next = window.stretches[k].base + at * window.granule
        return k + 1

    def _enter(self, stretch: Stretch) -> int:
        """The granule to begin with: that of a run's first entry, or of the one the window before ended at."""
        if stretch.is_first:
            self._is_trusted, self._is_lost, self._is_over, self._previous = True, False, False, 0
            return stretch.start
        return max(stretch.start, (self._next - stretch.base) // self._generation.granule)

    def _chain(self, window: Window, k: int, at: int) -> tuple[int, int, int]:
        """(number of the stretch, granule, why the chain stopped there)."""
        until = len(window.stretches) if self._is_trusted else k + 1
        common = tag(BlockKind.BACKEND, trust=Trust.EXACT if self._is_trusted else Trust.DERIVED)
        place = At(k, at, self._previous)
        found = next_entries(self._generation, self._heap, window, place, until, common, self._columns, self._batch)
        count, place, why = found
        self._batch = min(2 * self._batch, MOST_ROWS)
        self._previous = place.previous
        self._walked.headers += count
        self._walked.good_headers += count
        return place.k, place.granule, why

    def _found_again(self, window: Window, k: int, at: int) -> int:
        """Goes on behind damage that reached over the end of the window before."""
        stretch = window.stretches[k]
        good = next_good_header(self._generation, window.words, at, stretch.stop, stretch.end)
        if good is None:
            return stretch.stop
        self._is_lost, self._previous = False, good[1]
        start = stretch.base + good[0] * window.granule
        self._walked.gap(f"{self._name}: its entries hold again from {start:#x} on")
        return good[0]

    def _damaged(self, window: Window, k: int, at: int, why: int) -> int:
        """One finding for a header that does not hold; the granule to go on with."""
        stretch, words = window.stretches[k], window.words
        address = stretch.base + at * window.granule
        hole = next((span for span in window.missing if address in span), None)
        good = next_good_header(self._generation, words, at + 1, stretch.stop, stretch.end)
        until = stretch.base + (good[0] if good else stretch.stop) * window.granule
        self._is_trusted, self._is_lost, self._batch = False, good is None, _FIRST_BATCH
        if hole is not None:
            self._walked.gap(
                f"{self._name}: its memory at {hole.start:#x}..{hole.end:#x} is not in the dump; "
                f"blocks between {address:#x} and {until:#x} are missing"
            )
        else:
            raw = int(words[at * self._generation.stride + self._generation.lead])
            self._report(raw, address, f"going on at {until:#x}" if good else f"no header holds up to {until:#x}", why)
        if good is None:
            return stretch.stop
        self._previous = good[1]
        return good[0]

    def _report(self, raw: int, address: int, then: str, why: int) -> None:
        expected, what = _WORDS[why]
        found = f"{what} of {(raw & (1 << 64) - 1).to_bytes(8, 'little').hex(' ')}"
        if why == chain.PREVIOUS:
            expected = f"{expected}: {self._previous:#x} granules"
        message = f"{self._name}: the entry header at {address:#x} is damaged ({what}); {then}"
        length = 2 * self._view.pointer_bytes
        self._walked.headers += 1
        self._walked.find(
            Finding("entry_header", "error", self._heap.address, address, length, message, expected, found)
        )
        self._walked.gap(f"{message}; blocks between may be missing")

    def _end_run(self, window: Window, k: int, at: int) -> None:
        """The last entry of a run must end where the heap's list says an uncommitted range begins."""
        stretch = window.stretches[k]
        address, end = stretch.base + at * window.granule, stretch.run.end
        if address >= end:
            self._is_over = True
            return
        # behind an end that is none, entries may go on
        self._is_trusted, self._is_lost, self._batch = False, True, _FIRST_BATCH
        message = f"{self._name}: the entries end at {address:#x}, the run at {end:#x}"
        self._walked.find(Finding("ucr", "error", self._heap.address, address, 1, message, f"{end:#x}", f"{address:#x}"))
        self._walked.gap(message)
