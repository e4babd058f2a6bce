"""Follows the chains of chunks through variable-size subsegments of segment heaps.

`words` holds memory as signed 64-bit words; a granule is two of them on x64 (`wide` 1), one on x86 (`wide` 0). The
header of a chunk is its first granule: sizes, XORed with its address and a key, and a flag word. Formulas:
heap-structures.md §6.4.
"""

from __future__ import annotations

from typing import Any

END, PREVIOUS, SIZE, FULL = range(4)
"""Why a walk stopped: every chain reached its end; a header whose previous size, or whose size or busy byte, is wrong;
or the output arrays are full."""


def follow_chunks(
    words: Any, chains: Any, k: int, at: int, previous: int, wide: int, key: int, padding: int, tag: int,
    out_entry: Any, out_size8: Any, out_unused: Any, out_header8: Any, out_tags: Any,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Writes a row for each chunk of the chains from number `k` on.

    `chains`: (n, 3) granule of the first chunk, granule behind the last, address of granule 0; the walk begins at
    granule `at` of number `k`. `previous`: granules of the chunk before, 0 at the first, -1 where not known. `padding`:
    bytes in front of what the program got. `tag`: what all rows' tags have in common.

    Returns:
        (rows, number of the chain and granule where it stopped, reason, granules of the last chunk).
    """
    count, room, stride = 0, len(out_entry), wide + 1
    granule = 8 * stride
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
        if wide:
            size, before, busy, more = (
                (head >> 16) & 0xFFFF,
                (head >> 32) & 0xFFFF,
                (head >> 48) & 0xFFFF,
                words[place + 1],
            )
        else:
            size, before, busy, more = (head >> 1) & 0x7FFF, (head >> 16) & 0x7FFF, (head >> 31) & 1, words[place] >> 32
        if before != previous and previous >= 0:
            return count, k, at, PREVIOUS, previous
        if size == 0 or at + size > end or busy > 1:
            return count, k, at, SIZE, previous
        spare, lead, row_tag, room_in = granule, stride, tag, (size - 1) * granule
        if busy:
            unused, mark = 0, 0
            if (more >> 8) & 1:
                # how many bytes the program did not ask for stands in the chunk's last two bytes; the top bit alone: one
                mark = (words[place + size * stride - 1] >> 48) & 0xFFFF
                unused = 1 if mark & 0x8000 else mark & 0x1FFF
            row_tag |= 0x10 | (mark & 0x4000) >> 5
            lead += padding // 8
            spare += unused + padding
            if unused + padding > room_in or lead * 8 > size * granule:
                spare, row_tag = min(size * granule, granule + padding), row_tag | 0x80
                lead = min(lead, size * stride)
        out_entry[count] = base + at * granule
        out_size8[count] = size * stride
        out_unused[count] = spare
        out_header8[count] = lead
        out_tags[count] = row_tag
        count, at, previous = count + 1, at + size, size
