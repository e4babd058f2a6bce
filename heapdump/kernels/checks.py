"""Looks at every entry of a stretch of an NT heap for what the chain of sizes does not show.

`words` holds the memory as signed 64-bit words, see `kernels.chain`; `base` = address of word 0; `entries` … `tags`:
columns of the block table. Rules: heap-structures.md §2.3 and §2.9. What is wrong goes to `out`, (n, 4): row, what, first
byte, bytes, counted from the entry's address on.
"""

from __future__ import annotations

from typing import Any

SEGMENT, UNUSED, TAIL, FREE = range(1, 5)
"""What is wrong: the segment's number; unused bytes that contradict busy or free, or the size; the fill behind the
requested bytes; the fill of a free entry."""

FILL, _EXTRA = 4, 2
_TAIL_BYTE = 0xAB
_FREE_WORD = -0x0111011201110112  # FEEEFEEE twice, as a signed word
_MOST = 4096


def check_headers(
    words: Any, base: int, entries: Any, units: Any, spares: Any, leads: Any, tags: Any, offsets: Any, old: int, key: int,
    lead: int, out: Any,
) -> int:  # fmt: skip
    """`offsets`: what the segment byte of each entry's header must be, -1 unknown; `old`: before Vista.

    Returns:
        how many wrong things were written; it stops when `out` is full.
    """
    count, room = 0, len(out)
    for row in range(len(entries)):
        if count + 2 > room:
            break
        word = words[((entries[row] - base) >> 3) + lead] ^ key
        busy, internal = tags[row] >> 4 & 1, tags[row] >> 5 & 1
        if old:
            segment, unused = word >> 56 & 0xFF, word >> 48 & 0xFF
        else:
            segment, unused = word >> 48 & 0xFF, word >> 56 & 0xFF
        if offsets[row] >= 0 and segment != offsets[row]:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, SEGMENT, 8 * lead + (7 if old else 6), 1
            count += 1
        wrong = busy and (spares[row] > units[row] * 8 or spares[row] < 8 * (leads[row] - lead))
        if not old:
            wrong = wrong or (unused & 0x3F != 0) != (busy != 0)
        if wrong and not internal:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, UNUSED, 8 * lead + (6 if old else 7), 1
            count += 1
    return count


def check_fills(
    words: Any, base: int, entries: Any, units: Any, spares: Any, leads: Any, tags: Any, stride: int, lead: int, out: Any
) -> int:
    """The fills of entries whose flags say that they have one. Pages that begin with 0 are decommitted, which is no change.

    Returns:
        how many wrong things were written; it stops when `out` is full.
    """
    count, room, granule = 0, len(out), 8 * stride
    for row in range(len(entries)):
        flags, size = tags[row] >> 8, units[row] * 8
        if count == room or not flags & FILL or tags[row] >> 5 & 1:
            continue
        if tags[row] >> 4 & 1:
            low, what = size - spares[row] + leads[row] * 8, TAIL
            high = min(low + granule, size + 8 * lead)  # on x64 the last 8 bytes are those of the next entry's header
        else:
            low, high, what = 2 * granule, size - (4 if flags & _EXTRA else 0), FREE
        at, first, last, place = (entries[row] - base) >> 3, -1, -1, low
        while place < high and (first < 0 or place - first < _MOST):
            value = words[at + (place >> 3)]
            if what == FREE and value == 0 and (entries[row] + place) & 0xFFF == 0:
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
