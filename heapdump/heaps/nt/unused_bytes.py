"""From the header of an entry to its requested bytes (docs/reference/heap-structures.md §2.3, *User size*).

    requested bytes = Size * granule - unused bytes

UnusedBytes of the header word is the number of unused bytes, or a code that says where the number is. The same rules
hold for entries of the back end and for LFH blocks. `kernels.nt_chain` and `kernels.nt_lfh` implement them again, for
long walks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import Words

_COUNT_BITS = 0x3F
"""Bits of UnusedBytes, Vista and later: the number of unused bytes where below 0x3F; with _PREFIX the number of
granules of the front prefix."""

_PREFIX = 0x40
"""Bit of UnusedBytes, Vista and later: the block has a front prefix with a pointer to its allocation stack (§4.1)."""

_LONG, _PRE_VISTA_LONG = 0x3F, 0xFF
"""UnusedBytes where the number does not fit, Vista and later, and before Vista."""

USUAL_PREFIX, _SIGNATURE = 2, 5
"""Granules of the front prefix of blocks with recorded stacks; ExtendedBlockSignature of the second header."""

FRONT_PREFIX = _PREFIX | USUAL_PREFIX
"""UnusedBytes of a back-end block with a front prefix of USUAL_PREFIX granules."""


@dataclass(frozen=True, slots=True)
class Entries:
    """n entries with decoded headers.

    Attributes:
        granules: (n,) int64 granule of each entry in the words of a window.
        size: (n,) int64 granules of each entry: Size of the header; of an LFH block by its subsegment.
        unused_code: (n,) int64 UnusedBytes.
        is_busy: (n,) bool.
    """

    granules: Words
    size: Words
    unused_code: Words
    is_busy: NDArray[np.bool_]


class UnusedBytes(NamedTuple):
    """The unused bytes of n entries, (n,) each.

    Attributes:
        unused: unused bytes, header included, at most the bytes of the entry; of a free entry the bytes of its header.
        header: granules from the entry to its user data; 1 where a front prefix would not fit in the entry.
        is_guess: True where the number of unused bytes is not at its place; `unused` is then the smallest number that
            the header allows.
    """

    unused: Words
    header: Words
    is_guess: NDArray[np.bool_]


def unused_bytes(entry_format: EntryFormat, words: Words, entries: Entries) -> UnusedBytes:
    """The unused bytes of the entries, and where their user data begin."""
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
        prefix = code[prefixed] & _COUNT_BITS
        header[prefixed] = np.where(prefix < entries.size[prefixed], 1 + prefix, 1)
        unused[prefixed] = _behind_prefix(entry_format, words, entries, prefixed, prefix)
    unused[long] = _in_last_word(entry_format, words, entries, long)
    elsewhere = np.concatenate([prefixed, long])
    least = granule * header - 8 * entry_format.word_index
    bad = elsewhere[(unused[elsewhere] < least[elsewhere]) | (unused[elsewhere] > granule * entries.size[elsewhere])]
    unused[bad] = least[bad]
    is_guess = np.zeros(len(unused), bool)
    is_guess[bad] = True
    return UnusedBytes(np.minimum(unused, granule * entries.size), header, is_guess)


def unused_bytes_of_one(
    entry_format: EntryFormat, words: Words, place: tuple[int, int], code: int
) -> tuple[int, int, bool]:
    """`unused_bytes` of one busy entry: (unused, header, is_guess). `place`: granule and size; `code`: UnusedBytes."""
    (at, size), granule, stride, index = place, entry_format.granule, entry_format.stride, entry_format.word_index
    unused, header, pre_vista = code, 1, entry_format.is_pre_vista
    is_long = code == _PRE_VISTA_LONG if pre_vista else code & (_PREFIX | _COUNT_BITS) == _LONG
    is_prefixed = not pre_vista and code & _PREFIX > 0
    if not pre_vista:
        unused = code & _COUNT_BITS
        if is_prefixed:
            prefix, unused = unused, -1
            header = 1 + prefix if prefix < size else 1
            second = int(words[min((at + prefix) * stride + index, len(words) - 1)])
            if prefix < size and second >> 48 & 0xFFFF == prefix | _SIGNATURE << 8:
                unused = second >> 32 & 0xFFFF
    if is_long:
        last = (at + size) * stride - (pre_vista or stride == 1)
        unused = granule * size if last >= len(words) else int(words[last])
        if stride == 1 and last < len(words):
            unused = unused >> 32 & 0xFFFFFFFF
    least, is_guess = granule * header - 8 * index, False
    if (is_long or is_prefixed) and not least <= unused <= granule * size:
        unused, is_guess = least, True
    return min(unused, granule * size), header, is_guess


def second_header_prefix(entry_format: EntryFormat, words: Words, granules: Words) -> NDArray[np.bool_]:
    """True where a front prefix of 2 granules follows the header, by the last two bytes of the second header.

    For entries whose own header is damaged. Always False before Vista.
    """
    place = (granules + USUAL_PREFIX) * entry_format.stride + entry_format.word_index
    inside = place < len(words)
    mark = words[np.where(inside, place, 0)] >> 48 & 0xFFFF
    found: NDArray[np.bool_] = inside & (mark == (_SIGNATURE << 8 | USUAL_PREFIX)) & (not entry_format.is_pre_vista)
    return found


def has_usual_prefix(entry_format: EntryFormat, words: Words, granule: int) -> bool:
    """`second_header_prefix` of one entry."""
    place = (granule + USUAL_PREFIX) * entry_format.stride + entry_format.word_index
    if entry_format.is_pre_vista or place >= len(words):
        return False
    return int(words[place]) >> 48 & 0xFFFF == _SIGNATURE << 8 | USUAL_PREFIX


def _behind_prefix(entry_format: EntryFormat, words: Words, entries: Entries, rows: Words, prefix: Words) -> Words:
    """UnusedBytesLength, bits 32-47 of the second header, which ends the front prefix; -1 where there is none.

    The second header is recognised by bytes 6 and 7: EntryOffset, which is `prefix`, and the signature 5.

    Args:
        entry_format: format of the headers.
        words: the words of a window.
        entries: the entries.
        rows: (m,) indices of the entries with a front prefix.
        prefix: (m,) granules of the front prefix of each.
    """
    granules, size = entries.granules[rows], entries.size[rows]
    place = np.minimum((granules + prefix) * entry_format.stride + entry_format.word_index, len(words) - 1)
    has_mark = (prefix < size) & (words[place] >> 48 & 0xFFFF == prefix | _SIGNATURE << 8)
    return np.where(has_mark, words[place] >> 32 & 0xFFFF, -1)


def _in_last_word(entry_format: EntryFormat, words: Words, entries: Entries, rows: Words) -> Words:
    """The number of unused bytes that is stored at the end of an entry.

    x86: in the last 4 bytes of the entry. x64: before Vista in its last 8 bytes; later in the 8 bytes behind it, which
    belong to its user data. All bytes of the entry where that word lies outside the window.
    """
    stride, end = entry_format.stride, entries.granules[rows] + entries.size[rows]
    place = end * stride - (entry_format.is_pre_vista or stride == 1)
    inside = place < len(words)
    count = words[np.where(inside, place, 0)]
    if stride == 1:
        count = count >> 32 & 0xFFFFFFFF
    return np.where(inside, count, entry_format.granule * entries.size[rows])


def count_places(entry_format: EntryFormat, entry: Words, size_bytes: Words, code: Words) -> tuple[Words, Words]:
    """Where n busy entries store their number of unused bytes.

    Args:
        entry_format: format of the headers.
        entry: (n,) addresses of the entries.
        size_bytes: (n,) occupied bytes.
        code: (n,) UnusedBytes.

    Returns:
        ((n,) address of the word with the number, -1 where UnusedBytes is the number itself; (n,) the smallest possible
        number).
    """
    granule, end = entry_format.granule, entry + size_bytes
    in_last = end if entry_format.stride == 2 and not entry_format.is_pre_vista else end - 8
    if entry_format.is_pre_vista:
        return np.where(code == _PRE_VISTA_LONG, in_last, -1), np.full(len(entry), _PRE_VISTA_LONG, np.int64)
    prefix = code & _COUNT_BITS
    has_prefix = ((code & _PREFIX) != 0) & (prefix * granule < size_bytes)
    second = entry + prefix * granule + entry_format.word_offset
    place = np.where(has_prefix, second, np.where((code & (_PREFIX | _COUNT_BITS)) == _LONG, in_last, -1))
    return place, np.where(has_prefix, (1 + prefix) * granule, _LONG)
