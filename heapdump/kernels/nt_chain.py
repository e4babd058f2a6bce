"""Follows the chain of heap entry headers through memory.

`words` holds the memory as signed 64-bit words. The header of granule g is `words[g * stride + lead]` (x64: stride 2,
lead 1; x86: stride 1, lead 0). Formulas: heap-structures.md §2.3.

Decision: two ways to walk a chain. `follow` only finds the headers and leaves the rest to array arithmetic
(`heaps.nt_entry`): uncompiled 3 M blocks/s, where a loop that does everything makes 0.6. `chain_modern` does
everything in one pass for big heaps: compiled 50 M blocks/s against 20 of the first way. A test holds them equal.
"""

from __future__ import annotations

from typing import Any

END, RUN_END, CHECKSUM, PREVIOUS, SIZE, FULL = range(6)
"""Why a chain stopped: at the end of the span; behind the last entry of a committed run; at a header whose checksum,
previous size or size is wrong; or because the output arrays are full."""


def follow(words: Any, at: int, stop: int, end: int, stride: int, lead: int, key: int, out: Any) -> tuple[int, int]:
    """Writes the granules of the headers in [at, stop) to `out`; a size of 0 or one that reaches over `end` ends it.

    Returns:
        (headers found, granule where it stopped).
    """
    count, room = 0, len(out)
    while at < stop and count < room:
        size = (words[at * stride + lead] ^ key) & 0xFFFF
        if size == 0 or at + size > end:
            break
        out[count] = at
        count += 1
        at += size
    return count, at


def chain_modern(
    words: Any, stretches: Any, k: int, until: int, at: int, stride: int, lead: int, key: int, mask: int, previous: int,
    tag: int, out_entry: Any, out_size8: Any, out_unused: Any, out_header8: Any, out_tags: Any,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Vista and later: encoded headers with a checksum, as rows of the block table.

    `stretches`: (n, 4) granules start, stop, end and address of granule 0; the walk begins at granule `at` of number
    `k` and goes on to those below `until`. Entries that start in [start, stop) are walked, none may reach over end.
    `key`: what headers are XORed with; `mask`: EncodeFlagMask, 0 = headers are plain. `previous`: granules of the
    entry before `at`, 0 at the start of a run. `tag`: what every row's tags have in common.

    Returns:
        (rows, number of the stretch and granule where it stopped, reason, granules of the last entry).
    """
    count, room, granule = 0, len(out_entry), stride * 8
    stop, end, base = stretches[k, 1], stretches[k, 2], stretches[k, 3]
    while True:
        while at >= stop:
            if k + 1 == until:
                return count, k, at, END, previous
            k, previous = k + 1, 0
            at, stop, end, base = stretches[k, 0], stretches[k, 1], stretches[k, 2], stretches[k, 3]
        if count == room:
            return count, k, at, FULL, previous
        raw = words[at * stride + lead]
        word = raw ^ key
        if mask and (not raw & mask or ((word >> 24) ^ (word >> 16) ^ (word >> 8) ^ word) & 0xFF):
            return count, k, at, CHECKSUM, previous
        if (word >> 32) & 0xFFFF != previous:
            return count, k, at, PREVIOUS, previous
        size = word & 0xFFFF
        if size == 0 or at + size > end:
            return count, k, at, SIZE, previous
        unused = (word >> 56) & 0xFF
        busy = (word >> 16) & 1
        spare, offset = unused & 0x3F, 1
        if busy == 0:
            spare = granule
        elif unused & 0x40:
            # a front prefix (allocation stacks): the second header, `low` granules on, has the whole unused count
            offset = 1 + spare
            spare = (words[(at + spare) * stride + lead] >> 32) & 0xFFFF if spare < size else granule * size
        elif spare == 0x3F:
            # the count does not fit: x64 has it in the 8 bytes behind the entry, x86 in its last 4
            spare = granule * size
            if stride == 1:
                spare = (words[at + size - 1] >> 32) & 0xFFFFFFFF
            elif (at + size) * 2 < len(words):
                spare = words[(at + size) * 2]
        internal = busy & ((word >> 19) & 1 | (unused == 1) | (unused == 3))
        out_entry[count] = base + at * granule
        out_size8[count] = size * stride
        out_unused[count] = min(max(spare, 0), granule * size)
        out_header8[count] = offset * stride
        out_tags[count] = tag | busy << 4 | internal << 5 | (word >> 8) & 0xFF00
        count, at, previous = count + 1, at + size, size
        if unused == 3 and at != end:
            return count, k, at, RUN_END, previous
