"""The blocks of LFH subsegments of an NT heap whose members all agree (Vista and later).

Memory, stride and word_index are those of `nt_chain`. Block i of a subsegment begins at

    entry = user blocks + first + i * size

Its header word has an encoding of its own (docs/reference/heap-structures.md §3.3):

    bits of `mask`   code: code ^ (entry >> shift) ^ ((entry - user blocks) << distance_shift) == constant;
                     without the last term where distance_shift is 0
    bits 40-55       i, where `has_index` is 1
    bits 56-63       UnusedBytes: bit 0x80 is set; bits 0x3F are 0 for a free block; other codes as in `nt_chain`

A subsegment in which one header, one bit of the bitmap or the number of free blocks disagrees gets no rows here.
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY, UNIT, RowWriter

ROW, BASE, USER, FIRST, SIZE, COUNT, FREE, CONSTANT = range(8)
"""Columns of a subsegment record:

    ROW        index in `rows` of the row of its user blocks
    BASE       address of byte 0 of the words
    USER       address of the user blocks
    FIRST      bytes from the user blocks to block 0
    SIZE       bytes of a block
    COUNT      number of blocks
    FREE       number of free blocks by the subsegment's counter
    CONSTANT   see the module
"""

_PREFIX_BIT, _LOW_BITS, _TOO_LARGE, _SECOND_SIGNATURE = 0x40, 0x3F, 0x3F, 0x0500


class NtLfhCoding(NamedTuple):
    """Layout and encoding of the block headers of one heap; terms as in the module's docstring.

    Attributes:
        stride: 64-bit words in a granule.
        word_index: index of the header word among the words of its granule.
        mask: the bits of the header word that are its code.
        shift: bits by which the entry is shifted right.
        distance_shift: bits by which the distance to the user blocks is shifted left; 0 where the code has no distance.
        has_index: 1 where the header word holds the number of the block, else 0.
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
    words: ArrayColumn, rows: RowWriter, subsegments: Grid, coding: NtLfhCoding, tag: int, out: RowWriter,
    is_added: Output,
) -> int:  # fmt: skip
    """Copies the `rows` of the back end to `out`, and behind each row of user blocks adds the rows of their blocks.

    `subsegments`: (n, 8), ascending by ROW; see ROW … CONSTANT. `tag`: bits that the tags of all blocks have. `out`:
    has room for all rows and blocks. `is_added`: (n,) gets 1 for each subsegment whose blocks were added, else 0.
    Returns the number of rows in `out`.
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
                elif stride == 1:  # x86: the number is in the last 4 bytes of the block; x64: in the 8 bytes behind it
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
