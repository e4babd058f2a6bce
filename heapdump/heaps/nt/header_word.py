"""Decodes the header words of many entries: their members, and whether the checksum holds.

Which bits a member has is defined in `entry_format`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import EntryFormat

Words = NDArray[np.int64]

BUSY_FLAG = 0x01
LAST_FLAG = 0x10
"""Bit of Flags, before Vista: the entry is the last one of a committed run."""

INTERNAL_FLAG = 0x08
"""Bit of Flags, Vista and later: the heap uses the block itself, for user blocks of the LFH and for zones.

Source: heap-structures.md §2.3, and every recorded build.
"""

HEADER_CODE, RUN_END_CODE = 1, 3
"""UnusedBytes, Vista and later: of the entry that covers a segment's header; of the last entry of a committed run."""


@dataclass(frozen=True, slots=True)
class Headers:
    """The members of n decoded header words, (n,) int64 each.

    Attributes:
        size: Size, in granules.
        previous_size: PreviousSize, the Size of the entry before, in granules; 0 for the first entry of a run.
        flags: Flags, 8 bits.
        unused_code: UnusedBytes, 8 bits: a number of bytes or a code, see `unused_bytes`.
        holds: (n,) bool, True where the header is encoded and its checksum is right; always True in heaps with plain
            headers.
    """

    size: Words
    previous_size: Words
    flags: Words
    unused_code: Words
    holds: NDArray[np.bool_]

    @property
    def is_busy(self) -> NDArray[np.bool_]:
        """True for busy entries; (n,) bool."""
        busy: NDArray[np.bool_] = (self.flags & BUSY_FLAG) != 0
        return busy


def headers_at(entry_format: EntryFormat, words: Words, granules: Words) -> Headers:
    """The headers of the entries that begin at these granules of `words`."""
    return decode_headers(entry_format, words[granules * entry_format.stride + entry_format.word_index])


def decode_headers(entry_format: EntryFormat, encoded: Words) -> Headers:
    """The headers of these header words. `encoded`: the words as they lie in memory."""
    word = encoded ^ entry_format.key
    bits = entry_format.bits
    holds = np.ones(len(encoded), bool)
    if entry_format.mask:
        holds = ((encoded & entry_format.mask) != 0) & (((word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF) == 0)
    return Headers(
        word & 0xFFFF, word >> bits.previous_size & 0xFFFF, word >> bits.flags & 0xFF, word >> bits.unused & 0xFF, holds
    )
