"""Every back-end block of one NT heap: the chain of entries through each committed run.

The chain goes from run to run by the heap's own uncommitted ranges, never by which pages the dump holds: free entries of
8 and later contain decommitted pages that no range names, and a shared csr heap of the real Windows 7 dump has committed
pages that its ranges call uncommitted. At a damaged header the walk makes one finding, goes on at the next place where
three headers in a row hold, and calls what follows in this run `derived`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.heap import Heap, Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.chain import MOST_ROWS, At, next_entries
from heapdump.heaps.nt.entry import INTERNAL_FLAG, decoded, unasked
from heapdump.heaps.nt.entry_format import EntryFormat, signed
from heapdump.heaps.nt.header_repair import header_wound
from heapdump.heaps.nt.lfh import SIGNATURE
from heapdump.heaps.nt.resync import next_good_header
from heapdump.heaps.nt.windows import Stretch, Window, windows
from heapdump.heaps.workload import Workload
from heapdump.kernels import nt_chain
from heapdump.kernels.row import BUSY, FLAGS_SHIFT, INTERNAL
from heapdump.process.model import View
from heapdump.spans import Span

_SAMPLE = 1 << 12
"""Headers that are looked at first, twice as many each time, until it is known whether the compiled loop pays."""

_FIRST_BATCH = 64
"""Headers that are looked at behind damage before it is known that the chain holds; twice as many each time."""

_LEAST_UNUSED = 8
"""Bytes of every busy entry from Vista on that were not asked for."""

_WORDS = {
    nt_chain.CHECKSUM: ("a header whose checksum holds", "checksum"),
    nt_chain.PREVIOUS: ("the size of the entry before it", "previous size"),
    nt_chain.SIZE: ("a size that stays inside the segment", "size"),
}


class BackEndWalk:
    """Walks the runs of one heap, window by window; rows go to `columns`, everything else to `walked`."""

    def __init__(
        self,
        view: View,
        heap: Heap,
        entry_format: EntryFormat,
        columns: BlockColumns,
        walked: WalkLog,
        workload: Workload,
    ) -> None:
        """One for some runs of a heap that follow each other. `workload`: of the whole walk."""
        self._view, self._heap, self._format = view, heap, entry_format
        self._columns, self._walked = columns, walked
        self._is_trusted = True
        self._is_lost = False
        self._is_over = False
        self._next, self._previous = 0, 0
        self._batch = _SAMPLE
        self._workload = workload

    def windows(self, wanted: Sequence[Span]) -> Iterator[tuple[Window, int]]:
        """(window, number of its first row), each after its rows were added."""
        space = self._view.space
        there = [run for run in wanted if space.mapped.is_mostly_present(run) or self._absent(run)]
        for window in windows(space, self._format, there):
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
            if why == nt_chain.RUN_END:
                self._end_run(window, k, at)
            elif why not in (nt_chain.END, nt_chain.FULL):
                at = self._damaged(window, k, at, why)
        self._next = window.stretches[k].base + at * window.granule
        return k + 1

    def _enter(self, stretch: Stretch) -> int:
        """The granule to begin with: that of a run's first entry, or of the one the window before ended at."""
        if stretch.is_first:
            self._is_trusted, self._is_lost, self._is_over, self._previous = True, False, False, 0
            return stretch.start
        return max(stretch.start, (self._next - stretch.base) // self._format.granule)

    def _chain(self, window: Window, k: int, at: int) -> tuple[int, int, int]:
        """(number of the stretch, granule, why the chain stopped there)."""
        until = len(window.stretches) if self._is_trusted else k + 1
        common = tag(BlockKind.BACKEND, trust=Trust.EXACT if self._is_trusted else Trust.DERIVED)
        place = At(k, at, self._previous)
        count, place, why = next_entries(
            self._format,
            self._heap,
            window,
            place,
            until,
            common,
            self._columns,
            self._batch,
            self._workload.expected(),
        )
        if place.k == k:
            self._workload.add(count, (place.granule - at) * window.granule)
        self._batch = min(2 * self._batch, MOST_ROWS)
        self._previous = place.previous
        self._walked.headers += count
        self._walked.good_headers += count
        return place.k, place.granule, why

    def _found_again(self, window: Window, k: int, at: int) -> int:
        """Goes on behind damage that reached over the end of the window before."""
        stretch = window.stretches[k]
        good = next_good_header(self._format, window.words, at, stretch.stop, stretch.end)
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
        good = self._behind_wrong_size(window, k, at) or next_good_header(
            self._format, words, at + 1, stretch.stop, stretch.end
        )
        until = stretch.base + (good[0] if good else stretch.stop) * window.granule
        self._is_trusted, self._is_lost, self._batch = False, good is None, _FIRST_BATCH
        if hole is not None:
            self._walked.gap(
                f"{self._name}: its memory at {hole.start:#x}..{hole.end:#x} is not in the dump; "
                f"blocks between {address:#x} and {until:#x} are missing"
            )
        elif good is not None and self._previous and good[0] - good[1] == at - self._previous:
            self._wrong_size(address - self._previous * window.granule, good[1])
        elif good is not None and good[0] - good[1] == at:
            self._one_header(window, k, at, good[1], why)
        else:
            then = f"going on at {until:#x}" if good else f"no header holds up to {until:#x}"
            self._report(self._raw(window, at), address, then, why)
        if good is None:
            return stretch.stop
        self._previous = good[1]
        return good[0]

    def _behind_wrong_size(self, window: Window, k: int, at: int) -> tuple[int, int] | None:
        """Before Vista no checksum tells that the entry before lied about its size: the header truly behind it, if any."""
        stretch, entry = window.stretches[k], at - self._previous
        if not self._format.is_pre_vista or not self._previous or entry < stretch.start:
            return None
        good = next_good_header(self._format, window.words, entry + 1, at, stretch.end)
        return good if good is not None and good[0] - good[1] == entry else None

    def _raw(self, window: Window, at: int) -> int:
        return int(window.words[at * self._format.stride + self._format.word_index]) & (1 << 64) - 1

    def _wrong_size(self, entry: int, size: int) -> None:
        """The entry before the one that does not hold has another size than it says: the next good one names it."""
        rows = self._columns.since(max(0, len(self._columns) - MOST_ROWS))
        at = np.flatnonzero(rows.entry == entry)[-1:]
        if not len(at):
            return
        stride, granule = self._format.stride, self._format.granule
        found = int(rows.size8[at[0]]) // stride
        rows.size8[at] = size * stride
        rows.unused[at] = np.minimum(rows.unused[at], size * granule)
        message = (
            f"{self._name}: the entry at {entry:#x} says {found * granule:,} bytes, the next one {size * granule:,}"
        )
        place = entry + self._format.word_index * 8
        wanted, there = size.to_bytes(2, "little"), found.to_bytes(2, "little")
        first = int(wanted[0] == there[0])
        length = 2 - first if wanted[1] != there[1] else 1
        self._find(
            "size_chain",
            place + first,
            length,
            message,
            wanted[first : first + length].hex(" "),
            there[first : first + length],
        )

    def _one_header(self, window: Window, k: int, at: int, size: int, why: int) -> None:
        """A damaged header alone: the next good one names it. Its block is kept where the rest of the header is whole."""
        address = window.stretches[k].base + at * window.granule
        raw = self._raw(window, at)
        wound = header_wound(self._format, self._heap, address, raw, size, self._previous)
        if wound is None:
            self._report(raw, address, "the entries around it do not agree", why)
            return
        message = f"{self._name}: the entry header at {address:#x} is damaged ({_WORDS[why][1]})"
        if wound.word is None:
            message += f"; {self._guess(window, k, at, size)}"
            self._walked.gap(message)
        else:
            self._keep(window, k, at, wound.word, Trust.DERIVED)
        place = address + self._format.word_index * 8 + wound.first
        self._find("entry_header", place, len(wound.found), message, wound.expected, wound.found)

    def _guess(self, window: Window, k: int, at: int, size: int) -> str:
        """Adds the row of an entry whose flags nobody knows, where no lookaside list may hold it; what it is taken for.

        It is free when a free list holds it, else busy, with as many requested bytes as it has room for.
        """
        bytes_, address = size * window.granule, window.stretches[k].base + at * window.granule
        node, space, pointer = address + window.granule, self._view.space, self._view.pointer_bytes
        after, before = space.try_pointer(node), space.try_pointer(node + pointer)
        is_carrier = any(space.try_integer(node + place, 4) == SIGNATURE for place in range(0, 0x20, 4))
        if self._format.is_pre_vista or is_carrier or after is None or before is None:
            return f"the state of its {bytes_:,} bytes is not known"
        is_linked = space.try_pointer(after + pointer) == node and space.try_pointer(before) == node
        self._keep(window, k, at, size | (0 if is_linked else 1 << 16 | _LEAST_UNUSED << 56), Trust.GUESS)
        return f"its {bytes_:,} bytes are taken for a {'free' if is_linked else 'busy'} block"

    def _keep(self, window: Window, k: int, at: int, word: int, trust: Trust) -> None:
        """Adds the row of an entry whose header is that decoded word."""
        entry_format, place = self._format, np.array([at])
        header = decoded(entry_format, np.array([signed(word ^ (entry_format.key & (1 << 64) - 1))]))
        spare, lead = unasked(entry_format, window.words, place, header.size, header.unused, header.is_busy)
        entry = window.stretches[k].base + place * window.granule
        internal = header.is_busy & ((header.flags & INTERNAL_FLAG) != 0) & (not entry_format.is_pre_vista)
        tags = tag(BlockKind.BACKEND, trust=trust) | np.where(header.is_busy, BUSY, 0)
        tags |= np.where(internal, INTERNAL, 0) | header.flags << FLAGS_SHIFT
        stride = entry_format.stride
        self._columns.append(self._heap.index, entry, header.size * stride, spare, lead * stride, tags)

    def _report(self, raw: int, address: int, then: str, why: int) -> None:
        """A finding where more than one header is damaged, or nothing behind it holds."""
        expected, what = _WORDS[why]
        found = f"{what} of {raw.to_bytes(8, 'little').hex(' ')}"
        if why == nt_chain.PREVIOUS:
            expected = f"{expected}: {self._previous:#x} granules"
        message = f"{self._name}: the entry header at {address:#x} is damaged ({what}); {then}"
        self._walked.headers += 1
        place = address + self._format.word_index * 8
        self._walked.find(Finding("entry_header", "error", self._heap.address, place, 8, message, expected, found))
        self._walked.gap(f"{message}; blocks between may be missing")

    def _find(self, kind: FindingKind, place: int, length: int, message: str, expected: str, found: bytes) -> None:
        self._walked.headers += 1
        self._walked.find(Finding(kind, "error", self._heap.address, place, length, message, expected, found.hex(" ")))

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
        self._walked.find(
            Finding("ucr", "error", self._heap.address, address, 1, message, f"{end:#x}", f"{address:#x}")
        )
        self._walked.gap(message)
