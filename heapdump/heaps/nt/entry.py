"""Entry headers of the NT heap, many at a time: fields, checksum, unused bytes (heap-structures.md §2.3).

In: a window's words and the granules of some headers. Out: columns, all (n,) int64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import EntryFormat

Words = NDArray[np.int64]
BUSY_FLAG, LAST_FLAG = 0x1, 0x10
INTERNAL_FLAG = 0x8  # on Vista and later: the carriers of the front end and its zones (seen on every recorded build)
HEADER_CODE, RANGE_END_CODE = 1, 3  # UnusedBytes of a segment's header entry, and of the one that ends a run

_LOW, _PREFIX, _LONG, _LONG_OLD = 0x3F, 0x40, 0x3F, 0xFF


@dataclass(frozen=True, slots=True)
class Headers:
    """Decoded fields; sizes in granules. `holds`: (n,) bool, the checksum is right (always, before Vista)."""

    size: Words
    previous: Words
    flags: Words
    unused: Words
    holds: NDArray[np.bool_]

    @property
    def is_busy(self) -> NDArray[np.bool_]:
        """(n,) bool."""
        busy: NDArray[np.bool_] = (self.flags & BUSY_FLAG) != 0
        return busy


def headers_at(entry_format: EntryFormat, words: Words, at: Words) -> Headers:
    """The headers of the granules `at`."""
    return decoded(entry_format, words[at * entry_format.stride + entry_format.word_index])


def decoded(entry_format: EntryFormat, raw: Words) -> Headers:
    """The headers whose 8 meaningful bytes are `raw`."""
    word = raw ^ entry_format.key
    if entry_format.is_pre_vista:
        return Headers(
            word & 0xFFFF, word >> 16 & 0xFFFF, word >> 40 & 0xFF, word >> 48 & 0xFF, np.ones(len(raw), bool)
        )
    holds = np.ones(len(raw), bool)
    if entry_format.mask:
        holds = ((raw & entry_format.mask) != 0) & (((word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF) == 0)
    return Headers(word & 0xFFFF, word >> 32 & 0xFFFF, word >> 16 & 0xFF, word >> 56 & 0xFF, holds)


def unasked(
    entry_format: EntryFormat, words: Words, at: Words, size: Words, unused: Words, busy: NDArray[np.bool_]
) -> tuple[Words, Words]:
    """(occupied bytes that the program did not ask for, granules from entry to user data).

    `size` in granules, `unused` the UnusedBytes codes. Of a block that is not busy it is the header.
    """
    granule = entry_format.granule
    lead = np.ones(len(at), np.int64)
    if entry_format.is_pre_vista:
        spare = np.where(busy, unused, granule)
        long = np.flatnonzero(busy & (unused == _LONG_OLD))
    else:
        spare = np.where(busy, unused & _LOW, granule)
        rare = np.flatnonzero(busy & ((unused & (_PREFIX | _LOW)) >= _LONG))
        is_prefixed = (unused[rare] & _PREFIX) != 0
        prefixed, long = rare[is_prefixed], rare[~is_prefixed]
        low = unused[prefixed] & _LOW
        lead[prefixed] = 1 + low
        spare[prefixed] = _prefixed_count(entry_format, words, at[prefixed], low, size[prefixed])
    spare[long] = _long_count(entry_format, words, at[long], size[long])
    return np.minimum(np.maximum(spare, 0), granule * size), lead


def _prefixed_count(entry_format: EntryFormat, words: Words, at: Words, low: Words, size: Words) -> Words:
    """A front prefix (allocation stacks): the second header, `low` granules on, has the whole unused count."""
    index = np.minimum((at + low) * entry_format.stride + entry_format.word_index, len(words) - 1)
    return np.where(low < size, words[index] >> 32 & 0xFFFF, entry_format.granule * size)


def _long_count(entry_format: EntryFormat, words: Words, at: Words, size: Words) -> Words:
    """A count that does not fit the byte: in the entry's last word; from Vista on x64 in the 8 bytes behind it."""
    index = (at + size) * entry_format.stride - (entry_format.is_pre_vista or entry_format.stride == 1)
    inside = index < len(words)
    count = words[np.where(inside, index, 0)]
    if entry_format.stride == 1:
        count = count >> 32 & 0xFFFFFFFF
    return np.where(inside, count, entry_format.granule * size)
