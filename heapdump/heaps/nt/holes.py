"""Finds the entry at which the chain goes on behind memory that is not in the dump, a *hole*.

The first entry behind a hole whose header is present has two properties: its PreviousSize leads to an entry whose
header is missing, and the chain from it leads without contradiction to the next missing header or to the end of the
run. Stale headers, inside blocks whose own headers are missing, do not have both: the PreviousSize of the entry behind
such a block spans them. All granules count from the first word of a window.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.free_lists import contradict_links
from heapdump.heaps.nt.header_repair import expected_segment
from heapdump.heaps.nt.header_word import BUSY_FLAG, LAST_FLAG, RUN_END_CODE, headers_at
from heapdump.heaps.nt.resync import GoodHeader
from heapdump.heaps.nt.windows import RunPart, Window

_ENOUGH = 8
"""A chain of this many headers is believed; a contradiction behind them is damage."""

_MOST_HEADERS = 1 << 17
"""Number of headers that are followed in one part of a run; a limit for hostile memory."""

_GREATEST = 0xFFFF
_EXTRA_FLAG, _USER_FLAGS = 0x02, 0xE0
"""Bits of Flags, before Vista: HEAP_ENTRY_EXTRA stands behind the requested bytes; flags of HeapSetUserFlags."""

_LOW_UNUSED_BITS, _PREFIX = 0x3F, 0x40


@dataclass(frozen=True, slots=True)
class _Chain:
    """The chain from one header on.

    Attributes:
        end: granule behind its last entry.
        headers: number of headers in it.
    """

    end: int
    headers: int


@dataclass
class HeadersBehindHoles:
    """Searches one part of a run for the first headers behind holes.

    Attributes:
        context: the heap.
        window: the words.
        part: the part of a run.
        may_begin: True where an entry may also begin a run, because not all uncommitted ranges of the segment are
            known.
    """

    context: HeapContext
    window: Window
    part: RunPart
    may_begin: bool

    def __post_init__(self) -> None:
        """Reads nothing yet."""
        self._chains: dict[int, _Chain | None] = {}
        self._budget = _MOST_HEADERS

    def next_header(self, start: int, hole_start: int) -> GoodHeader | None:
        """The header at which the chain goes on, from granule `start` on; None where no header of the part fits.

        `hole_start`: granule of the first entry whose header is missing. The PreviousSize of the result leads to this
        granule or behind it.
        """
        granules, previous = self._candidates
        i = bisect_left(granules, start)
        while i < len(granules):
            granule = granules[i]
            chain = self._chain(granule) if granule - previous[i] >= hole_start else None
            behind = None if chain is None else self._spanning(i, chain.end)
            if behind is not None:
                i = behind
                continue
            if chain is not None:
                return GoodHeader(granule, previous[i])
            i += 1
        return None

    def has_chain(self, headers: int) -> bool:
        """True where a chain of `headers` headers or more begins at any candidate."""
        granules, _ = self._candidates
        return any((chain := self._chain(granule)) and chain.headers >= headers for granule in granules)

    def _spanning(self, i: int, end: int) -> int | None:
        """Index of a candidate from granule `end` on whose previous entry spans candidate `i`, a stale one; or None."""
        granules, previous = self._candidates
        for k in range(bisect_left(granules, max(end, granules[i] + 1)), len(granules)):
            if granules[k] > granules[i] + _GREATEST:
                break
            if granules[k] - previous[k] < granules[i] and previous[k] and self._chain(granules[k]) is not None:
                return k
        return None

    @cached_property
    def _candidates(self) -> tuple[list[int], list[int]]:
        """(granules, PreviousSize) of headers that hold, and whose previous entry has a missing header; ascending."""
        entry_format, window, part = self.context.entry_format, self.window, self.part
        stride = entry_format.stride
        words = window.words[part.start * stride + entry_format.word_index : part.stop * stride : stride]
        # a missing word is zero, and zero is no header
        granules = part.start + np.flatnonzero(words)
        header = headers_at(entry_format, window.words, granules)
        before = granules - header.previous_size
        is_first = np.zeros(len(granules), bool)
        if self.may_begin:
            is_first = (header.previous_size == 0) & (self._addresses(granules) % 0x1000 == 0)
        is_behind = (header.previous_size > 0) & ((before < part.start) | self._is_missing(before))
        fits = header.holds & (header.size > 0) & (granules + header.size <= part.end) & (is_first | is_behind)
        code = header.unused_code
        if entry_format.is_pre_vista:
            # only blocks with HEAP_ENTRY_EXTRA can have flags of HeapSetUserFlags
            fits &= ((header.flags & _USER_FLAGS) == 0) | ((header.flags & _EXTRA_FLAG) != 0)
        else:
            is_counted = (code & (_LOW_UNUSED_BITS | _PREFIX)) != 0
            fits &= is_counted == ((header.flags & BUSY_FLAG) != 0)
        fits &= self._is_of_segment(granules, header.holds & fits)
        fits[fits] = ~contradict_links(self.context, self._addresses(granules[fits]), header.is_busy[fits])
        return granules[fits].tolist(), header.previous_size[fits].tolist()

    def _is_of_segment(self, granules: NDArray[np.int64], which: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True for headers, among those chosen by `which`, whose segment byte is that of their segment; (n,)."""
        entry_format, out = self.context.entry_format, np.zeros(len(granules), bool)
        rows = np.flatnonzero(which)
        words = self.window.words[granules[rows] * entry_format.stride + entry_format.word_index]
        found = (words >> entry_format.bits.segment & 0xFF).tolist()
        for row, address, byte in zip(rows.tolist(), self._addresses(granules[rows]).tolist(), found, strict=True):
            out[row] = expected_segment(self.context, address) in (byte, None)
        return out

    def _addresses(self, granules: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.part.base + granules * self.window.granule

    def _is_missing(self, granules: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for granules whose header word is not in the dump; (n,)."""
        return self.window.lacks(self._addresses(granules) + self.context.entry_format.word_offset)

    def _chain(self, granule: int) -> _Chain | None:
        """The chain from a header on; None where it contradicts itself within the first _ENOUGH headers."""
        if granule not in self._chains:
            self._chains[granule] = self._followed(granule)
        return self._chains[granule]

    def _followed(self, start: int) -> _Chain | None:
        """The same, not cached. A missing header, the end of the run and the end of the window end a chain."""
        entry_format, part, words = self.context.entry_format, self.part, self.window.words
        granule, previous, headers = start, None, 0
        least = 1 if entry_format.mask else 2  # without a checksum a second header must agree
        while granule < part.stop and self._budget > 0:
            if self.window.lacks_word(part.base + granule * self.window.granule + entry_format.word_offset):
                break
            self._budget -= 1
            header = headers_at(entry_format, words, np.array([granule]))
            size = int(header.size[0])
            agrees = previous is None or int(header.previous_size[0]) == previous
            agrees &= not contradict_links(self.context, self._addresses(np.array([granule])), header.is_busy)[0]
            if not header.holds[0] or not agrees or not 0 < size <= part.end - granule:
                return _Chain(granule, headers) if headers >= _ENOUGH else None
            granule, previous, headers = granule + size, size, headers + 1
            if self._ends_run(int(header.flags[0]), int(header.unused_code[0])):
                return _Chain(granule, headers) if self.may_begin or granule == part.end else None
        return _Chain(granule, headers) if headers >= least else None

    def _ends_run(self, flags: int, code: int) -> bool:
        is_pre_vista = self.context.entry_format.is_pre_vista
        return bool(flags & LAST_FLAG) if is_pre_vista else code == RUN_END_CODE
