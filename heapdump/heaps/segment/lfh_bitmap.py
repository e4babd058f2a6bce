"""The bitmaps of LFH subsegments: bits that contradict each other, and bits that are not in the dump.

Each block has two bits, *busy* and *count* (docs/reference/heap-structures.md §6.5). In every recorded heap both are 0
for a free block. The last word of the bitmap also has bits behind those of the last block: their busy bits are 1; their
count bits are 1, but 0 on 26100.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.spans import Span


def has_recorded_tail(
    subsegments: LfhSubsegments, rows: NDArray[np.int64], count: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(n,) True for bitmaps whose bits behind the last block are as in recorded heaps, or not in the dump.

    `rows`: (n,) indices of the subsegments; `count`: (n,) their numbers of blocks.
    """
    walk, group = subsegments.walk, subsegments.group_bits
    word = walk.pointer_bytes
    last_word = (subsegments.start[rows] + subsegments.bitmap_end(count) - word).astype(np.uint64)
    value, is_present = walk.mapped.gather(last_word, word)
    used = (count % (4 * word)).astype(np.uint64)  # blocks with bits in the last word; 0: it has no bits behind them
    if not group:
        all_set = np.uint64((1 << 8 * word) - 1)
        fits = value >> (np.uint64(2) * used) == all_set >> (np.uint64(2) * used)
    else:
        busy_bits = np.uint64((1 << group) - 1)
        fits = ((value & busy_bits) >> used == busy_bits >> used) & (value >> (np.uint64(group) + used) == 0)
    recorded: NDArray[np.bool_] = fits | ~is_present | (used == 0)
    return recorded


def bitmap_damage(subsegments: LfhSubsegments, i: int, count: int) -> DamagedBytes:
    """The bytes with impossible bits in the bitmap of subsegment `i`; header and bitmap where only counts differ."""
    start, offset = int(subsegments.start[i]), subsegments.struct.offset("BlockBitmap")
    end = start + int(subsegments.bitmap_end(np.array([count]))[0])
    data = subsegments.walk.view.space.try_read(start + offset, end - start - offset)
    wrong = np.empty(0, np.int64) if data is None else _contradicting(subsegments, data, count)
    if not len(wrong):
        return DamagedBytes("lfh_subsegment", start, end - start, "one number of free blocks", "two")
    at = _byte_of(subsegments, wrong[[0, -1]])
    first, last = int(at[0]), int(at[1]) + subsegments.group_bits // 8
    expected = "both bits clear at free blocks, set behind the last"
    found = f"other bits at {len(wrong)} of them, from number {int(wrong[0])} on"
    return DamagedBytes("lfh_subsegment", start + offset + first, last + 1 - first, expected, found)


def _contradicting(subsegments: LfhSubsegments, bitmap: bytes, count: int) -> NDArray[np.int64]:
    """Numbers of blocks, and of places behind the last block, whose bits no recorded heap has; ascending."""
    is_busy, has_count = block_bits(subsegments, bitmap)
    contradicts = ~is_busy & has_count
    contradicts[count:] = ~is_busy[count:] | (has_count[count:] == (subsegments.group_bits > 0))
    return np.flatnonzero(contradicts)


def block_bits(subsegments: LfhSubsegments, bitmap: bytes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """((n,) busy bits, (n,) count bits) of every place of a bitmap. `bitmap`: whole words of the pointer size."""
    bits = np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little").astype(bool)
    pairs = bits.reshape(-1, 2, subsegments.group_bits or 1)
    return pairs[:, 0].reshape(-1), pairs[:, 1].reshape(-1)


def missing_bits(subsegments: LfhSubsegments, i: int, count: int, missing: Sequence[Span]) -> NDArray[np.bool_]:
    """(count,) True for blocks of subsegment `i` one of whose bits lies in a missing span."""
    bitmap = int(subsegments.start[i]) + subsegments.struct.offset("BlockBitmap")
    at = bitmap + _byte_of(subsegments, np.arange(count))
    is_missing = np.zeros(count, bool)
    for span in missing:
        is_missing |= (at < span.end) & (at + subsegments.group_bits // 8 >= span.start)
    return is_missing


def _byte_of(subsegments: LfhSubsegments, number: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) bytes from the bitmap to the byte with the busy bit of each block `number`."""
    group = subsegments.group_bits
    return (number // group * 2 * group + number % group) // 8 if group else number // 4
