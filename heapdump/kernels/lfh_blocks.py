"""The blocks of many LFH subsegments of segment heaps, from their bitmaps: these blocks have no headers.

Memory is an array of little-endian 64-bit words, as signed integers. Two bits of the bitmap belong to each block: *busy*,
and *count*: the last two bytes of the block hold a count (docs/reference/heap-structures.md §6.5; the newer bitmap as
recorded on 26100):

    span == 0: busy of block i = bit 2 * i,                                  count = the next bit
    span > 0:  busy of block i = bit i // span * 2 * span + i % span,        count = `span` bits on

    bits of the count in a block
    0-13   unused bytes behind the user data
    14     data of the heap's own stands behind the user data
    15     set: one byte is unused, whatever bits 0-7 are, which belong to the user data; bits 8-14 are clear
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY, EXTRA, TRUST_DERIVED, TRUST_GUESS, TRUST_MASK, UNIT, RowWriter

BASE, START, BITS, FIRST, SIZE, COUNT, FREE_COUNT, LIST, FREED, MOST, MOST_WITH_EXTRA = range(11)
"""Columns of a subsegment: address of byte 0 of the words; byte offsets of the subsegment and of its bitmap in the words;
bytes from the subsegment to its first block; bytes of a block; number of blocks; number of free blocks that the
subsegment itself counts, -1 where it has no count; number (from 1) of the first block on its list of freed blocks, and
how many are on that list; the most unused bytes behind user data, without and with data of the heap's own there."""

_SPACING, _EXTRA_BYTES = 16, 64
"""Unused bytes that a block has at most, and this share of it; and more with data of the heap's own. A block without a count
whose last bytes could be such a count is derived: the bit that says so has no other witness."""

COUNTS_AGREE, FREE_BITS_CLEAR, COUNTS_POSSIBLE = 1, 2, 4
"""Of each subsegment: its counts agree with its bitmap; no free block has its *count* bit set; no busy block is a guess or
has more unused bytes than the most."""

_COUNT_BITS, _ONE_BYTE, _CLEAR_BITS, _EXTRA_BIT = 0x3FFF, 0x8000, 0x7F00, 14


def read_blocks(
    words: ArrayColumn, subsegments: Grid, span: int, padding: int, tag: int, out: RowWriter, soundness: Output
) -> int:
    """Writes a row for each block; returns the number of rows.

    `subsegments`: (n, 11), see the columns above. `span`: blocks of a group of the bitmap, or 0: see the module. `padding`:
    bytes in front of the user data. `tag`: bits of the tags of every row. `soundness`: (n,), gets COUNTS_AGREE |
    FREE_BITS_CLEAR | COUNTS_POSSIBLE of each subsegment.
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
            # a freed block begins with the number of the next one
            at = first + (number - 1) * size
            unused_bytes[row + number - 1], header8[row + number - 1], tags[row + number - 1] = 0, 0, tag
            number, links = (words[at >> 3] >> ((at & 7) * 8)) & 0xFFFF, links + 1
        agrees = (subsegments[k, FREE_COUNT] < 0 or subsegments[k, FREE_COUNT] == free) and links == freed
        soundness[k] = (
            (COUNTS_AGREE if agrees else 0) + (0 if stray else FREE_BITS_CLEAR) + (0 if over else COUNTS_POSSIBLE)
        )
        row += count
    return row
