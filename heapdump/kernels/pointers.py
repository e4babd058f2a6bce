"""Which words of memory point into which block.

Blocks are numbered 0 to n - 1 by ascending start. Their starts are bits: `cells[c]` has 32 of them in its lower half, one
for each granule of `1 << shift` bytes, and in its upper half how many blocks start before it, so that one look and a
count of bits give the last block that starts at or below an address. `tops[a >> 32]` leads to 65536 `middles`, one for
each 64 KiB; a middle is the number of its leaf of cells, -1 where no block is, or -2 - k where block k fills all of it.
"""

from __future__ import annotations

from typing import Any


def mark(start: Any, shift: int, cells: Any) -> None:
    """Sets the bits and counts of blocks that start at the addresses `start`, ascending.

    `cells` are zero, 65536 >> shift >> 5 for each 64 KiB in which a block starts.
    """
    leaf, page, filled, a_leaf = -1, -1, 0, 65536 >> shift >> 5
    for i in range(len(start)):
        address = start[i]
        if address >> 16 != page:
            page = address >> 16
            leaf += 1
        place = leaf * a_leaf + ((address & 0xFFFF) >> shift >> 5)
        while filled <= place:
            cells[filled] = i << 32
            filled += 1
        cells[place] |= 1 << ((address >> shift) & 31)
    while filled < len(cells):
        cells[filled] = len(start) << 32
        filled += 1


def sweep(
    words: Any, mask: int, width: int, phase: int, range_start: Any, range_end: Any, range_delta: Any, r: int,
    start: Any, size: Any, i: int, until: int, at: int, tops: Any, middles: Any, cells: Any, shift: int, low: int, high: int,
    block_start: Any, block_size: Any, degree: Any, targets: Any,
) -> tuple[int, int, int, int]:  # fmt: skip
    """Finds the pointers into blocks in the sources number `i` up to `until`, the first one from address `at` on.

    Sources have `start` and `size` in bytes, ascending. Words of `width` bytes are looked at whose address has the
    remainder `phase`; that at address a of range r is `words[(a + range_delta[r]) // width] & mask`. `targets` gets the
    block of each pointer, or -1 - block for one that does not point at its start; `degree[source]` is how many.

    Returns:
        (pointers found, source and address where `targets` was full, or `until` and 0; the range).
    """
    count, room, a_leaf, ranges = 0, len(targets), 65536 >> shift >> 5, len(range_start)
    while i < until:
        at, end = max(at, start[i]), start[i] + size[i]
        while r < ranges and range_end[r] <= at:
            r += 1
        s = r
        while s < ranges and range_start[s] < end:
            first = max(at, range_start[s])
            first += (phase - first) & (width - 1)
            begin = (first + range_delta[s]) // width
            for w in range(begin, begin + (min(end, range_end[s]) - first) // width):
                value = words[w] & mask
                if value < low or value >= high:
                    continue
                top = tops[value >> 32]
                if top < 0:
                    continue
                leaf = middles[(top << 16) + ((value >> 16) & 0xFFFF)]
                block = -2 - leaf
                if leaf >= 0:
                    cell = cells[leaf * a_leaf + ((value & 0xFFFF) >> shift >> 5)]
                    bits = cell & ((2 << ((value >> shift) & 31)) - 1)
                    bits = bits - ((bits >> 1) & 0x55555555)
                    bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
                    block = (cell >> 32) + ((((bits + (bits >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24) & 0xFF) - 1
                if block < 0 or value - block_start[block] >= block_size[block]:
                    continue
                if count == room:
                    return count, i, first + (w - begin) * width, r
                targets[count] = block if value == block_start[block] else -1 - block
                degree[i] += 1
                count += 1
            s += 1
        i, at = i + 1, 0
    return count, until, 0, r
