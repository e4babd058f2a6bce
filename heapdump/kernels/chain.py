"""Follows the chain of heap entry headers through one run of memory, and the blocks of one LFH subsegment.

`words` holds the memory as signed 64-bit words. The header of granule g is `words[g * stride + lead]` (x64: stride 2,
lead 1; x86: stride 1, lead 0). A row of the output is a block: granule, granules it occupies, bytes of them that the
program did not ask for (`spare`, the header included), granules from entry to user data, and `tags` = flags byte |
unused-bytes byte << 8.

Formulas: heap-structures.md §2.3; what the recorded dumps taught is said where it applies.
"""

from __future__ import annotations

from typing import Any

END, RUN_END, CHECKSUM, PREVIOUS, SIZE, FULL = range(6)
"""Why a chain stopped: at the end of the span; behind the last entry of a committed run; at a header whose checksum,
previous size or size is wrong; or because the output arrays are full."""


def chain_modern(
    words: Any, at: int, end: int, stride: int, lead: int, key: int, mask: int, previous: int,
    out_at: Any, out_units: Any, out_spare: Any, out_lead: Any, out_tags: Any,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Vista and later: encoded headers with a checksum.

    `at`, `end`: granules, half-open. `key`: the encoding's 8 bytes; `mask`: EncodeFlagMask, 0 = not encoded.
    `previous`: granules of the entry before `at`, 0 at the start of a run.

    Returns:
        (rows, granule where it stopped, reason, granules of the last entry).
    """
    count, room, granule = 0, len(out_at), stride * 8
    while at < end:
        if count == room:
            return count, at, 5, previous
        word = words[at * stride + lead]
        if mask:
            if not word & mask:
                return count, at, 2, previous
            word ^= key
            if ((word >> 24) ^ (word >> 16) ^ (word >> 8) ^ word) & 0xFF:
                return count, at, 2, previous
        else:
            word ^= key & 0xFFFF_0000_0000
        if (word >> 32) & 0xFFFF != previous:
            return count, at, 3, previous
        size = word & 0xFFFF
        if size == 0 or at + size > end:
            return count, at, 4, previous
        unused = (word >> 56) & 0xFF
        low = unused & 0x3F
        spare, offset = low, 1
        if not word & 0x10000:
            spare = granule
        elif unused & 0x40:
            # a front prefix (allocation stacks): the second header, `low` granules on, has the whole unused count
            offset = 1 + low
            spare = granule * size
            if low < size:
                spare = (words[(at + low) * stride + lead] >> 32) & 0xFFFF
        elif low == 0x3F:
            # the count does not fit: x64 has it in the 8 bytes behind the entry, x86 in its last 4
            if stride == 2:
                spare = granule * size
                if (at + size) * 2 < len(words):
                    spare = words[(at + size) * 2]
            else:
                spare = (words[at + size - 1] >> 32) & 0xFFFFFFFF
        out_at[count] = at
        out_units[count] = size
        out_spare[count] = min(max(spare, 0), granule * size)
        out_lead[count] = offset
        out_tags[count] = (word >> 16) & 0xFF | unused << 8
        count += 1
        at += size
        previous = size
        if unused == 3:
            return count, at, 1, previous
    return count, at, 0, previous


def chain_old(
    words: Any, at: int, end: int, stride: int, lead: int, key: int, mask: int, previous: int,
    out_at: Any, out_units: Any, out_spare: Any, out_lead: Any, out_tags: Any,
) -> tuple[int, int, int, int]:  # fmt: skip
    """XP and Server 2003: plain headers, flag 0x10 on the last entry of a run. `key` and `mask` are not used.

    The bytes of a header: Size, PreviousSize (u16), SmallTagIndex, Flags, UnusedBytes, SegmentIndex (u8).
    """
    count, room, granule = 0, len(out_at), stride * 8
    while at < end:
        if count == room:
            return count, at, 5, previous
        word = words[at * stride + lead]
        if (word >> 16) & 0xFFFF != previous:
            return count, at, 3, previous
        size = word & 0xFFFF
        if size == 0 or at + size > end:
            return count, at, 4, previous
        unused = (word >> 48) & 0xFF
        spare = unused
        if not (word >> 40) & 1:
            spare = granule
        elif unused == 0xFF:
            spare = words[(at + size) * stride - 1]
            if stride == 1:
                spare = (spare >> 32) & 0xFFFFFFFF
        out_at[count] = at
        out_units[count] = size
        out_spare[count] = min(max(spare, 0), granule * size)
        out_lead[count] = 1
        out_tags[count] = (word >> 40) & 0xFF | unused << 8
        count += 1
        at += size
        previous = size
        if (word >> 40) & 0x10:
            return count, at, 1, previous
    return count, at, 0, previous


def slots_modern(
    words: Any, first: int, stride_units: int, blocks: int, stride: int, lead: int, key: int, width: int,
    code_shift: int, carrier: int, entry_shift: int, base: int, bitmap: Any,
    out_at: Any, out_units: Any, out_spare: Any, out_lead: Any, out_tags: Any,
) -> tuple[int, int]:  # fmt: skip
    """The blocks of one LFH subsegment, Vista and later.

    `first`, `carrier`: granules of block 0 and of the user area that holds it; `stride_units`: granules of a block.
    A header verifies when its low `width` bits (a mask; 0 = the key is not known) ^ entry address >> `entry_shift` ^
    `key` give the distance from the carrier << `code_shift` (8.1 and later), or 0 where `code_shift` is 0 (Vista, 7).
    `base`: address of granule 0; `bitmap`: one byte for each block (1 busy), or empty where this generation has none.
    Where bitmap and header disagree the bitmap counts.

    Returns:
        (rows, headers that verified).
    """
    granule = stride * 8
    good = count = 0
    for i in range(blocks):
        at = first + i * stride_units
        if (at + stride_units) * stride > len(words):
            break
        word = words[at * stride + lead]
        unused = (word >> 56) & 0xFF
        low = unused & 0x3F
        verified = unused & 0x80
        if width and verified:
            code = (word ^ ((base + at * granule) >> entry_shift) ^ key) & width
            expected = 0
            if code_shift:
                expected = (((at - carrier) * granule) << code_shift) & width
            verified = code == expected
        if verified:
            good += 1
        busy = bitmap[i] != 0 if len(bitmap) else low != 0 and (unused & 0x80) != 0
        spare, offset = low, 1
        if not busy or not verified:
            spare = granule  # of a damaged header only the place of its block is known
        elif unused & 0x40:
            offset = 1 + low
            spare = granule * stride_units
            if low < stride_units:
                spare = (words[(at + low) * stride + lead] >> 32) & 0xFFFF
        elif low == 0x3F:
            if stride == 2:
                spare = granule * stride_units
                if (at + stride_units) * 2 < len(words):
                    spare = words[(at + stride_units) * 2]
            else:
                spare = (words[at + stride_units - 1] >> 32) & 0xFFFFFFFF
        elif low == 0:
            spare = granule
        out_at[count] = at
        out_units[count] = stride_units
        out_spare[count] = min(max(spare, 0), granule * stride_units)
        out_lead[count] = offset
        out_tags[count] = (1 if busy else 0) | unused << 8 | (0 if verified else 0x10000)
        count += 1
    return count, good


def slots_old(
    words: Any, first: int, stride_units: int, blocks: int, stride: int, lead: int, key: int, width: int, base: int,
    entry_shift: int, out_at: Any, out_units: Any, out_spare: Any, out_lead: Any, out_tags: Any,
) -> tuple[int, int]:  # fmt: skip
    """The blocks of one LFH subsegment of XP or Server 2003: SegmentIndex 0xFF, flag 1 = busy.

    `key`: subsegment ^ heap ^ RtlpLFHKey, so that the `width` bits of code ^ entry >> shift ^ key are 0 in a good
    header (0 = the key is not known).
    """
    granule = stride * 8
    good = count = 0
    for i in range(blocks):
        at = first + i * stride_units
        if (at + stride_units) * stride > len(words):
            break
        word = words[at * stride + lead]
        code = (word ^ ((base + at * granule) >> entry_shift) ^ key) & width
        verified = code == 0 and (word >> 56) & 0xFF == 0xFF
        if verified:
            good += 1
        busy = (word >> 40) & 1
        unused = (word >> 48) & 0xFF
        spare = granule
        if busy and verified:
            spare = unused
            if unused == 0xFF:
                spare = words[(at + stride_units) * stride - 1]
                if stride == 1:
                    spare = (spare >> 32) & 0xFFFFFFFF
        out_at[count] = at
        out_units[count] = stride_units
        out_spare[count] = min(max(spare, 0), granule * stride_units)
        out_lead[count] = 1
        out_tags[count] = busy | unused << 8 | (0 if verified else 0x10000)
        count += 1
    return count, good
