"""Finds the block that an address lies in: the arrays for it, and the blocks of the program that go in.

Blocks are numbered 0 to n - 1 by ascending start; starts are multiples of `1 << shift` bytes, the *steps*. Three arrays
lead from an address to the last block that starts at or below it:

    tops[address >> 32]                              = t, the table of middles, -1 where no block is in these 4 GiB
    middles[(t << 16) + (address >> 16 & 0xFFFF)]    = leaf: number of the leaf of these 64 KiB; -1 where no block is; -2 - k
                                                       where block k fills all of them
    cells[leaf * (65536 >> shift >> 5) + (address & 0xFFFF) >> shift >> 5]   = cell of 32 steps
    cell, bits 0-31                                  = one bit for each step where a block starts
    cell, bits 32-63                                 = number of blocks that start before these 32 steps
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader


def take(rows: RowReader, mask: int, wanted: int, top: int, numbers: Output, start: Output, size: Output) -> int:
    """Writes the rows with `tags & mask == wanted`: number, address of the user data, requested bytes of each.

    A block that reaches into the next one ends there. A block that starts where the one before does is left out, and so is
    a block that reaches over the address `top`.

    Returns:
        The number of blocks; -1 where one starts before the block before it.
    """
    entry, size8, unused, header8, tags = rows.entry, rows.size8, rows.unused, rows.header8, rows.tags
    count, last, end = 0, 0, 0
    for i in range(len(entry)):
        if tags[i] & mask != wanted:
            continue
        address, length = int(entry[i]) + int(header8[i]) * UNIT, int(size8[i]) * UNIT - int(unused[i])
        if address <= 0 or length < 0 or address >= top or length >= top - address:
            continue
        if address <= last:
            if address < last:
                return -1
            continue
        if end > address:
            size[count - 1] = address - last
        numbers[count], start[count], size[count] = i, address, length
        last, end = address, address + length
        count += 1
    return count


def thin(rows: ArrayColumn, heap: ArrayColumn, most: int, counts: Output, due: Output, out: Output) -> int:
    """Writes places of `rows`, evenly spread over each heap: about `most` of a heap, or all where it has no more.

    `heap`: heap of every row of the table. `counts`, `due`: a zero for each heap; `counts` becomes the number of its rows.

    Returns:
        The number of places in `out`.
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


def pages(start: ArrayColumn, size: ArrayColumn, leaves: Output, long: Output) -> tuple[int, int]:
    """Writes the 64 KiB pages (address >> 16) in which blocks start to `leaves`, and blocks that end in another page to `long`.

    Returns:
        (number of pages, number of such blocks).
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


def mark(start: ArrayColumn, shift: int, cells: Output) -> None:
    """Fills the cells of blocks that start at the addresses `start`, ascending.

    `cells`: zeros, `65536 >> shift >> 5` for each 64 KiB in which a block starts.
    """
    leaf, page, filled, leaf_cells = -1, -1, 0, 65536 >> shift >> 5
    for i in range(len(start)):
        address = start[i]
        if address >> 16 != page:
            page = address >> 16
            leaf += 1
        place = leaf * leaf_cells + ((address & 0xFFFF) >> shift >> 5)
        while filled <= place:
            cells[filled] = i << 32
            filled += 1
        cells[place] |= 1 << ((address >> shift) & 31)
    while filled < len(cells):
        cells[filled] = len(start) << 32
        filled += 1
