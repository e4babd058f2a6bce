"""Finds the words of memory that point into blocks.

`sweep` collects all words between the lowest and the highest block, `resolve` those of them that lie in a block. The
blocks, and the arrays that find a block by an address, are those of `pointer_map`. A *source* is memory that is
searched for pointers: a block or a root.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


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
    values: ArrayColumn, sources: ArrayColumn, many: int, tops: ArrayColumn, middles: ArrayColumn, cells: ArrayColumn,
    shift: int, start: ArrayColumn, size: ArrayColumn, found: Output, degree: Output, targets: Output,
) -> int:  # fmt: skip
    """Finds the block that each of the first `many` values points into; values that point into none are left out.

    A loop of its own reads the cells: it is short enough for the processor to wait for many of them at once.

    Args:
        values: words below 2**47.
        sources: index of the source of each word.
        many: number of words.
        tops: see `pointer_map`.
        middles: see `pointer_map`.
        cells: see `pointer_map`.
        shift: see `pointer_map`.
        start: (n,) address of each block.
        size: (n,) bytes of each block; a block of 0 bytes holds its start address.
        found: (many,) gets the value of each pointer, in the order of `values`.
        degree: (sources,) 1 is added to `degree[source]` for each pointer.
        targets: (many,) gets the block k of each pointer to the start of a block, -1 - k for a pointer to its inside.

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
        if block < 0 or (not is_start and value - start[block] >= size[block]):
            if block < 0 or value != start[block]:
                continue
            is_start = True
        targets[count] = block if is_start else -1 - block
        found[count] = value  # count <= k: that cell has been read
        degree[sources[k]] += 1
        count += 1
    return count
