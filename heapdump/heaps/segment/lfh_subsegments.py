"""The headers of LFH subsegments of a segment heap, and how their offsets are decoded (heap-structures.md §6.5).

Folklore, from recorded dumps: block size and first offset are XORed with the low 32 bits of the subsegment's address
shifted by 12; 26100 takes 32 bits of the shifted address instead. Since 26100 the bitmap has the busy bits of 32 blocks
and then their other bits, and freed blocks wait on a list of block numbers in the subsegment whose busy bits stay set.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.page_ranges import Ranges
from heapdump.layouts import Struct

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
_MOST_FIRST = 0x400
MOST_BLOCKS, _MANY_BLOCKS = 0x8000, 0x400


@dataclass(frozen=True, slots=True)
class Decoded:
    """Offsets of subsegments as one key and rule decode them, and their numbers of blocks; (n,) each.

    `is_good`: they can be true; `is_whole`: every member of the header that says something of them agrees.
    """

    size: NDArray[np.int64]
    first: NDArray[np.int64]
    count: NDArray[np.int64]
    is_good: NDArray[np.bool_]
    is_whole: NDArray[np.bool_]


class Subsegments:
    """LFH subsegments of a heap as one build has them; (n,) arrays."""

    def __init__(self, job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], struct: Struct) -> None:
        """`rows`: their page ranges; nothing is decoded yet."""
        self.job, self.struct, self.rows = job, struct, rows
        self.start, self.bytes = ranges.start[rows], ranges.size[rows]
        self._words: dict[int, tuple[NDArray[np.uint64], NDArray[np.bool_]]] = {}
        self.offsets, self.there = self._gather("BlockOffsets", 4)
        count, _ = self._gather("BlockCount", 2)
        withheld = self._gather("WitheldBlockCount", 1)[0] if "WitheldBlockCount" in struct else np.uint64(0)
        self.count = (count + withheld).astype(np.int64)
        self.there &= self._has_blocks()
        self.has_list = "State" in struct
        free = self._gather("FreeCount", 2)[0].astype(np.int64)
        # whether withheld blocks count as free is not known: no recorded subsegment had one
        self.stated = np.where(self.has_list | (withheld > 0), -1, free)
        state = self._gather("State", 4)[0] if self.has_list else np.zeros(len(rows), np.uint64)
        self.list, self.freed = (state & _HALF).astype(np.int64), (state >> np.uint64(16)).astype(np.int64)
        self.states: NDArray[np.int64] | None = None
        if "CommitStateOffset" in struct:
            # 26100 counts words there, others bytes
            wide = struct.fields["CommitStateOffset"].type == "u16"
            states = (
                self._gather("CommitStateOffset", 2)[0]
                if wide
                else self._gather("CommitStateOffset", 1)[0] * np.uint64(8)
            )
            self.states = states.astype(np.int64)
            self.commit_units = self._gather("CommitUnitCount", 1)[0].astype(np.int64)
        self.span = 4 * job.view.pointer_bytes if self.has_list else 0

    def _gather(self, name: str, size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """A member of each header; members of one 8-byte word are read together."""
        place = self.struct.offset(name)
        word = place // 8 * 8
        if word not in self._words:
            self._words[word] = self.job.view.space.mapped.gather((self.start + word).astype(np.uint64), 8)
        values, there = self._words[word]
        return values >> np.uint64((place - word) * 8) & np.uint64((1 << 8 * size) - 1), there

    def decode(self, key: int, *, wide_shift: bool) -> Decoded:
        """Offsets under a key. `wide_shift`: the rule of 26100."""
        return self._fit(np.uint64(key & 0xFFFFFFFF), slice(None), wide_shift=wide_shift)

    def allowed(self, i: int, keys: NDArray[np.uint64], *, wide_shift: bool) -> Decoded:
        """Offsets of subsegment `i` under each of some keys."""
        return self._fit(keys, slice(i, i + 1), wide_shift=wide_shift)

    def _fit(self, key: NDArray[np.uint64] | np.uint64, part: slice, *, wide_shift: bool) -> Decoded:
        address, count = self.start[part].astype(np.uint64), self.count[part]
        shifted = (address >> np.uint64(12)) & _LOW if wide_shift else (address & _LOW) >> np.uint64(12)
        plain = (self.offsets[part] ^ key ^ shifted) & _LOW
        size, first = (plain & _HALF).astype(np.int64), (plain >> np.uint64(16)).astype(np.int64)
        granule = self.job.view.granularity
        behind_bits = self.struct.offset("BlockBitmap") + -(-count // 4)
        good = (size > 0) & (size % granule == 0) & (first % granule == 0) & (first >= behind_bits)
        good &= (count > 0) & (count <= MOST_BLOCKS) & self.there[part]
        rest = self.bytes[part] - first - size * count
        # blocks fill the subsegment: what is left is less than one more, however their number was rounded
        good &= (rest >= 0) & (rest < size + granule + _MOST_FIRST)
        whole = good & self.is_full(size, first, count, part)
        if self.states is not None:
            whole &= self.states[part] == self.bits_end(count)
        return Decoded(size, first, count, good, whole)

    def is_full(
        self, size: NDArray[np.int64], first: NDArray[np.int64], count: NDArray[np.int64], part: slice
    ) -> NDArray[np.bool_]:
        """Whether so many blocks begin at one of their `places` and end in the subsegment, and one more with its bits would not."""
        rest = self.bytes[part] - first - size * count
        if self.states is None:
            return (rest >= 0) & (rest < size)
        (least, aligned), more = self.places(size, part), self.bits_end(count + 1) - self.bits_end(count)
        longer = self.places(size, part, more)
        following = np.where(first == aligned, longer[1], longer[0])
        full: NDArray[np.bool_] = (first == least) | (first == aligned)
        full &= (rest >= 0) & (self.bytes[part] < following + size * (count + 1))
        return full

    def places(
        self, size: NDArray[np.int64], part: slice, more: NDArray[np.int64] | int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where blocks of these sizes begin: right behind the commit states; on 26100 those of 2^n bytes on such a boundary.

        `more`: bytes that the bitmap would be longer.
        """
        granule, size = self.job.view.granularity, np.maximum(size, 1)
        end = (
            self.states[part] + 2 * self.commit_units[part] + more if self.states is not None else np.zeros(1, np.int64)
        )
        step = np.where((size & (size - 1) == 0) & self.has_list, np.maximum(size, granule), granule)
        return -(-end // granule) * granule, -(-end // step) * step

    def bits_end(self, count: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offset behind the bitmap of so many blocks, which has whole words; commit states begin there."""
        span, word = self.span or 4 * self.job.view.pointer_bytes, self.job.view.pointer_bytes
        return self.struct.offset("BlockBitmap") + -(-count // span) * word

    def _has_blocks(self) -> NDArray[np.bool_]:
        """A quarter of a subsegment is in the dump: one with very many blocks must not stand for memory that is not."""
        many = self.count > _MANY_BLOCKS
        if not many.any():
            return ~many
        start, size = self.start.astype(np.uint64), self.bytes.astype(np.uint64)
        return ~many | (self.job.view.space.mapped.bytes_present(start, start + size) * np.uint64(4) >= size)

    def candidates(self, part: float) -> NDArray[np.uint64]:
        """Low halves of keys that one subsegment allows, ascending: for its number of blocks few sizes and offsets fit.

        `part`: which one, as a part of all of them, from 0 to 1.
        """
        usable = np.flatnonzero(self.there & (self.count > 0) & (self.count <= MOST_BLOCKS))
        if not len(usable):
            return np.empty(0, np.uint64)
        i, granule = int(usable[round(part * (len(usable) - 1))]), self.job.view.granularity
        least = self.struct.offset("BlockBitmap") + -(-int(self.count[i]) // 4)
        firsts = np.arange(-(-least // granule) * granule, least + _MOST_FIRST, granule).astype(np.uint64)
        most = (int(self.bytes[i]) - least) // int(self.count[i])
        sizes = np.arange(granule, min(most, 0xFFFF) + 1, granule).astype(np.uint64)[-_MOST_FIRST:]
        plain = (firsts[:, None] << np.uint64(16) | sizes[None, :]).reshape(-1)
        address = int(self.start[i])
        found = [
            plain ^ self.offsets[i] ^ np.uint64(shifted & 0xFFFFFFFF)
            for shifted in (address >> 12, (address & 0xFFFFFFFF) >> 12)
        ]
        return np.unique(np.concatenate(found))
