"""The rule that the header words of LFH blocks follow, and the key of the process (heap-structures.md §3.3, §3.4).

H is the address of the heap, U of the user blocks, S of the subsegment, K the key RtlpLFHKey. The low bits of a header
word, its *code*, are

    8.1 and later, x64    32 bits:  entry >> 4 ^ K ^ H ^ (entry - U) << 12
    8.1 and later, x86    32 bits:  entry >> 3 ^ K ^ H ^ (entry - U) << 13
    Vista to 8, x64       40 bits:  (entry ^ H) >> 4 ^ K ^ S >> 4
    XP to 8, x86          32 bits:  entry >> 3 ^ K ^ H ^ S
    Server 2003, x64      as Vista, 32 bits (no source)

So code, address and distance give a *constant*: one and the same for all blocks of a subsegment, from 8.1 on for all
blocks of a heap. A header is good when its constant is the right one. Equal constants of several headers are evidence
of their own: no other memory has them by chance.
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
"""UnusedBytes, Vista and later: the LFH owns the block."""

_PRE_VISTA_LFH = 0xFF
"""SegmentIndex before Vista: the LFH owns the block."""

_BUSY_BITS = 0x3F
"""UnusedBytes, Vista and later: not 0 for a busy block."""

INDEX_SHIFT = 40
"""Bytes 5 and 6 of the header word, from 8 on: the number of the block in its subsegment."""


@dataclass(frozen=True, slots=True)
class BlockCoding:
    """The rule of one build.

    Attributes:
        mask: the bits of the header word that are its code.
        shift: entry >> shift is part of the code.
        distance_shift: 12 or 13 from 8.1 on; 0 before, where the constant holds the subsegment instead.
        address_shift: how far H and S are shifted before 8.1: 4 on x64, 0 on x86.
        has_index: the header word holds the number of the block (8 and later).
        is_pre_vista: marks and states stand in other bytes.
    """

    mask: int
    shift: int
    distance_shift: int
    address_shift: int
    has_index: bool
    is_pre_vista: bool

    @property
    def names_subsegment(self) -> bool:
        """True before 8.1: the constant leads to the subsegment."""
        return not self.distance_shift

    def constants(self, words: Words, entries: Words, user_blocks: Words | int) -> Words:
        """The constant of each header word; (n,) int64 each."""
        out = words ^ entries >> self.shift
        if self.distance_shift:
            out = out ^ entries - user_blocks << self.distance_shift
        constants: Words = out & self.mask
        return constants

    def constant(self, key: int, heap: int, subsegment: int) -> int:
        """The constant that these give."""
        if self.distance_shift:
            return (key ^ heap) & self.mask
        return (key ^ heap >> self.address_shift ^ subsegment >> self.address_shift) & self.mask

    def key(self, constant: int, heap: int, subsegment: int) -> int:
        """K by the constant of a subsegment, as far as the code needs it."""
        return self.constant(constant, heap, subsegment)

    def subsegments(self, constants: Words, key: int, heap: int) -> Words:
        """Before 8.1: the addresses of subsegments that the constants lead to, cut to the bits of the code."""
        return (constants ^ signed64(self.constant(key, heap, 0))) << self.address_shift

    def are_lfh(self, words: Words) -> NDArray[np.bool_]:
        """True where the header says that the LFH owns the block, and its fixed bytes hold."""
        lfh: NDArray[np.bool_]
        lfh = words >> 56 & 0xFF == _PRE_VISTA_LFH if self.is_pre_vista else words >> 56 & _LFH != 0
        return lfh

    def are_busy(self, words: Words) -> NDArray[np.bool_]:
        """The states that the headers say."""
        busy: NDArray[np.bool_]
        by_count = self.are_lfh(words) & (words >> 56 & _BUSY_BITS != 0)
        busy = words >> 40 & 1 != 0 if self.is_pre_vista else by_count
        return busy


def block_coding(entry_format: EntryFormat) -> BlockCoding:
    """The rule of the build that a heap's layout is of."""
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
