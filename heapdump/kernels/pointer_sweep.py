"""Finds the words of memory that point into blocks.

`sweep` collects all words between the lowest and the highest block, `resolve` those of them that a block may hold,
`keep` those that lie in it. The blocks, and the arrays that find a block by an address, are those of `pointer_map`. A
*source* is memory that is searched for pointers: a block or a root.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader


def sweep(
    words: ArrayColumn, mask: int, width: int, phase: int, range_start: ArrayColumn, range_end: ArrayColumn,
    range_delta: ArrayColumn, r: int, start: ArrayColumn, size: ArrayColumn, i: int, until: int, at: int,
    low: int, bits: int, values: Output, sources: Output,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Writes each word w of the sources [i, until) with low <= w < low + 2**bits.

    Args:
        words: the file as signed words of `width` bytes.
        mask: the bits of a word: -1, or 0xFFFFFFFF for words of 4 bytes.
        width: bytes of a pointer, 4 or 8.
        phase: words are read at addresses a with a % width == phase.
        range_start: (m,) first address of each memory range, ascending.
        range_end: (m,) address behind each range.
        range_delta: (m,) the word at address a of range r is `words[(a + range_delta[r]) // width] & mask`.
        r: index of the first range that may hold bytes of source `i`.
        start: (n,) address of each source, ascending.
        size: (n,) bytes of each source.
        i: index of the first source.
        until: index behind the last source.
        at: address to begin with in source `i`; any address at or below its start for all of it.
        low: the lowest address in a block.
        bits: see above.
        values: (room,) gets the words.
        sources: (room,) gets the index of the source of each word.

    Returns:
        (words written, source to go on with, address to go on with, index of its first range, bytes of the dump in
        sources that were read to their ends). Source and address are `until` and 0 when all was read, less where
        `values` is full.
    """
    swept, by, count, room, ranges = 0, 3 if width == 8 else 2, 0, len(values), len(range_start)
    while i < until:
        at, end = max(at, start[i]), start[i] + size[i]
        while r < ranges and range_end[r] <= at:
            r += 1
        s = r
        while s < ranges and range_start[s] < end:
            first = max(at, range_start[s])
            first += (phase - first) & (width - 1)
            begin = (first + range_delta[s]) >> by
            for w in range(begin, begin + ((min(end, range_end[s]) - first) >> by)):
                value = words[w] & mask
                if (value - low) >> bits != 0:
                    continue
                if count == room:
                    return count, i, first + (w - begin) * width, r, swept
                values[count], sources[count] = value, i
                count += 1
            swept += min(end, range_end[s]) - max(start[i], range_start[s])
            s += 1
        i, at = i + 1, 0
    return count, until, 0, r, swept


def resolve(
    values: ArrayColumn, sources: Output, many: int, tops: ArrayColumn, middles: ArrayColumn, cells: ArrayColumn,
    shift: int, found: Output, targets: Output,
) -> int:  # fmt: skip
    """Finds the last block at or below each of the first `many` values; values that no block can hold are left out.

    A loop of its own reads the cells: it is short enough for the processor to wait for many of them at once.

    Args:
        values: words below 2**47.
        sources: index of the source of each word; gets that of each pointer.
        many: number of words.
        tops: see `pointer_map`.
        middles: see `pointer_map`.
        cells: see `pointer_map`.
        shift: see `pointer_map`.
        found: (many,) gets the value of each pointer, in the order of `values`.
        targets: (many,) gets the block k of each pointer to the start of a block, -1 - k for another value, which may
            lie behind the block (`keep`).

    Returns:
        The number of pointers.
    """
    count, leaf_cells = 0, 65536 >> shift >> 5
    for k in range(many):
        value = values[k]
        top, leaf = tops[value >> 32], -1
        if top >= 0:
            leaf = middles[(top << 16) + ((value >> 16) & 0xFFFF)]
        found[k] = leaf if leaf < 0 else cells[leaf * leaf_cells + ((value & 0xFFFF) >> shift >> 5)]
    for k in range(many):
        value, cell = values[k], found[k]
        block, is_start = -2 - cell, False
        if cell >= 0:
            bit = (value >> shift) & 31
            is_start = (cell >> bit) & 1 == 1 and value & ((1 << shift) - 1) == 0  # no other look into memory
            bits = cell & ((2 << bit) - 1)
            bits = bits - ((bits >> 1) & 0x55555555)
            bits = (bits & 0x33333333) + ((bits >> 2) & 0x33333333)
            block = (cell >> 32) + ((((bits + (bits >> 4)) & 0x0F0F0F0F) * 0x01010101 >> 24) & 0xFF) - 1
        if block < 0:
            continue
        targets[count] = block if is_start else -1 - block
        found[count], sources[count] = value, sources[k]  # count <= k: that cell has been read
        count += 1
    return count


def keep(
    start: ArrayColumn, size: ArrayColumn, values: Output, sources: ArrayColumn, many: int, degree: Output,
    targets: Output,
) -> int:  # fmt: skip
    """Leaves out values behind the block that `resolve` found.

    Args:
        start: (n,) address of each block.
        size: (n,) bytes of each block.
        values: the value of each pointer, as `resolve` writes it.
        sources: the source of each pointer, likewise.
        many: number of pointers.
        degree: (sources,) 1 is added to `degree[source]` for each pointer that is left.
        targets: the target of each pointer, as `resolve` writes it.

    Returns:
        The number of pointers that are left, in `values` and `targets`.
    """
    count = 0
    for k in range(many):
        target, value = targets[k], values[k]
        if target < 0 and value - start[-1 - target] >= size[-1 - target]:
            continue
        targets[count], values[count] = target, value
        degree[sources[k]] += 1
        count += 1
    return count


def keep_rows(
    rows: RowReader, numbers: ArrayColumn, values: Output, sources: ArrayColumn, many: int, degree: Output,
    targets: Output,
) -> int:  # fmt: skip
    """`keep` for the blocks of the rows `numbers`: no value lies behind the start of the block after its own."""
    entry, header8, size8, unused = rows.entry, rows.header8, rows.size8, rows.unused
    count = 0
    for k in range(many):
        target, value = targets[k], values[k]
        if target < 0:
            row = numbers[-1 - target]
            address, length = int(entry[row]) + int(header8[row]) * UNIT, int(size8[row]) * UNIT - int(unused[row])
            if value - address >= length:
                continue
        targets[count], values[count] = target, value
        degree[sources[k]] += 1
        count += 1
    return count
