"""Follows the chains of chunks through variable-size (VS) subsegments of segment heaps.

Memory is an array of little-endian 64-bit words, as signed integers. A chunk is a whole number of granules: 8 bytes
each on x86, 16 on x64. Its header is its first granule (docs/reference/heap-structures.md §6.4):

    stride                  64-bit words in a granule: 1 on x86, 2 on x64
    sizes word of granule g = words[g * stride] ^ address of granule g ^ key

    bits of the sizes word    x64     x86
    size, granules            16-31   1-15
    previous size, granules   32-47   16-30
    busy, 0 or 1              48-63   31

    flag word, not encoded: the second word of the header on x64, bits 32-63 of the first word on x86
    bit 8   the last two bytes of the chunk hold a count

    bits of that count (u16)
    0-12   number of unused bytes behind the user data
    14     the heap's own data stand behind the user data
    15     exactly one byte is unused: bits 0-7 then belong to the user data, bits 8-14 are 0
"""

from __future__ import annotations

from typing import NamedTuple

from heapdump.kernels.arrays import ArrayColumn, Grid
from heapdump.kernels.row import BUSY, EXTRA, TRUST_DERIVED, TRUST_GUESS, UNIT, RowWriter

END, PREVIOUS, SIZE, FULL = range(4)
"""Why a walk stopped: END all chains were followed; PREVIOUS a header whose previous size is wrong; SIZE a header whose
size or busy bits are wrong; FULL no room for another row."""

_HAS_COUNT = 1 << 8
_COUNT_BITS, _ONE_BYTE, _CLEAR_BITS, _EXTRA_BIT = 0x1FFF, 0x8000, 0x7F00, 14


class ChunkCoding(NamedTuple):
    """Layout and encoding of the chunk headers of one heap; terms as in the module's docstring.

    Attributes:
        stride: 64-bit words in a granule.
        key: 64-bit key that sizes words are XORed with, besides their address; as a signed integer.
        padding: bytes between the header and the user data.
    """

    stride: int
    key: int
    padding: int


def follow_chunks(
    words: ArrayColumn, chains: Grid, k: int, at: int, previous: int, coding: ChunkCoding, tag: int, out: RowWriter
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Writes a row for each chunk, from granule `at` of chain `k` to the end of the last chain.

    `chains`: (n, 3) granule of the first chunk, granule behind the last chunk, address of granule 0. `previous`:
    granules of the chunk before the first; 0 where a chain begins, -1 where it is not known. `tag`: bits that the tags
    of every row have. Returns (rows written, index of the chain where it stopped, granule there, reason, granules of
    the last chunk).
    """
    stride, key, padding = coding
    entry, size8, unused_bytes, header8, tags = out.entry, out.size8, out.unused, out.header8, out.tags
    count, room, granule = 0, len(entry), UNIT * stride
    end, base = chains[k, 1], chains[k, 2]
    while True:
        while at >= end:
            if k + 1 == len(chains):
                return count, k, at, END, previous
            k, previous = k + 1, 0
            at, end, base = chains[k, 0], chains[k, 1], chains[k, 2]
        if count == room:
            return count, k, at, FULL, previous
        place = at * stride
        head = words[place] ^ (base + at * granule) ^ key
        if stride == 2:
            size, before, busy = (head >> 16) & 0xFFFF, (head >> 32) & 0xFFFF, (head >> 48) & 0xFFFF
            more = words[place + 1]
        else:
            size, before, busy = (head >> 1) & 0x7FFF, (head >> 16) & 0x7FFF, (head >> 31) & 1
            more = words[place] >> 32
        if before != previous and previous >= 0:
            return count, k, at, PREVIOUS, previous
        if size == 0 or at + size > end or busy > 1:
            return count, k, at, SIZE, previous
        unused, header, row_tag, room_in = granule, stride, tag, (size - 1) * granule
        if busy:
            mark = (words[place + size * stride - 1] >> 48) & 0xFFFF
            behind = 1 if mark & _ONE_BYTE else mark & _COUNT_BITS
            is_possible = behind > 0 and not (mark & _ONE_BYTE and mark & _CLEAR_BITS)
            row_tag |= BUSY
            if more & _HAS_COUNT:
                row_tag |= (mark >> _EXTRA_BIT & 1) * EXTRA
            else:
                # nothing confirms the flag: where the last bytes could be a count, the size is derived
                if is_possible and behind - (mark >> _EXTRA_BIT & 1) * 4 * granule < 2 * granule:
                    row_tag |= TRUST_DERIVED
                behind, is_possible = 0, True
            header += padding // UNIT
            unused += behind + padding
            is_possible = is_possible and behind + padding <= room_in and header * UNIT <= size * granule
            if not is_possible:
                unused, row_tag = min(size * granule, granule + padding), row_tag | TRUST_GUESS
                header = min(header, size * stride)
        entry[count] = base + at * granule
        size8[count] = size * stride
        unused_bytes[count] = unused
        header8[count] = header
        tags[count] = row_tag
        count, at, previous = count + 1, at + size, size
