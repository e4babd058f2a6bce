"""The encoding of the header words of LFH blocks, and the key of the process (heap-structures.md §3.3, §3.4).

H is the address of the heap, U of the user blocks, S of the subsegment, K the key RtlpLFHKey. `entry` is the address of
the block's header. The low bits of a header word are its *code*:

    8.1 and later, x64    32 bits:  entry >> 4 ^ K ^ H ^ (entry - U) << 12
    8.1 and later, x86    32 bits:  entry >> 3 ^ K ^ H ^ (entry - U) << 13
    Vista to 8, x64       40 bits:  (entry ^ H) >> 4 ^ K ^ S >> 4
    XP to 8, x86          32 bits:  entry >> 3 ^ K ^ H ^ S
    Server 2003, x64      as Vista, 32 bits (no source)

The code without the terms of `entry` and U is a *constant*: K ^ H from 8.1 on, equal for all blocks of a heap; before,
a value with S, equal for all blocks of a subsegment. A header is good when its constant is the right one. Where the
right one is not known, equal constants of several headers are evidence: other memory does not have them by chance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.entry_format import EntryFormat

Words = NDArray[np.int64]

_U32 = 0xFFFFFFFF
_U40 = (1 << 40) - 1

_LFH = 0x80
"""Bit of UnusedBytes, Vista and later: the LFH owns the block."""

_PRE_VISTA_LFH = 0xFF
"""SegmentIndex before Vista: the LFH owns the block."""

_BUSY_BITS = 0x3F
"""Bits of UnusedBytes, Vista and later: 0 for a free block, not 0 for a busy one."""

INDEX_SHIFT = 40
"""Lowest bit of the block's number in its subsegment: bytes 5 and 6 of the header word, 8 and later."""


@dataclass(frozen=True, slots=True)
class BlockCoding:
    """The encoding of LFH headers in one build.

    Attributes:
        mask: bits of the header word that are its code, 32 or 40.
        shift: bits by which `entry` is shifted right, 3 or 4.
        distance_shift: bits by which entry - U is shifted left, 12 or 13, from 8.1 on; 0 before, where the constant
            contains S instead.
        address_shift: bits by which H and S are shifted right before 8.1: 4 on x64, 0 on x86.
        has_index: True where the header word holds the number of the block (8 and later).
        is_pre_vista: True for XP and Server 2003, where the owner and the state of a block are in other bytes.
    """

    mask: int
    shift: int
    distance_shift: int
    address_shift: int
    has_index: bool
    is_pre_vista: bool

    @property
    def names_subsegment(self) -> bool:
        """True before 8.1: the constant contains the address of the subsegment."""
        return not self.distance_shift

    def constants(self, words: Words, entries: Words, user_blocks: Words | int) -> Words:
        """The constants of n header words, as they lie in memory; (n,) int64 each."""
        out = words ^ entries >> self.shift
        if self.distance_shift:
            out = out ^ entries - user_blocks << self.distance_shift
        constants: Words = out & self.mask
        return constants

    def constant(self, key: int, heap: int, subsegment: int) -> int:
        """The constant of blocks with this key K, heap H and subsegment S; from 8.1 on S is not used."""
        if self.distance_shift:
            return (key ^ heap) & self.mask
        return (key ^ heap >> self.address_shift ^ subsegment >> self.address_shift) & self.mask

    def key(self, constant: int, heap: int, subsegment: int) -> int:
        """K, in the bits of the code, by the constant of a block of this heap H and subsegment S."""
        return self.constant(constant, heap, subsegment)

    def subsegments(self, constants: Words, key: int, heap: int) -> Words:
        """Before 8.1: the addresses S of subsegments by their constants; only as many bits as the code has."""
        return (constants ^ signed64(self.constant(key, heap, 0))) << self.address_shift

    def are_lfh(self, words: Words) -> NDArray[np.bool_]:
        """True for header words that say that the LFH owns the block; (n,) bool."""
        lfh: NDArray[np.bool_]
        lfh = words >> 56 & 0xFF == _PRE_VISTA_LFH if self.is_pre_vista else words >> 56 & _LFH != 0
        return lfh

    def are_busy(self, words: Words) -> NDArray[np.bool_]:
        """True for header words of busy blocks; (n,) bool."""
        busy: NDArray[np.bool_]
        by_count = self.are_lfh(words) & (words >> 56 & _BUSY_BITS != 0)
        busy = words >> 40 & 1 != 0 if self.is_pre_vista else by_count
        return busy


def block_coding(entry_format: EntryFormat) -> BlockCoding:
    """The encoding of LFH headers under this entry format."""
    header = entry_format.layout["_HEAP_USERDATA_HEADER"]
    has_distance, is_x64 = "EncodedOffsets" in header, entry_format.stride == 2
    is_wide = is_x64 and not has_distance and not entry_format.is_pre_vista
    return BlockCoding(
        mask=_U40 if is_wide else _U32,
        shift=4 if is_x64 else 3,
        distance_shift=(12 if is_x64 else 13) if has_distance else 0,
        address_shift=4 if is_x64 else 0,
        has_index="BusyBitmap" in header,
        is_pre_vista=entry_format.is_pre_vista,
    )
