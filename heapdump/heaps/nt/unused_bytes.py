"""From the header of an entry to its requested bytes (docs/reference/heap-structures.md §2.3, *User size*).

    requested bytes = Size * granule - unused bytes

UnusedBytes of the header word is the number of unused bytes, or a code that says where the number lies. The same rules
hold for entries of the back end and for LFH blocks; `kernels.nt_chain` has them once more for long walks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import Words

_COUNT_BITS = 0x3F
"""Vista and later: the number of unused bytes, below 0x3F; with _PREFIX the granules of the front prefix."""

_PREFIX = 0x40
"""Vista and later: the block has a front prefix, which holds the pointer to its allocation stack (§4.1)."""

_LONG, _PRE_VISTA_LONG = 0x3F, 0xFF
"""The number does not fit in the byte."""

USUAL_PREFIX, _SIGNATURE = 2, 5
"""Granules of the front prefix of blocks with recorded stacks; ExtendedBlockSignature of the second header."""

FRONT_PREFIX = _PREFIX | USUAL_PREFIX
"""UnusedBytes of a back-end block with such a prefix."""


@dataclass(frozen=True, slots=True)
class Entries:
    """n entries whose headers are decoded.

    Attributes:
        granules: places in the words of a window, (n,) int64.
        size: granules of each, (n,) int64: Size of the header; of an LFH block the size of its subsegment's blocks.
        unused_code: UnusedBytes, (n,) int64.
        is_busy: (n,) bool.
    """

    granules: Words
    size: Words
    unused_code: Words
    is_busy: NDArray[np.bool_]


class UnusedBytes(NamedTuple):
    """What headers say of requested bytes, (n,) each.

    Attributes:
        unused: unused bytes, header included; of a free entry those of the header alone. Never more than the entry has.
        header: granules from the entry to its user data.
        is_guess: (n,) bool; the place that should have the number has none, and the largest request that fits is taken.
    """

    unused: Words
    header: Words
    is_guess: NDArray[np.bool_]


def unused_bytes(entry_format: EntryFormat, words: Words, entries: Entries) -> UnusedBytes:
    """The unused bytes of entries, and where their user data begin."""
    granule, code, busy = entry_format.granule, entries.unused_code, entries.is_busy
    header = np.ones(len(entries.granules), np.int64)
    if entry_format.is_pre_vista:
        unused = np.where(busy, code, granule)
        prefixed, long = np.empty(0, np.int64), np.flatnonzero(busy & (code == _PRE_VISTA_LONG))
    else:
        unused = np.where(busy, code & _COUNT_BITS, granule)
        rare = np.flatnonzero(busy & ((code & (_PREFIX | _COUNT_BITS)) >= _LONG))
        has_prefix = (code[rare] & _PREFIX) != 0
        prefixed, long = rare[has_prefix], rare[~has_prefix]
        header[prefixed] = 1 + (code[prefixed] & _COUNT_BITS)
        unused[prefixed] = _behind_prefix(entry_format, words, entries, prefixed, header[prefixed] - 1)
    unused[long] = _in_last_word(entry_format, words, entries, long)
    elsewhere = np.concatenate([prefixed, long])
    least = granule * header - 8 * entry_format.word_index
    bad = elsewhere[(unused[elsewhere] < least[elsewhere]) | (unused[elsewhere] > granule * entries.size[elsewhere])]
    unused[bad] = least[bad]
    is_guess = np.zeros(len(unused), bool)
    is_guess[bad] = True
    return UnusedBytes(np.minimum(unused, granule * entries.size), header, is_guess)


def second_header_prefix(entry_format: EntryFormat, words: Words, granules: Words) -> NDArray[np.bool_]:
    """True where a front prefix of 2 granules follows the header, by the mark of the second header; never before Vista.

    For entries whose own header is damaged.
    """
    place = (granules + USUAL_PREFIX) * entry_format.stride + entry_format.word_index
    inside = place < len(words)
    mark = words[np.where(inside, place, 0)] >> 48 & 0xFFFF
    found: NDArray[np.bool_] = inside & (mark == (_SIGNATURE << 8 | USUAL_PREFIX)) & (not entry_format.is_pre_vista)
    return found


def _behind_prefix(entry_format: EntryFormat, words: Words, entries: Entries, rows: Words, prefix: Words) -> Words:
    """UnusedBytesLength, bits 32-47 of the second header, which follows the front prefix of `prefix` granules.

    -1 where no second header is there: its bytes 6 and 7 are EntryOffset, which is the prefix, and the signature 5.
    """
    granules, size = entries.granules[rows], entries.size[rows]
    place = np.minimum((granules + prefix) * entry_format.stride + entry_format.word_index, len(words) - 1)
    has_mark = (prefix < size) & (words[place] >> 48 & 0xFFFF == prefix | _SIGNATURE << 8)
    return np.where(has_mark, words[place] >> 32 & 0xFFFF, -1)


def _in_last_word(entry_format: EntryFormat, words: Words, entries: Entries, rows: Words) -> Words:
    """The number where it has 32 or 64 bits: in the last word of the entry.

    x86: its last 4 bytes. x64 before Vista: its last 8 bytes; later the 8 bytes behind it, which also belong to it.
    All bytes of the entry where that word does not lie in the window.
    """
    stride, end = entry_format.stride, entries.granules[rows] + entries.size[rows]
    place = end * stride - (entry_format.is_pre_vista or stride == 1)
    inside = place < len(words)
    count = words[np.where(inside, place, 0)]
    if stride == 1:
        count = count >> 32 & 0xFFFFFFFF
    return np.where(inside, count, entry_format.granule * entries.size[rows])


def count_places(entry_format: EntryFormat, entry: Words, size_bytes: Words, code: Words) -> tuple[Words, Words]:
    """(address of the word with the number of unused bytes, -1 where UnusedBytes has it; the least number), (n,) each.

    `entry`, `size_bytes`, `code`: addresses, occupied bytes and UnusedBytes of n busy entries.
    """
    granule, end = entry_format.granule, entry + size_bytes
    in_last = end if entry_format.stride == 2 and not entry_format.is_pre_vista else end - 8
    if entry_format.is_pre_vista:
        return np.where(code == _PRE_VISTA_LONG, in_last, -1), np.full(len(entry), _PRE_VISTA_LONG, np.int64)
    prefix = code & _COUNT_BITS
    has_prefix = (code & _PREFIX) != 0
    second = entry + prefix * granule + entry_format.word_offset
    place = np.where(has_prefix, second, np.where(prefix == _LONG, in_last, -1))
    return place, np.where(has_prefix, (1 + prefix) * granule, _LONG)
