"""Reads the headers of LFH subsegments as arrays, and computes where their blocks lie under a coding.

Source: docs/reference/heap-structures.md §6.5. Nothing is reported here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.keys import LfhCoding
from heapdump.heaps.segment.page_ranges import Ranges
from heapdump.layouts import Struct

MOST_BLOCKS = 0x8000
"""The most blocks of one subsegment; a larger number is damage."""

_MANY_BLOCKS = 0x400
_U16, _U32 = np.uint64(0xFFFF), np.uint64(0xFFFFFFFF)
_MOST_BEHIND_BITMAP = 0x400
"""The most bytes between bitmap and first block: commit states and alignment."""

_MOST_SIZES = 0x400
"""The most block sizes that are tried for one subsegment, from the largest down."""


@dataclass(frozen=True, slots=True)
class BlockExtents:
    """Where the blocks of n subsegments lie by their headers under one coding; (n,) each.

    Attributes:
        block_bytes: int64 bytes of a block.
        first_offset: int64 bytes from the subsegment to its first block.
        count: int64 number of blocks.
        is_possible: bool, True where the blocks fill the subsegment.
        is_consistent: bool, True where all other members of the header agree as well.
        is_guess: bool, True where the header is destroyed and the extent was found by the bitmap and the blocks.
    """

    block_bytes: NDArray[np.int64]
    first_offset: NDArray[np.int64]
    count: NDArray[np.int64]
    is_possible: NDArray[np.bool_]
    is_consistent: NDArray[np.bool_]
    is_guess: NDArray[np.bool_]


class LfhSubsegments:
    """The headers of n LFH subsegments under one version of the structure; (n,) each unless said otherwise.

    Attributes:
        start: int64 address of the subsegment.
        size: int64 bytes of its page range.
        is_present: bool, True where the header is in the dump; with very many blocks also a quarter of the range.
        count: int64 number of blocks: BlockCount + WitheldBlockCount.
        free_count: int64 FreeCount; -1 where the structure does not count all free blocks.
        first_freed: int64 number, from 1, of the first block on the list of freed blocks; 0 for none (26100).
        freed_count: int64 number of blocks on that list.
        has_freed_list: one bool: the structure has that list.
        commit_state_offset: int64 bytes from the subsegment to its commit states; None where the structure lacks it.
        commit_units: int64 number of commit states, 2 bytes each; only with `commit_state_offset`.
        group_bits: one integer: number of blocks whose busy bits stand together in the bitmap (26100); 0 where busy and
            count bits alternate.
    """

    def __init__(self, walk: SegmentWalk, ranges: Ranges, struct: Struct) -> None:
        """Reads the headers; decodes nothing."""
        self.walk, self.struct = walk, struct
        self.start, self.size = ranges.start, ranges.size
        self._words: dict[int, tuple[NDArray[np.uint64], NDArray[np.bool_]]] = {}
        self._encoded_offsets, self.is_present = self._member("BlockOffsets", 4)
        withheld = self._member("WitheldBlockCount", 1)[0] if "WitheldBlockCount" in struct else np.uint64(0)
        count, has_count = self._member("BlockCount", 2)
        self.count = (count + withheld).astype(np.int64)
        self.is_present = self.is_present & has_count & self._is_mostly_present()
        self.has_freed_list = "State" in struct
        self.group_bits = 4 * walk.pointer_bytes if self.has_freed_list else 0
        free = self._member("FreeCount", 2)[0].astype(np.int64)
        # whether FreeCount includes withheld blocks is not known: no recorded subsegment had one
        self.free_count = np.where(self.has_freed_list | (withheld > 0), -1, free)
        state = self._member("State", 4)[0] if self.has_freed_list else np.zeros(len(self.start), np.uint64)
        self.first_freed = (state & _U16).astype(np.int64)
        self.freed_count = (state >> np.uint64(16)).astype(np.int64)
        self.commit_state_offset: NDArray[np.int64] | None = None
        if "CommitStateOffset" in struct:
            # a u16 is in bytes; the u8 of 26100 is in words of 8 bytes
            width, unit = (2, 1) if struct.fields["CommitStateOffset"].type == "u16" else (1, 8)
            self.commit_state_offset = self._member("CommitStateOffset", width)[0].astype(np.int64) * unit
            self.commit_units = self._member("CommitUnitCount", 1)[0].astype(np.int64)

    def __len__(self) -> int:
        """The number of subsegments."""
        return len(self.start)

    def _member(self, name: str, size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """((n,) a member of `size` bytes of each header; (n,) True where it is in the dump)."""
        place = self.struct.offset(name)
        word = place // 8 * 8
        if word not in self._words:
            self._words[word] = self.walk.mapped.gather((self.start + word).astype(np.uint64), 8)
        values, is_present = self._words[word]
        return values >> np.uint64((place - word) * 8) & np.uint64((1 << 8 * size) - 1), is_present

    def _is_mostly_present(self) -> NDArray[np.bool_]:
        """(n,) False where a header names very many blocks, but the dump holds less than a quarter of the range.

        Such a header would make rows for memory that is not in the dump.
        """
        has_many = self.count > _MANY_BLOCKS
        if not has_many.any():
            return ~has_many
        start, size = self.start.astype(np.uint64), self.size.astype(np.uint64)
        return ~has_many | (self.walk.mapped.bytes_present(start, start + size) * np.uint64(4) >= size)

    def members_agree(self) -> NDArray[np.bool_]:
        """(n,) True where the number of blocks, the end of the bitmap and the number of commit states agree.

        These members are plain. Always False under a structure without CommitStateOffset.
        """
        if self.commit_state_offset is None:
            return np.zeros(len(self), bool)
        agree: NDArray[np.bool_] = self.is_present & (self.count > 0) & (self.count <= MOST_BLOCKS)
        agree &= self.commit_state_offset == self.bitmap_end(self.count)
        agree &= (self.commit_units > 0) & (self.commit_units * PAGE <= self.size)
        return agree

    def extents(self, coding: LfhCoding) -> BlockExtents:
        """The extents under a coding with this structure."""
        return self._extents(np.uint64(coding.key), slice(None), shifts_first=coding.shifts_first)

    def extents_under(self, i: int, keys: NDArray[np.uint64], *, shifts_first: bool) -> BlockExtents:
        """The extents of subsegment `i` under each of n keys of 32 bits; (n,) each."""
        return self._extents(keys, slice(i, i + 1), shifts_first=shifts_first)

    def _extents(self, key: NDArray[np.uint64] | np.uint64, which: slice, *, shifts_first: bool) -> BlockExtents:
        """The extents of the subsegments `which` under one key, or of one subsegment under several keys."""
        address, count, granule = self.start[which].astype(np.uint64), self.count[which], self.walk.granule
        shifted = (address >> np.uint64(12)) & _U32 if shifts_first else (address & _U32) >> np.uint64(12)
        offsets = (self._encoded_offsets[which] ^ key ^ shifted) & _U32
        block_bytes, first = (offsets & _U16).astype(np.int64), (offsets >> np.uint64(16)).astype(np.int64)
        possible = (block_bytes > 0) & (block_bytes % granule == 0) & (first % granule == 0)
        possible &= (first >= self._least_first_offset(count)) & self.is_present[which]
        possible &= (count > 0) & (count <= MOST_BLOCKS)
        rest = self.size[which] - first - block_bytes * count
        # one more block would not fit, wherever the first one begins
        possible &= (rest >= 0) & (rest < block_bytes + granule + _MOST_BEHIND_BITMAP)
        consistent = possible & self.are_full(block_bytes, first, count, which)
        if self.commit_state_offset is not None:
            consistent &= self.commit_state_offset[which] == self.bitmap_end(count)
        return BlockExtents(block_bytes, first, count, possible, consistent, np.zeros(len(possible), bool))

    def _least_first_offset(self, count: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) bytes from the subsegment to the end of the used bits of its bitmap; blocks begin there or behind."""
        return self.struct.offset("BlockBitmap") + -(-count // 4)

    def are_full(
        self, block_bytes: NDArray[np.int64], first: NDArray[np.int64], count: NDArray[np.int64], which: slice
    ) -> NDArray[np.bool_]:
        """(n,) True where blocks begin directly behind the commit states and one more, with its bits, does not fit."""
        rest = self.size[which] - first - block_bytes * count
        if self.commit_state_offset is None:
            return (rest >= 0) & (rest < block_bytes)
        least, aligned = self.first_offsets(block_bytes, which)
        longer = self.first_offsets(block_bytes, which, self.bitmap_end(count + 1) - self.bitmap_end(count))
        next_first = np.where(first == aligned, longer[1], longer[0])
        full: NDArray[np.bool_] = (first == least) | (first == aligned)
        full &= (rest >= 0) & (self.size[which] < next_first + block_bytes * (count + 1))
        return full

    def first_offsets(
        self, block_bytes: NDArray[np.int64], which: slice, more: NDArray[np.int64] | int = 0
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offsets of a first block directly behind the commit states: ((n,) rounded up to a granule, (n,) to its size).

        The second is for blocks of 2**k bytes on 26100; for others it equals the first. `more`: additional bytes of the
        bitmap.
        """
        granule, block_bytes = self.walk.granule, np.maximum(block_bytes, 1)
        end = np.zeros(1, np.int64)
        if self.commit_state_offset is not None:
            end = self.commit_state_offset[which] + 2 * self.commit_units[which] + more
        is_power = (block_bytes & (block_bytes - 1) == 0) & self.has_freed_list
        step = np.where(is_power, np.maximum(block_bytes, granule), granule)
        return -(-end // granule) * granule, -(-end // step) * step

    def bitmap_end(self, count: NDArray[np.int64]) -> NDArray[np.int64]:
        """(n,) bytes from the subsegment to the end of a bitmap for `count` blocks, of whole pointer-sized words."""
        word = self.walk.pointer_bytes
        return self.struct.offset("BlockBitmap") + -(-count // (4 * word)) * word

    def possible_keys(self, share: float) -> NDArray[np.uint64]:
        """(k,) uint64 keys of 32 bits, ascending, under which the header of one subsegment is possible.

        Few block sizes and offsets fit its number of blocks. `share`: selects the subsegment, 0 the first, 1 the last.
        """
        usable = np.flatnonzero(self.is_present & (self.count > 0) & (self.count <= MOST_BLOCKS))
        if not len(usable):
            return np.empty(0, np.uint64)
        i, granule = int(usable[round(share * (len(usable) - 1))]), self.walk.granule
        least = int(self._least_first_offset(self.count[i : i + 1])[0])
        first = np.arange(-(-least // granule) * granule, least + _MOST_BEHIND_BITMAP, granule).astype(np.uint64)
        most_bytes = min((int(self.size[i]) - least) // int(self.count[i]), 0xFFFF)
        block_bytes = np.arange(granule, most_bytes + 1, granule).astype(np.uint64)[-_MOST_SIZES:]
        offsets = (first[:, None] << np.uint64(16) | block_bytes[None, :]).reshape(-1) ^ self._encoded_offsets[i]
        address = int(self.start[i])
        shifted = (address >> 12 & 0xFFFFFFFF, (address & 0xFFFFFFFF) >> 12)
        return np.unique(np.concatenate([offsets ^ np.uint64(value) for value in shifted]))
