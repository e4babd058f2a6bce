"""The blocks of many LFH subsegments of segment heaps, from their bitmaps.

`words` holds memory as signed 64-bit words. Formulas: heap-structures.md §6.5; the newer bitmap as recorded on 26100.
"""

from __future__ import annotations

from typing import Any

BASE, START, BITS, FIRST, SIZE, COUNT, STATED, LIST, FREED = range(9)
"""Columns of a subsegment: address of byte 0 of the words; byte offsets of the subsegment and of its bitmap in them;
offset of its first block, bytes of each and how many; free blocks as it says, -1 where it keeps no count; number (from
1) of the first block on its list of freed ones, and how many are on it."""


def read_slots(
    words: Any, subsegments: Any, span: int, padding: int, tag: int,
    out_entry: Any, out_size8: Any, out_unused: Any, out_header8: Any, out_tags: Any, out_good: Any,
) -> int:  # fmt: skip
    """Writes a row for each block; to `out_good` 1 for each subsegment whose counts agree with its bitmap, else 0.

    And 2 more where no free block has its other bit set.

    `span`: blocks of each group of the bitmap, whose busy bits are followed by as many bits that say that the last two
    bytes of a block tell what is not used of it; 0: the two bits of each block stand together. `padding`: bytes in front
    of what the program got. Returns the number of rows.
    """
    row = 0
    for k in range(len(subsegments)):
        base, start, bits = subsegments[k, 0], subsegments[k, 1], subsegments[k, 2]
        size, count = subsegments[k, 4], subsegments[k, 5]
        first, units, free, odd = start + subsegments[k, 3], size // 8, 0, 0
        for i in range(count):
            busy_at = bits * 8 + (i // span * 2 * span + i % span if span else 2 * i)
            told_at = busy_at + (span if span else 1)
            out_entry[row + i] = base + first + i * size
            out_size8[row + i] = units
            if not (words[busy_at >> 6] >> (busy_at & 63)) & 1:
                free, odd = free + 1, odd | (words[told_at >> 6] >> (told_at & 63)) & 1
                out_unused[row + i], out_header8[row + i], out_tags[row + i] = 0, 0, tag
                continue
            unused, mark = 0, 0
            if (words[told_at >> 6] >> (told_at & 63)) & 1:
                last = first + (i + 1) * size - 2
                mark = (words[last >> 3] >> ((last & 7) * 8)) & 0xFFFF
                unused = 1 if mark & 0x8000 else mark & 0x3FFF
            row_tag, spare = tag | 0x10 | (mark & 0x4000) >> 5, unused + padding
            if spare > size:
                spare, row_tag = min(size, padding), row_tag | 0x80
            out_unused[row + i], out_header8[row + i], out_tags[row + i] = spare, min(padding, size) // 8, row_tag
        freed, number, links = subsegments[k, 8], subsegments[k, 7], 0
        while links < freed and 0 < number <= count and out_tags[row + number - 1] & 0x10:
            # a freed block begins with the number of the next one
            at = first + (number - 1) * size
            out_unused[row + number - 1], out_header8[row + number - 1], out_tags[row + number - 1] = 0, 0, tag
            number, links = (words[at >> 3] >> ((at & 7) * 8)) & 0xFFFF, links + 1
        agrees = (subsegments[k, 6] < 0 or subsegments[k, 6] == free) and links == freed
        out_good[k] = (1 if agrees else 0) + (2 if odd == 0 else 0)
        row += count
    return row
