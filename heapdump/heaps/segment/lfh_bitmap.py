"""The bitmaps of LFH subsegments: which of their bits cannot be, and which are not in the dump.

In every recorded heap a free block has neither bit set, and behind the last block the busy bits of the bitmap's last word
are set; the other bits there are set too, on 26100 not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.lfh_subsegments import Subsegments
from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class BitmapWound:
    """Bytes [address, address + length) some of which are wrong, and in words what should be there and what is."""

    address: int
    length: int
    expected: str
    found: str


def is_filled_behind(read: Subsegments, rows: NDArray[np.int64], count: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of these subsegments, of so many blocks each, have the usual bits behind those; (n,). True where not in the dump."""
    word = read.job.view.pointer_bytes
    last = (read.start[rows] + read.bits_end(count) - word).astype(np.uint64)
    value, there = read.job.view.space.mapped.gather(last, word)
    rest = (count % (4 * word)).astype(np.uint64)
    if not read.span:
        every = np.uint64((1 << 8 * word) - 1)
        fits = value >> (np.uint64(2) * rest) == every >> (np.uint64(2) * rest)
    else:
        half = np.uint64((1 << read.span) - 1)
        fits = ((value & half) >> rest == half >> rest) & (value >> (np.uint64(read.span) + rest) == 0)
    filled: NDArray[np.bool_] = fits | ~there | (rest == 0)
    return filled


def bitmap_wound(read: Subsegments, i: int, count: int) -> BitmapWound:
    """What is wrong with the bitmap of subsegment `i`; all of it and the header where only their counts differ."""
    start, place = int(read.start[i]), read.struct.offset("BlockBitmap")
    end = start + int(read.bits_end(np.array([count]))[0])
    data = read.job.view.space.try_read(start + place, end - start - place)
    if data is not None:
        bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").reshape(-1, 2, read.span or 1)
        busy, told = bits[:, 0].reshape(-1), bits[:, 1].reshape(-1)
        odd = (busy == 0) & (told == 1)
        odd[count:] = (busy[count:] == 0) | (told[count:] == (read.span > 0))
        slots = np.flatnonzero(odd)
        if len(slots):
            first, last = int(_byte_of(read, slots[:1])[0]), int(_byte_of(read, slots[-1:])[0]) + read.span // 8
            found = f"other bits at {len(slots)} of them, from number {int(slots[0])} on"
            return BitmapWound(
                start + place + first, last + 1 - first, "both bits clear at free blocks, set behind the last", found
            )
    return BitmapWound(start, end - start, "one number of free blocks", "two")


def lost_bits(read: Subsegments, i: int, count: int, missing: Sequence[Span]) -> NDArray[np.bool_]:
    """Which blocks of subsegment `i` have a bit in one of these spans; (count,)."""
    at = int(read.start[i]) + read.struct.offset("BlockBitmap") + _byte_of(read, np.arange(count))
    lost = np.zeros(count, bool)
    for span in missing:
        lost |= (at < span.end) & (at + read.span // 8 >= span.start)
    return lost


def _byte_of(read: Subsegments, slots: NDArray[np.int64]) -> NDArray[np.int64]:
    """Offset in the bitmap of the byte with the busy bit of each slot; the other bit lies `span` bits behind, or beside it."""
    if not read.span:
        return slots // 4
    return (slots // read.span * 2 * read.span + slots % read.span) // 8
