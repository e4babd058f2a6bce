"""The chunks of one VS subsegment where their chain is damaged: what their neighbours still tell of them.

A chunk's extent is known where the next good header names its size. Its state is known where one of its own two sizes
holds and its busy byte can be one; else it counts as busy. Places and sizes are in granules here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.integers import signed64
from heapdump.kernels import vs_chain
from heapdump.kernels.row import CLASS_MASK, TRUST_MASK, RowWriter

_PROOF = 3
"""Headers in a row that hold where the walk goes on behind damage."""


@dataclass(frozen=True, slots=True)
class ByteDamage:
    """The bytes [first, first + length) of a header that are not what they should be; texts in hex, ?? where not known."""

    first: int
    length: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Chunks:
    """One chain in `words` (signed, 64-bit): it ends at granule `end`; `base`: address of granule 0; `key` signed."""

    words: NDArray[np.int64]
    base: int
    end: int
    key: int
    is_wide: bool

    @property
    def granule(self) -> int:
        """Bytes of a granule, which is a header."""
        return 16 if self.is_wide else 8

    def address(self, at: int) -> int:
        """Address of a granule."""
        return self.base + at * self.granule

    def headers(self, first: int, last: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(size, size of the one before, busy byte) as if a header stood on every granule of [first, last)."""
        granules = np.arange(first, last)
        raw = self.words[granules * (self.granule // 8)] ^ (self.base + granules * self.granule) ^ self.key
        if self.is_wide:
            return (raw >> 16) & 0xFFFF, (raw >> 32) & 0xFFFF, (raw >> 48) & 0xFFFF
        return (raw >> 1) & 0x7FFF, (raw >> 16) & 0x7FFF, (raw >> 31) & 1

    def good_from(self, first: int, named: tuple[int, ...]) -> list[tuple[int, int]]:
        """(place, size of the one before) where some headers in a row hold, from `first` on.

        The chain's last header alone is good where it names one of the places `named`.
        """
        size, before, busy = self.headers(first, self.end)
        count = len(size)
        each = np.arange(count)
        sound = (size > 0) & (each + size <= count) & (busy <= 1)
        alone = sound & (each + size == count) & np.isin(first + each - before, named)
        holds, place = sound.copy(), each.copy()
        for _ in range(_PROOF - 1):
            following = np.where(holds, place + size[np.minimum(place, count - 1)], count)
            inside = np.minimum(following, count - 1)
            # a chain that ends before all headers of the proof were seen is good, unless it has but one
            next_holds = (following < count) & sound[inside] & (before[inside] == size[np.minimum(place, count - 1)])
            holds &= (following == count) & (place > each) | next_holds
            place = np.where(holds & (following < count), following, place)
        good = np.flatnonzero(holds | alone)
        return list(zip((first + good).tolist(), before[good].tolist(), strict=True))

    def knows_state(self, at: int, size: int, previous: int) -> bool:
        """Whether the header of a chunk with these sizes (`previous` -1: not known) still tells if it is busy."""
        own, before, busy = (int(values[0]) for values in self.headers(at, at + 1))
        return busy <= 1 and (own == size or before == previous)

    def wound(self, at: int, size: int, previous: int) -> ByteDamage:
        """What is not right with the header of a chunk that has these sizes; its busy byte is judged by itself."""
        raw, code, wanted, is_known = self._wanted(at, size, previous)
        count = 8 if self.is_wide else 4
        expected, found = ((word & (1 << 8 * count) - 1).to_bytes(count, "little") for word in (wanted ^ code, raw))
        unknown = () if is_known or not self.is_wide else (6,)
        wrong = [i for i in range(count) if expected[i] != found[i] or i in unknown] or [0, count - 1]
        part = range(wrong[0], wrong[-1] + 1)
        texts = " ".join("??" if i in unknown else f"{expected[i]:02x}" for i in part)
        return ByteDamage(part.start, len(part), texts, found[part.start : part.stop].hex(" "))

    def write_row(self, row: RowWriter, at: int, size: int, previous: int, padding: int) -> Trust:
        """Writes the chunk with these sizes to the first of `row`; how far it can be trusted."""
        _, code, wanted, is_known = self._wanted(at, size, previous)
        stride = self.granule // 8
        words = self.words[at * stride : (at + size) * stride].copy()
        rest = 0 if self.is_wide else int(words[0]) >> 32 << 32
        words[0] = signed64((wanted ^ code) & (1 << 64) - 1) if self.is_wide else rest | (wanted ^ code)
        trust = Trust.DERIVED if is_known else Trust.GUESS
        vs_chain.follow_chunks(
            words, np.array([[0, size, self.address(at)]]), 0, 0, -1,
            vs_chain.ChunkCoding(stride, self.key, padding),
            tag(BlockKind.VS, trust=trust), row,
        )  # fmt: skip
        if not is_known:
            row.tags[0] &= CLASS_MASK | TRUST_MASK  # what stands behind the user data is not known either
        return trust

    def _wanted(self, at: int, size: int, previous: int) -> tuple[int, int, int, bool]:
        """(header as it is, what it is XORed with, decoded header with these sizes, whether its state is known)."""
        mask = (1 << 64) - 1 if self.is_wide else 0xFFFFFFFF
        raw, code = int(self.words[at * (self.granule // 8)]) & mask, (self.address(at) ^ self.key) & mask
        size_at, previous_at, bits = (16, 32, 0xFFFF) if self.is_wide else (1, 16, 0x7FFF)
        wanted = (raw ^ code) & ~(bits << size_at) | size << size_at
        if previous >= 0:
            wanted = wanted & ~(bits << previous_at) | previous << previous_at
        if is_known := self.knows_state(at, size, previous):
            return raw, code, wanted, is_known
        busy_at = 48 if self.is_wide else 31
        return raw, code, wanted & (1 << busy_at) - 1 | 1 << busy_at, is_known
