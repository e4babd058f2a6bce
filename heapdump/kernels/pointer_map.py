"""Which words of memory point into which block.

Blocks are numbered 0 to n - 1 by ascending start. Their starts are bits: `cells[c]` has 32 of them in its lower half, one
for each granule of `1 << shift` bytes, and in its upper half how many blocks start before it, so that one look and a
count of bits give the last block that starts at or below an address. `tops[a >> 32]` leads to 65536 `middles`, one for
each 64 KiB; a middle is the number of its leaf of cells, -1 where no block is, or -2 - k where block k fills all of it.
"""

from __future__ import annotations

from typing import Any


def take(
    entry: Any,
    units: Any,
    spare: Any,
    lead: Any,
    tags: Any,
    mask: int,
    wanted: int,
    top: int,
    rows: Any,
    start: Any,
    size: Any,
) -> int:
    """The rows of a block table whose `tags & mask` is `wanted`, with the address and the requested bytes of each.

    A block that reaches into the next one ends there, one that starts where the last one does is left out, and so is one
    beyond `top`.

    Returns:
        How many there are; -1 where one starts before the last one.
    """
    count, last, end = 0, 0, 0
    for i in range(len(entry)):
        if tags[i] & mask != wanted:
            continue
        address, length = int(entry[i]) + int(lead[i]) * 8, int(units[i]) * 8 - int(spare[i])
        if address <= 0 or length < 0 or address >= top or length >= top - address:
            continue
        if address <= last:
            if address < last:
                return -1
            continue
        if end > address:
            size[count - 1] = address - last
        rows[count], start[count], size[count] = i, address, length
        last, end = address, address + length
        count += 1
    return count


def thin(rows: Any, heap: Any, most: int, counts: Any, due: Any, out: Any) -> int:
    """Writes to `out` every so manieth place of `rows` of each heap, about `most` of them, or all where there are not more.

    `counts`, `due`: zeros, one for each heap; `counts` becomes how many rows each has.

    Returns:
        How many places there are in `out`.
    """
    many = 0
    for i in range(len(rows)):
        counts[heap[rows[i]]] += 1
    for i in range(len(rows)):
        owner = heap[rows[i]]
        if due[owner] == 0:
            out[many] = i
            many += 1
            due[owner] = max(1, counts[owner] // most)
        due[owner] -= 1
    return many


def pages(start: Any, size: Any, leaves: Any, long: Any) -> tuple[int, int]:
    """Writes the 64 KiB pages in which blocks start to `leaves`, and the blocks that reach into another one to `long`.

    Returns:
        How many of each.
    """
    count, reach, last = 0, 0, -1
    for i in range(len(start)):
        page = start[i] >> 16
        if page != last:
            leaves[count], last = page, page
            count += 1
        if (start[i] + size[i] - 1) >> 16 > page:
            long[reach] = i
            reach += 1
    return count, reach


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
    start: Any, size: Any, i: int, until: int, at: int, low: int, bits: int, values: Any, sources: Any,
) -> tuple[int, int, int, int, int]:  # fmt: skip
    """Writes the words from `low` up to `low + (1 << bits)` in the sources number `i` up to `until`, the first from `at` on.

    Sources have `start` and `size` in bytes, ascending. Words of `width` bytes are looked at whose address has the
    remainder `phase`; that at address a of range r is `words[(a + range_delta[r]) // width] & mask`. `values` and
    `sources` get each word and the number of its source.

    Returns:
        (words written, source and address where there was no room for more, or `until` and 0; the range; bytes of the
        sources that were seen to their end).
    """
    held, by, count, room, ranges = 0, 3 if width == 8 else 2, 0, len(values), len(range_start)
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
                    return count, i, first + (w - begin) * width, r, held
                values[count], sources[count] = value, i
                count += 1
            held += min(end, range_end[s]) - max(start[i], range_start[s])
            s += 1
        i, at = i + 1, 0
    return count, until, 0, r, held


def resolve(
    values: Any, sources: Any, many: int, tops: Any, middles: Any, cells: Any, shift: int, start: Any, size: Any, found: Any,
    degree: Any, targets: Any,
) -> int:  # fmt: skip
    """Finds the blocks, of `start` and `size` (0 counts as 1), that the first `many` values point into; `found` is scratch.

    `targets` gets the block of each pointer, or -1 - block for one that does not point at its start; `degree[source]`
    goes up. The cells are read in a loop of their own, short enough for the processor to wait for many of them at once.

    Returns:
        How many are pointers.
    """
    count, a_leaf = 0, 65536 >> shift >> 5
    for k in range(many):
        value = values[k]
        top, leaf = tops[value >> 32], -1
        if top >= 0:
            leaf = middles[(top << 16) + ((value >> 16) & 0xFFFF)]
        found[k] = leaf if leaf < 0 else cells[leaf * a_leaf + ((value & 0xFFFF) >> shift >> 5)]
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
        degree[sources[k]] += 1
        count += 1
    return count
