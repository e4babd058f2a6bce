"""Looks at every entry of a stretch of an NT heap for what the chain of sizes does not show.

`words` holds the memory as signed 64-bit words, see `kernels.chain`. Rules: heap-structures.md §2.3 and §2.9.
"""

from __future__ import annotations

from typing import Any

SEGMENT, UNUSED, TAIL, FREE = range(1, 5)
"""What is wrong: the segment's number; unused bytes that contradict busy or free, or the size; the fill behind the
requested bytes; the fill of a free entry."""

_TAIL_BYTE = 0xAB
_FREE_WORD = -0x0111011201110112  # FEEEFEEE twice, as a signed word
_FILL, _EXTRA = 4, 2


def check_entries(
    words: Any, base: int, entries: Any, units: Any, spares: Any, leads: Any, tags: Any, offsets: Any, old: int, key: int,
    stride: int, lead: int, pointer: int, out: Any,
) -> int:  # fmt: skip
    """Writes (row, what, first byte, bytes) of each wrong thing to `out`, (n, 4), bytes from the entry's address on.

    `base` = address of word 0; `entries` … `tags`: columns of the block table; `offsets`: what the segment byte of each
    entry's header must be, -1 unknown; `old`: before Vista. Decommitted pages read as 0 and are no change of a fill.

    Returns:
        how many; it stops when `out` is full.
    """
    count, room, granule = 0, len(out), 8 * stride
    for row in range(len(entries)):
        if count + 3 > room:
            break
        at = (entries[row] - base) >> 3
        size = units[row] * 8
        word = words[at + lead] ^ key
        busy, filled = tags[row] >> 4 & 1, tags[row] >> 8 & _FILL
        internal = tags[row] >> 5 & 1
        if old:
            segment, unused = word >> 56 & 0xFF, word >> 48 & 0xFF
        else:
            segment, unused = word >> 48 & 0xFF, word >> 56 & 0xFF
        if offsets[row] >= 0 and segment != offsets[row]:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, SEGMENT, 8 * lead + (7 if old else 6), 1
            count += 1
        wrong = busy and (spares[row] > size or spares[row] < 8 * (leads[row] - lead))
        if not old:
            wrong = wrong or (unused & 0x3F != 0) != (busy != 0)
        if wrong and not internal:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, UNUSED, 8 * lead + (6 if old else 7), 1
            count += 1
        if not filled or internal:
            continue
        if busy:
            low = size - spares[row] + leads[row] * 8
            high, what = low + granule, TAIL
            if high > size + 8 * lead:  # on x64 the last 8 bytes belong to the next entry's header
                high = size + 8 * lead
        else:
            low, high, what = granule + 2 * pointer, size, FREE
            if tags[row] >> 8 & _EXTRA:
                high -= 4
        first = last = -1
        place = low
        while place < high:
            value = words[at + (place >> 3)]
            if what == FREE and place & 7 == 0 and place + 8 <= high and (value == _FREE_WORD or value == 0):
                place += 8
                continue
            byte = value >> (place & 7) * 8 & 0xFF
            expected = _TAIL_BYTE if what == TAIL else (0xEE if place & 1 == 0 else 0xFE)
            if byte != expected and not (what == FREE and value == 0):
                if first < 0:
                    first = place
                last = place
                if place - first > 4096:
                    break
            place += 1
        if first >= 0:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, what, first, last - first + 1
            count += 1
    return count
