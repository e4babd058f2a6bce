"""Looks at every entry of a window of an NT heap for what the chain of sizes does not show.

`words` holds the memory as signed 64-bit words, see `kernels.chain`; `limits`: (n, 4) of its stretches, start, stop and
end in granules, address of granule 0; `entries` … `heaps`: columns of the block table, ascending. Rows of other heaps, and
entries outside of the stretches, are passed over. What is wrong goes to `out`, (n, 4): row, what, first byte, bytes,
counted from the entry's address on. Rules: heap-structures.md §2.3 and §2.9.
"""

from __future__ import annotations

from typing import Any

SEGMENT, UNUSED, TAIL, FREE = range(1, 5)
"""What is wrong: the segment's number; unused bytes that contradict busy or free, or the size; the fill behind the
requested bytes; the fill of a free entry."""

FILL, _EXTRA, _LFH = 4, 2, 1
_TAIL_BYTE = 0xAB
_FREE_WORD = -0x0111011201110112  # FEEEFEEE twice, as a signed word
_GUARD = 0xFDFDFDFD
_MOST = 4096


def check_headers(
    words: Any, limits: Any, segments: Any, entries: Any, units: Any, spares: Any, leads: Any, tags: Any, heaps: Any, heap: int,
    old: int, key: int, stride: int, out: Any,
) -> tuple[int, int, int]:  # fmt: skip
    """Segment bytes, unused bytes, and which rows have more to look at. `old`: before Vista.

    `segments`: (n, 2) for each stretch: address of its segment, and 1 where the segment byte is 0; before Vista what that
    byte is, in place of the address, -1 unknown.

    Returns:
        (wrong things written; it stops when `out` is full, rows that have a fill, rows that may be the CRT's: whose data
        has a guard where its debug header ends).
    """
    count, room, granule, lead, filled, guarded, k = 0, len(out), 8 * stride, stride - 1, 0, 0, 0
    for row in range(len(entries)):
        if heaps[row] != heap or count + 2 > room:
            continue
        entry, tag = entries[row], tags[row]
        while k + 1 < len(limits) and entry >= limits[k + 1, 3] + limits[k + 1, 0] * granule:
            k += 1
        base = limits[k, 3]
        if not limits[k, 0] * granule <= entry - base < limits[k, 1] * granule:
            continue
        at, busy, internal = (entry - base) >> 3, tag >> 4 & 1, tag >> 5 & 1
        place = at + leads[row] + (5 if stride == 2 else 3)
        if busy and not internal and place < len(words) and words[place] >> 32 & 0xFFFFFFFF == _GUARD:
            guarded += 1
        if tag & 15 == _LFH:
            continue
        filled += tag >> 8 & FILL != 0
        word = words[at + lead] ^ key
        segment, unused = (word >> 56 & 0xFF, word >> 48 & 0xFF) if old else (word >> 48 & 0xFF, word >> 56 & 0xFF)
        number = segments[k, 0]
        if not old:
            number = 0 if segments[k, 1] else ((entry & ~0xFFFF) + 0x10000 - number) >> 16 & 0xFF
        if number >= 0 and segment != number:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, SEGMENT, 8 * lead + (7 if old else 6), 1
            count += 1
        wrong = busy and (spares[row] > units[row] * 8 or spares[row] < 8 * (leads[row] - lead))
        if (wrong or (not old and (unused & 0x3F != 0) != (busy != 0))) and not internal:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, UNUSED, 8 * lead + (6 if old else 7), 1
            count += 1
    return count, filled, guarded


def check_fills(
    words: Any, limits: Any, entries: Any, units: Any, spares: Any, leads: Any, tags: Any, heaps: Any, heap: int, stride: int,
    out: Any,
) -> int:  # fmt: skip
    """The fills of entries whose flags say that they have one. Pages that begin with 0 are decommitted: no change.

    Returns:
        how many wrong things were written; it stops when `out` is full.
    """
    count, room, granule, k = 0, len(out), 8 * stride, 0
    for row in range(len(entries)):
        flags, size, entry = tags[row] >> 8, units[row] * 8, entries[row]
        if heaps[row] != heap or count == room or not flags & FILL or tags[row] >> 5 & 1 or tags[row] & 15 == _LFH:
            continue
        while k + 1 < len(limits) and entry >= limits[k + 1, 3] + limits[k + 1, 0] * granule:
            k += 1
        base = limits[k, 3]
        if not limits[k, 0] * granule <= entry - base < limits[k, 1] * granule:
            continue
        low, high, what = 2 * granule, size - (4 if flags & _EXTRA else 0), FREE
        if tags[row] >> 4 & 1:  # on x64 the 8 bytes behind the entry belong to it, too
            low, what = size - spares[row] + leads[row] * 8, TAIL
            high = min(low + granule, size + 8 * (stride - 1))
        at, first, last, place = (entry - base) >> 3, -1, -1, low
        while place < high and (first < 0 or place - first < _MOST):
            value = words[at + (place >> 3)]
            if what == FREE and value == 0 and (entry + place) & 0xFFF == 0:
                place += 0x1000
                continue
            if what == FREE and place & 7 == 0 and place + 8 <= high and value == _FREE_WORD:
                place += 8
                continue
            expected = _TAIL_BYTE if what == TAIL else 0xFE if place & 1 else 0xEE
            if value >> (place & 7) * 8 & 0xFF != expected:
                first, last = place if first < 0 else first, place
            place += 1
        if first >= 0:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, what, first, last - first + 1
            count += 1
    return count
