"""The blocks of LFH subsegments of segment heaps, from their bitmaps: these blocks have no headers.

Memory is an array of little-endian 64-bit words, as signed integers. The bitmap has two bits for each block: *busy*,
and *count*, which is set where the last two bytes of a busy block hold a count of unused bytes. Source:
docs/reference/heap-structures.md §6.5; `span` > 0 as recorded on build 26100.

                 busy bit of block i                    count bit of block i
    span == 0    2 * i                                  busy bit + 1
    span > 0     i // span * 2 * span + i % span        busy bit + span

    bits of the count (u16)
    0-13   number of unused bytes behind the user data
    14     the heap's own data stand behind the user data
    15     exactly one byte is unused: bits 0-7 then belong to the user data, bits 8-14 are 0
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY, EXTRA, TRUST_DERIVED, TRUST_GUESS, TRUST_MASK, UNIT, RowWriter

BASE, START, BITS, FIRST, SIZE, COUNT, FREE_COUNT, LIST, FREED, MOST, MOST_WITH_EXTRA = range(11)
"""Columns of a subsegment record:

    BASE         address of byte 0 of the words
    START        byte offset of the subsegment in the words
    BITS         byte offset of its bitmap in the words
    FIRST        bytes from the subsegment to its first block
    SIZE         bytes of a block
    COUNT        number of blocks
    FREE_COUNT   number of free blocks by the subsegment's own counter; -1 where it has none
    LIST         number of the first block on its list of freed blocks, counted from 1; 0 for an empty list
    FREED        number of blocks on that list; their busy bits are still set
    MOST         the most unused bytes that may lie behind user data
    MOST_WITH_EXTRA   likewise, where the heap's own data stand behind the user data
"""

_SPACING, _EXTRA_BYTES = 16, 64
"""The largest plausible count is max(_SPACING, SIZE // _SPACING) bytes, and _EXTRA_BYTES more with the heap's own data.
A block whose *count* bit is clear, but whose last bytes form such a count, is `derived`: nothing confirms the bit."""

COUNTS_AGREE, FREE_BITS_CLEAR, COUNTS_POSSIBLE = 1, 2, 4
"""Bits of `soundness`: the counters of the subsegment agree with its bitmap; no free block has its *count* bit set; no
busy block is a guess or has more than MOST, or MOST_WITH_EXTRA, unused bytes behind its user data."""

_COUNT_BITS, _ONE_BYTE, _CLEAR_BITS, _EXTRA_BIT = 0x3FFF, 0x8000, 0x7F00, 14


def read_blocks(
    words: ArrayColumn, subsegments: Grid, span: int, padding: int, tag: int, out: RowWriter, soundness: Output
) -> int:
    """Writes a row for each block, and returns the number of rows.

    Args:
        words: the memory.
        subsegments: (n, 11), see BASE … MOST_WITH_EXTRA.
        span: number of blocks whose busy bits stand together in the bitmap; 0 where busy and count bits alternate.
        padding: bytes from the start of a block to its user data.
        tag: bits that the tags of every row have.
        out: gets the rows.
        soundness: (n,) gets COUNTS_AGREE, FREE_BITS_CLEAR and COUNTS_POSSIBLE of each subsegment.
    """
    entry, size8, unused_bytes, header8, tags = out.entry, out.size8, out.unused, out.header8, out.tags
    row = 0
    for k in range(len(subsegments)):
        base, start, bits = subsegments[k, BASE], subsegments[k, START], subsegments[k, BITS]
        size, count = subsegments[k, SIZE], subsegments[k, COUNT]
        first, units, free, stray, over = start + subsegments[k, FIRST], size // UNIT, 0, 0, 0
        for i in range(count):
            busy_at = bits * 8 + (i // span * 2 * span + i % span if span else 2 * i)
            count_at = busy_at + (span if span else 1)
            entry[row + i] = base + first + i * size
            size8[row + i] = units
            if not (words[busy_at >> 6] >> (busy_at & 63)) & 1:
                free, stray = free + 1, stray | (words[count_at >> 6] >> (count_at & 63)) & 1
                unused_bytes[row + i], header8[row + i], tags[row + i] = 0, 0, tag
                continue
            last = first + (i + 1) * size - 2
            mark = (words[last >> 3] >> ((last & 7) * 8)) & 0xFFFF
            unused = 1 if mark & _ONE_BYTE else mark & _COUNT_BITS
            is_possible = 0 < unused <= size - padding and not (mark & _ONE_BYTE and mark & _CLEAR_BITS)
            row_tag = tag | BUSY
            if (words[count_at >> 6] >> (count_at & 63)) & 1:
                row_tag |= (mark >> _EXTRA_BIT & 1) * EXTRA
                if not is_possible:
                    unused, row_tag = 0, row_tag | TRUST_GUESS
            else:
                if is_possible and unused - (mark >> _EXTRA_BIT & 1) * _EXTRA_BYTES <= max(_SPACING, size // _SPACING):
                    row_tag |= TRUST_DERIVED
                unused = 0
            unused = min(unused + padding, size)
            most = subsegments[k, MOST_WITH_EXTRA if row_tag & EXTRA else MOST] + min(padding, size) // UNIT * UNIT
            over |= unused > most or row_tag & TRUST_MASK == TRUST_GUESS
            unused_bytes[row + i], header8[row + i], tags[row + i] = unused, min(padding, size) // UNIT, row_tag
        freed, number, links = subsegments[k, FREED], subsegments[k, LIST], 0
        while links < freed and 0 < number <= count and tags[row + number - 1] & BUSY:
            # bytes 0-1 of a freed block: number of the next one on the list
            at = first + (number - 1) * size
            unused_bytes[row + number - 1], header8[row + number - 1], tags[row + number - 1] = 0, 0, tag
            number, links = (words[at >> 3] >> ((at & 7) * 8)) & 0xFFFF, links + 1
        agrees = (
            (subsegments[k, FREE_COUNT] < 0 or subsegments[k, FREE_COUNT] == free) and links == freed and number == 0
        )
        soundness[k] = (
            (COUNTS_AGREE if agrees else 0) + (0 if stray else FREE_BITS_CLEAR) + (0 if over else COUNTS_POSSIBLE)
        )
        row += count
    return row
