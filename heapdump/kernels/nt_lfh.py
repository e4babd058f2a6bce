"""The blocks of many LFH subsegments of an NT heap whose members all agree, each row behind that of its user blocks.

Memory, stride and word_index are those of `nt_chain`. Block i of a subsegment lies at

    entry = user blocks + first + i * size

and its header word, which is not encoded as those of the back end are, has in Vista and later
(docs/reference/heap-structures.md §3.3)

    bits below `mask`   code: code ^ entry >> shift ^ (entry - user blocks) << distance_shift == constant
    40-55               i, where `has_index`
    56-63               0x80 the LFH's; 0x3F 0 for a free block; else UnusedBytes as in `nt_chain`

The word with UnusedBytes 0x3F, or with a front prefix, says where the number of unused bytes is. A subsegment where one
header, one bit of the bitmap or the number of free blocks says otherwise gets no rows here.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY, UNIT, RowWriter

ROW, BASE, USER, FIRST, SIZE, COUNT, FREE, CONSTANT = range(8)
"""Columns of a subsegment: number of the row of its user blocks; address of byte 0 of the words; address of the user blocks;
bytes from there to block 0; bytes of a block; number of blocks; number of free blocks that it counts; see the module."""

_PREFIX_BIT, _LOW_BITS, _TOO_LARGE, _SECOND_SIGNATURE = 0x40, 0x3F, 0x3F, 0x0500


class LfhCoding(NamedTuple):
    """How block headers of one heap are laid out and encoded: integers, see the module.

    Attributes:
        stride: 64-bit words in a granule.
        word_index: index of the header word among the words of its granule.
        mask: the bits of the header word that are its code.
        shift: of the entry.
        distance_shift: of the distance to the user blocks; 0 where the code has none.
        has_index: 1 where the header word has the number of the block, else 0.
        bitmap: bytes from the user blocks to the bitmap of busy blocks; 0 where there is none.
    """

    stride: int
    word_index: int
    mask: int
    shift: int
    distance_shift: int
    has_index: int
    bitmap: int


def add_blocks(
    words: ArrayColumn, rows: RowWriter, subsegments: Grid, coding: LfhCoding, tag: int, out: RowWriter, is_added: Output
) -> int:  # fmt: skip
    """Writes the back end's `rows` to `out`, and behind that of each user blocks their blocks; the number of rows written.

    `subsegments`: (n, 8), ascending by ROW, see the columns above. `tag`: bits that the tags of all blocks have. `is_added`:
    (n,), 1 for each subsegment whose blocks were written, else 0. `out` has room for all rows and blocks.
    """
    stride, word_index, mask, shift, distance_shift, has_index, bitmap = coding
    entry, size8, unused_bytes, header8, tags = out.entry, out.size8, out.unused, out.header8, out.tags
    granule, row, taken, blocks = stride * UNIT, 0, 0, len(subsegments)
    for k in range(blocks + 1):
        while taken < (subsegments[k, ROW] + 1 if k < blocks else len(rows.entry)):
            entry[row], size8[row], unused_bytes[row] = rows.entry[taken], rows.size8[taken], rows.unused[taken]
            header8[row], tags[row] = rows.header8[taken], rows.tags[taken]
            row, taken = row + 1, taken + 1
        if k == blocks:
            break
        base, user, size, count = (
            subsegments[k, BASE],
            subsegments[k, USER],
            subsegments[k, SIZE],
            subsegments[k, COUNT],
        )
        first, constant, granules = user + subsegments[k, FIRST], subsegments[k, CONSTANT], size // granule
        at, bits, free, i = (first - base) // UNIT, (user + bitmap - base) * 8, 0, 0
        while i < count:
            address, word = first + i * size, words[at + word_index]
            code = word ^ address >> shift
            if distance_shift:
                code ^= address - user << distance_shift
            low = (word >> 56) & _LOW_BITS
            if word >= 0 or code & mask != constant or (has_index and (word >> 40) & 0xFFFF != i):
                break
            if bitmap and (words[(bits + i) >> 6] >> ((bits + i) & 63)) & 1 != (low != 0):
                break
            unused, header = low if low else granule, 1
            free += low == 0
            if low and ((word >> 56) & _PREFIX_BIT or low == _TOO_LARGE):
                if (word >> 56) & _PREFIX_BIT:  # allocation stacks: see `nt_chain`
                    header, unused = 1 + low, -1
                    second = words[at + low * stride + word_index] if low < granules else 0
                    if (second >> 48) & 0xFFFF == low | _SECOND_SIGNATURE:
                        unused = (second >> 32) & 0xFFFF
                elif stride == 1:  # x86 has the number in the last 4 bytes, x64 in the 8 bytes behind the block
                    unused = (words[at + granules - 1] >> 32) & 0xFFFFFFFF
                else:
                    unused = words[at + granules * 2] if at + granules * 2 < len(words) else -1
                if not granule * header - UNIT * word_index <= unused <= size:
                    break
            entry[row + i], size8[row + i], unused_bytes[row + i] = address, size // UNIT, min(unused, size)
            header8[row + i], tags[row + i] = header * stride, tag | BUSY if low else tag
            i, at = i + 1, at + granules * stride
        is_added[k] = i == count and free == subsegments[k, FREE]
        row += count if is_added[k] else 0
    return row
