"""Follows the chain of entry headers through the committed runs of an NT heap.

Memory is an array of little-endian 64-bit words, as signed integers. An entry is a whole number of granules, of 8 bytes
on x86 and 16 on x64, and its header holds one header word (docs/reference/heap-structures.md §2.3):

    stride                   64-bit words in a granule: 1 on x86, 2 on x64
    word_index               index of the header word among the words of its granule: 0 on x86, 1 on x64
    header word of granule g = words[g * stride + word_index]
    decoded header word      = header word ^ key
    next header at granule   = g + Size

    bits of the decoded word, Vista and later
    0-15    Size, granules
    16-23   Flags: 0x01 busy, 0x08 internal (user blocks of the LFH, zones)
    24-31   checksum = bits 0-7 ^ bits 8-15 ^ bits 16-23
    32-47   PreviousSize, granules of the entry before; 0 where a run begins
    56-63   UnusedBytes, a number or a code: 0x01 the entry covers a segment's header, 0x03 it is the last entry of a
            run, 0x3F the number does not fit, bit 0x40 the block has a front prefix

A run, or a part of one, is a row of `runs`, (n, 4): granule `start`, granule `stop`, granule `end`, address of granule
0. Entries that begin in [start, stop) are walked; none may reach behind `end`.

`follow` finds the headers by their sizes alone; array arithmetic does the rest (`heaps.nt.chain`). `chain_modern` does
both in one pass. Decision: docs/decisions/0006-two-walks-of-an-nt-chain.md.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY_SHIFT, FLAGS_MASK, INTERNAL_SHIFT, TRUST_GUESS, UNIT, RowWriter

END, RUN_END, CHECKSUM, PREVIOUS, SIZE, FULL = range(6)
"""Why a chain stopped: END behind the last part of a run; RUN_END behind an entry with code 0x03 that does not reach
the end of its run; CHECKSUM, PREVIOUS, SIZE at a header whose checksum, PreviousSize or Size is wrong; FULL without
room for another row."""

DAMAGE = (CHECKSUM, PREVIOUS, SIZE)
"""The reasons that are damage."""

_HEADER_CODE, _RUN_END_CODE = 0x01, 0x03
_SECOND_SIGNATURE = 0x0500
"""The signature 5 of a second header: byte 7, so bits 8-15 of its last two bytes as a u16."""

_PREFIX_BIT, _LOW_BITS, _TOO_LARGE = 0x40, 0x3F, 0x3F
"""UnusedBytes: bit 0x40: the block has a front prefix, and bits 0-5 are its granules. Otherwise bits 0-5 are the number
of unused bytes, or 0x3F where that number does not fit."""


class HeaderCoding(NamedTuple):
    """Layout and encoding of the headers of one heap; terms as in the module's docstring.

    Attributes:
        stride: 64-bit words in a granule.
        word_index: index of the header word among the words of its granule.
        key: 64-bit key that header words are XORed with, as a signed integer.
        mask: `_HEAP.EncodeFlagMask`: the bit of the header word, before decoding, that every encoded header has set; 0
            where headers are plain and have no checksum.
    """

    stride: int
    word_index: int
    key: int
    mask: int


def follow(words: ArrayColumn, at: int, stop: int, end: int, coding: HeaderCoding, out: Output) -> tuple[int, int]:
    """Writes the granule of each header in [at, stop) to `out`, from header to header by Size alone.

    Stops before a header whose Size is 0 or reaches behind granule `end`, and where `out` is full.

    Returns:
        (headers written, granule where it stopped).
    """
    stride, word_index, key, _ = coding
    count, room = 0, len(out)
    while at < stop and count < room:
        size = (words[at * stride + word_index] ^ key) & 0xFFFF
        if size == 0 or at + size > end:
            break
        out[count] = at
        count += 1
        at += size
    return count, at


def chain_modern(
    words: ArrayColumn, runs: Grid, k: int, until: int, at: int, previous: int, coding: HeaderCoding, tag: int,
    out: RowWriter,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Vista and later: writes a row for each entry of the runs [k, until), from granule `at` of run `k` on.

    `runs`: (n, 4), see the module. `previous`: granules of the entry before the first; 0 where a run begins. `tag`:
    bits that the tags of every row have. Returns (rows written, index of the run where it stopped, granule there,
    reason, granules of the last entry).
    """
    stride, word_index, key, mask = coding
    entry, size8, unused_bytes, header8, tags = out.entry, out.size8, out.unused, out.header8, out.tags
    count, room, granule = 0, len(entry), stride * UNIT
    stop, end, base = runs[k, 1], runs[k, 2], runs[k, 3]
    while True:
        while at >= stop:
            if k + 1 == until:
                return count, k, at, END, previous
            k, previous = k + 1, 0
            at, stop, end, base = runs[k, 0], runs[k, 1], runs[k, 2], runs[k, 3]
        if count == room:
            return count, k, at, FULL, previous
        raw = words[at * stride + word_index]
        word = raw ^ key
        if mask and (not raw & mask or ((word >> 24) ^ (word >> 16) ^ (word >> 8) ^ word) & 0xFF):
            return count, k, at, CHECKSUM, previous
        if (word >> 32) & 0xFFFF != previous:
            return count, k, at, PREVIOUS, previous
        size = word & 0xFFFF
        if size == 0 or at + size > end:
            return count, k, at, SIZE, previous
        code = (word >> 56) & 0xFF
        busy = (word >> 16) & 1
        unused, header, trust = code & _LOW_BITS, 1, 0
        if busy == 0:
            unused = granule
        elif code & _PREFIX_BIT or unused == _TOO_LARGE:
            if code & _PREFIX_BIT:  # the second header, `unused` granules on, holds the number and the signature
                prefix, unused = unused, -1
                header = 1 + prefix if prefix < size else 1
                second = words[(at + prefix) * stride + word_index] if prefix < size else 0
                if (second >> 48) & 0xFFFF == prefix | _SECOND_SIGNATURE:
                    unused = (second >> 32) & 0xFFFF
            elif stride == 1:  # x86: the number is in the last 4 bytes of the entry; x64: in the 8 bytes behind it
                unused = (words[at + size - 1] >> 32) & 0xFFFFFFFF
            else:
                unused = words[(at + size) * 2] if (at + size) * 2 < len(words) else granule * size
            least = granule * header - UNIT * word_index
            if not least <= unused <= granule * size:
                unused, trust = least, TRUST_GUESS
        internal = busy & ((word >> 19) & 1 | (code == _HEADER_CODE) | (code == _RUN_END_CODE))
        entry[count] = base + at * granule
        size8[count] = size * stride
        unused_bytes[count] = min(unused, granule * size)
        header8[count] = header * stride
        tags[count] = tag | trust | busy << BUSY_SHIFT | internal << INTERNAL_SHIFT | (word >> 8) & FLAGS_MASK
        count, at, previous = count + 1, at + size, size
        if code == _RUN_END_CODE and at != end:
            return count, k, at, RUN_END, previous
