"""The headers of the VS chunks of one subsegment, as arrays; and the right header of a damaged chunk.

The header of a chunk is its first granule (docs/reference/heap-structures.md §6.4). For the chunk at address a:

    sizes word = u64[a] ^ a ^ key (x64), u32[a] ^ a ^ key (x86)

    bits of the sizes word                     x64     x86
    size in granules, header included          16-31   1-15
    size of the chunk before it, in granules   32-47   16-30
    busy: 0 free, 1 busy                       48-63   31

All places and sizes in this module are in granules, unless they are called addresses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.integers import signed64
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.kernels.row import CLASS_MASK, TRUST_MASK, UNIT, RowWriter
from heapdump.kernels.vs_chain import ChunkCoding, follow_chunks
from heapdump.process.model import View
from heapdump.trust import Trust

_LONG_CHAIN = 64
_LEAST_NODE = 2
"""Granules of the smallest free chunk that is a node of the tree."""

_WINDOW = 1 << 10
"""Granules that are searched at a time behind a hole."""

_PROOF_HEADERS = 3
"""Number of headers in a row that must hold where the walk goes on behind damage."""

_UNKNOWN_SIZE = -1
"""Stands for an unknown size of the chunk before."""

_U64 = (1 << 64) - 1
_U32 = (1 << 32) - 1

Word = TypeVar("Word", int, NDArray[np.int64])


def header_fields(sizes_word: Word, *, is_wide: bool) -> tuple[Word, Word, Word]:
    """(size, size of the chunk before, busy) of a decoded sizes word, or of each of many. `is_wide`: True for x64."""
    if is_wide:
        return sizes_word >> 16 & 0xFFFF, sizes_word >> 32 & 0xFFFF, sizes_word >> 48 & 0xFFFF
    return sizes_word >> 1 & 0x7FFF, sizes_word >> 16 & 0x7FFF, sizes_word >> 31 & 1


class ChunkHeader(NamedTuple):
    """The decoded header of one chunk.

    Attributes:
        size: granules of the chunk, header included.
        previous_size: granules of the chunk before.
        busy: 0 or 1; another value is damage.
    """

    size: int
    previous_size: int
    busy: int

    def holds(self, previous_size: int, most: int) -> bool:
        """True where previous_size is right, busy is 0 or 1, and the size is 1 to `most` granules."""
        return self.previous_size == previous_size and 0 < self.size <= most and self.busy <= 1


def read_chunk_header(view: View, address: int, key: int) -> ChunkHeader | None:
    """The header at an address under a key; None where it is not in the dump."""
    raw = view.space.try_pointer(address)
    if raw is None:
        return None
    return ChunkHeader(*header_fields(raw ^ address ^ key, is_wide=view.pointer_bytes == 8))


@dataclass(frozen=True, slots=True)
class VsChunks:
    """The memory of the chunks of one subsegment.

    Attributes:
        words: signed 64-bit words.
        base: address of granule 0 of the words.
        end: granule behind the last chunk.
        coding: layout and encoding of the headers.
    """

    words: NDArray[np.int64]
    base: int
    end: int
    coding: ChunkCoding

    @property
    def is_wide(self) -> bool:
        """True on x64, where a granule has two words; False on x86, where it has one."""
        return self.coding.stride == 2

    @property
    def granule_bytes(self) -> int:
        """Bytes of a granule."""
        return self.coding.stride * UNIT

    def address(self, at: int) -> int:
        """Address of a granule."""
        return self.base + at * self.granule_bytes

    def headers(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """((n,) size, (n,) size of the chunk before, (n,) busy) of every granule of [first, last), read as a header."""
        granules = np.arange(first, last)
        raw = self.words[granules * self.coding.stride]
        return header_fields(raw ^ (self.base + granules * self.granule_bytes) ^ self.coding.key, is_wide=self.is_wide)

    def header(self, at: int) -> ChunkHeader:
        """The header at a granule."""
        return ChunkHeader(*(int(values[0]) for values in self.headers(at, at + 1)))

    def _at(self, granules: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The same of these granules, which lie before the end."""
        raw = self.words[granules * self.coding.stride]
        return header_fields(raw ^ (self.base + granules * self.granule_bytes) ^ self.coding.key, is_wide=self.is_wide)

    def sound_from(self, first: int, starts: tuple[int, ...]) -> list[tuple[int, int]]:
        """(granule, size of the chunk before) of each header from granule `first` on that begins a sound chain.

        A chain is sound where three headers in a row hold, or two that reach to the end of the subsegment. The last
        header alone is sound where the chunk before it begins at one of the granules `starts`.
        """
        return self._sound_in(first, self.end, starts)

    def _sound_in(self, first: int, last: int, starts: tuple[int, ...] = ()) -> list[tuple[int, int]]:
        """`sound_from` for the headers at the granules [first, last)."""
        each = np.arange(first, last)
        if not len(each):
            return []
        size, before, busy = self._at(each)
        holds = (size > 0) & (each + size <= self.end) & (busy <= 1)
        is_last = holds & (each + size == self.end) & np.isin(each - before, starts)
        place, own_size = each.copy(), size
        for _ in range(_PROOF_HEADERS - 1):
            following = np.where(holds, place + own_size, self.end)
            next_size, next_before, next_busy = self._at(np.minimum(following, self.end - 1))
            next_holds = (next_size > 0) & (following + next_size <= self.end) & (next_busy <= 1)
            next_holds &= (following < self.end) & (next_before == own_size)
            holds &= (following == self.end) & (place > each) | next_holds
            moves = holds & (following < self.end)
            place, own_size = np.where(moves, following, place), np.where(moves, next_size, own_size)
        found = np.flatnonzero(holds | is_last)
        return list(zip(each[found].tolist(), before[found].tolist(), strict=True))

    def living_from(
        self, first: int, is_missing: Callable[[int], bool], are_unlinked: Callable[[Sequence[int]], bool]
    ) -> tuple[int, int] | None:
        """(granule, size of the chunk before) of the first header from `first` on that begins a chain of living chunks.

        When free chunks are joined, the headers inside stay and still hold. The header behind such a chunk names its
        whole size. There a chain of stale headers ends in a contradiction, or it has a free chunk that the tree of free
        chunks lacks.

        Args:
            first: the granule.
            is_missing: granule → True where the dump lacks its header.
            are_unlinked: granules of free chunks → True where the tree of free chunks lacks one of them.
        """
        low = first
        while low < self.end:
            high = min(low + _WINDOW, self.end)
            for place, before in self._sound_in(low, high):
                if place < low:
                    continue
                living = self._living_behind(place, is_missing, are_unlinked)
                if living is None:
                    return place, before
                low = living
            low = max(low, high)
        return None

    def _living_behind(
        self, start: int, is_missing: Callable[[int], bool], are_unlinked: Callable[[Sequence[int]], bool]
    ) -> int | None:
        """The header that proves the chain at `start` stale; None where none does."""
        at, before = start, -1
        chain, free = set[int](), list[int]()
        while at < self.end and not is_missing(at):
            header = self.header(at)
            if before not in (-1, header.previous_size) or not 0 < header.size <= self.end - at or header.busy > 1:
                is_stale = before != -1 and at - header.previous_size <= start and bool(self._sound_in(at, at + 1))
                return at if is_stale else None
            chain.add(at)
            free += [] if header.busy or header.size < _LEAST_NODE else [at]
            at, before = at + header.size, header.size
        if not free or not are_unlinked(free):
            return None
        others = (one for one in self._sound_in(start, self.end) if one[0] not in chain)
        return next((place for place, size in others if place - size <= start), None)

    def chain_length(self, at: int) -> int:
        """The number of headers in a row that hold from granule `at` on, at most _LONG_CHAIN.

        One more where the last chunk ends with the subsegment.
        """
        before: int | None = None
        for number in range(_LONG_CHAIN):
            if at >= self.end:
                return number + (at == self.end)
            header = self.header(at)
            if before not in (None, header.previous_size) or header.size <= 0 or header.busy > 1:
                return number
            at, before = at + header.size, header.size
        return _LONG_CHAIN

    def passes_over(self, start: int, at: int, is_missing: Callable[[int], bool]) -> bool:
        """True where a chunk of the chain from granule `start` on reaches over granule `at`.

        False where a chunk ends at `at`, and where a header before it is damaged, or `is_missing`: granule → True where
        the dump lacks the header.
        """
        place, before = start, None
        while place < at:
            header = self.header(place)
            if is_missing(place) or before not in (None, header.previous_size) or header.size <= 0 or header.busy > 1:
                return False
            place, before = place + header.size, header.size
        return place > at

    def is_state_known(self, at: int, size: int, previous_size: int) -> bool:
        """True where the busy bits of a chunk with these right sizes can be believed.

        That is so where one of the two sizes in the header is right and the busy bits are 0 or 1. `previous_size`: -1
        where it is not known.
        """
        header = self.header(at)
        return header.busy <= 1 and (header.size == size or header.previous_size == previous_size)

    def damage(self, at: int, size: int, previous_size: int) -> DamagedBytes:
        """The bytes of a header that differ from the right ones, as hex; ?? for bytes whose right value is not known.

        `size`, `previous_size`: the right sizes.
        """
        raw, expected_word, is_known = self._expected(at, size, previous_size)
        count = 8 if self.is_wide else 4
        expected, found = (word.to_bytes(count, "little") for word in (expected_word, raw))
        unknown = () if is_known or not self.is_wide else (6,)  # the byte with the busy bits
        wrong = [i for i in range(count) if expected[i] != found[i] or i in unknown] or [0, count - 1]
        first, end = wrong[0], wrong[-1] + 1
        texts = " ".join("??" if i in unknown else f"{expected[i]:02x}" for i in range(first, end))
        return DamagedBytes("vs_chunk", self.address(at) + first, end - first, texts, found[first:end].hex(" "))

    def write_row(self, row: RowWriter, at: int, size: int, previous_size: int) -> Trust:
        """Writes the chunk with these right sizes to row 0 of `row`; returns its trust.

        A chunk whose state is not known becomes busy, with trust GUESS.
        """
        _, header, is_known = self._expected(at, size, previous_size)
        stride = self.coding.stride
        words = self.words[at * stride : (at + size) * stride].copy()
        words[0] = signed64(header) if self.is_wide else int(words[0]) >> 32 << 32 | header
        trust = Trust.DERIVED if is_known else Trust.GUESS
        chain = np.array([[0, size, self.address(at)]])
        follow_chunks(words, chain, 0, 0, _UNKNOWN_SIZE, self.coding, tag(BlockKind.VS, trust=trust), row)
        if not is_known:
            row.tags[0] &= CLASS_MASK | TRUST_MASK  # no entry flags: whether there is an extra is not known
        return trust

    def _expected(self, at: int, size: int, previous_size: int) -> tuple[int, int, bool]:
        """(header in the dump, right header of a chunk with these sizes, True where its state is known).

        Headers are encoded, unsigned. A chunk whose state is not known counts as busy.
        """
        mask = _U64 if self.is_wide else _U32
        raw, code = int(self.words[at * self.coding.stride]) & mask, (self.address(at) ^ self.coding.key) & mask
        size_shift, previous_shift, busy_shift, bits = (16, 32, 48, 0xFFFF) if self.is_wide else (1, 16, 31, 0x7FFF)
        decoded = (raw ^ code) & ~(bits << size_shift) | size << size_shift
        if previous_size >= 0:
            decoded = decoded & ~(bits << previous_shift) | previous_size << previous_shift
        is_known = self.is_state_known(at, size, previous_size)
        if not is_known:
            decoded = decoded & (1 << busy_shift) - 1 | 1 << busy_shift
        return raw, (decoded ^ code) & mask, is_known
