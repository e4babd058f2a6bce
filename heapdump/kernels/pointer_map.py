"""Builds the arrays that lead from an address to the block that it lies in.

Blocks are numbered 0 to n - 1 by ascending start. Starts are multiples of `1 << shift` bytes, a *step*. Three arrays
lead from an address to the last block that starts at or below it:

    t    = tops[address >> 32]                                    -1: no block lies in these 4 GiB
    leaf = middles[(t << 16) + ((address >> 16) & 0xFFFF)]        -1: no block lies in these 64 KiB
                                                                  -2 - k: block k covers all of them
    cell = cells[leaf * leaf_cells + ((address & 0xFFFF) >> shift >> 5)]      32 steps
    leaf_cells = 65536 >> shift >> 5

    bits of a cell
    0-31     bit s is set where a block starts at step s
    32-63    b: number of blocks that start before these 32 steps

    block = b - 1 + number of set bits 0 to s, s being ((address >> shift) & 31)
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader


def take(rows: RowReader, mask: int, wanted: int, top: int, numbers: Output, start: Output, size: Output) -> int:
    """Writes row, user address and requested bytes of each row with `tags & mask == wanted`.

    A block that overlaps the next one is cut there. Left out are blocks that start where the block before starts, and
    blocks that reach to the address `top` or beyond.

    Returns:
        The number of blocks; -1 where a block starts below the block before it.
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


def take_starts(
    rows: RowReader, mask: int, wanted: int, top: int, numbers: Output, leaves: Output
) -> tuple[int, int, int, int]:
    """Writes the row of each block that `take` takes to `numbers`, the leaves of `pages` to `leaves`.

    Returns:
        (number of blocks, -1 where one starts below the block before it; number of leaves; all addresses joined by |;
        number of blocks between whose header and data the next row begins).
    """
    entry, size8, unused, header8, tags = rows.entry, rows.size8, rows.unused, rows.header8, rows.tags
    count, found, last, page, merged, crowded = 0, 0, 0, -1, 0, 0
    for i in range(len(entry)):
        if tags[i] & mask != wanted:
            continue
        address, length = int(entry[i]) + int(header8[i]) * UNIT, int(size8[i]) * UNIT - int(unused[i])
        if address <= 0 or length < 0 or address >= top or length >= top - address:
            continue
        if address <= last:
            if address < last:
                return -1, 0, 0, 0
            continue
        if i + 1 < len(entry) and entry[i + 1] <= address:
            crowded += 1
        if address >> 16 != page:
            page = address >> 16
            leaves[found] = page
            found += 1
        numbers[count], last = i, address
        count, merged = count + 1, merged | address
    return count, found, merged, crowded


def starts_of(rows: RowReader, numbers: ArrayColumn, out: Output) -> None:
    """Writes the user address of each of the rows `numbers`."""
    entry, header8 = rows.entry, rows.header8
    for i in range(len(numbers)):
        out[i] = int(entry[numbers[i]]) + int(header8[numbers[i]]) * UNIT


def sizes_of(rows: RowReader, numbers: ArrayColumn, out: Output) -> None:
    """Writes the requested bytes of each of the rows `numbers`, ascending, up to the start of the next one at most."""
    entry, header8, size8, unused = rows.entry, rows.header8, rows.size8, rows.unused
    behind = 0
    for i in range(len(numbers) - 1, -1, -1):
        row = numbers[i]
        start, length = int(entry[row]) + int(header8[row]) * UNIT, int(size8[row]) * UNIT - int(unused[row])
        if i + 1 < len(numbers) and length > behind - start:
            length = behind - start
        out[i], behind = length, start


def places_of(rows: RowReader, numbers: ArrayColumn, start: Output, size: Output) -> None:
    """Writes what `starts_of` and `sizes_of` write."""
    entry, header8, size8, unused = rows.entry, rows.header8, rows.size8, rows.unused
    behind = 0
    for i in range(len(numbers) - 1, -1, -1):
        row = numbers[i]
        address, length = int(entry[row]) + int(header8[row]) * UNIT, int(size8[row]) * UNIT - int(unused[row])
        if i + 1 < len(numbers) and length > behind - address:
            length = behind - address
        start[i], size[i], behind = address, length, address


def mark_rows(rows: RowReader, numbers: ArrayColumn, shift: int, cells: Output) -> None:
    """`mark` for the blocks of the rows `numbers`."""
    entry, header8 = rows.entry, rows.header8
    leaf, page, filled, leaf_cells = -1, -1, 0, 65536 >> shift >> 5
    for i in range(len(numbers)):
        address = int(entry[numbers[i]]) + int(header8[numbers[i]]) * UNIT
        if address >> 16 != page:
            page = address >> 16
            leaf += 1
        place = leaf * leaf_cells + ((address & 0xFFFF) >> shift >> 5)
        while filled <= place:
            cells[filled] = i << 32
            filled += 1
        cells[place] |= 1 << ((address >> shift) & 31)
    while filled < len(cells):
        cells[filled] = len(numbers) << 32
        filled += 1


def thin(rows: ArrayColumn, heap: ArrayColumn, most: int, counts: Output, due: Output, out: Output) -> int:
    """Takes a sample of `rows` that is spread evenly over the rows of each heap.

    Args:
        rows: (n,) rows of the block table.
        heap: heap of every row of the table.
        most: every (rows of the heap // most)-th row of a heap is taken; all where the heap has fewer than 2 * most.
        counts: (heaps,) of 0; gets the number of `rows` of each heap.
        due: (heaps,) of 0; scratch.
        out: (n,) gets indices into `rows`, ascending.

    Returns:
        The number of indices in `out`.
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


def pages(start: ArrayColumn, size: ArrayColumn, leaves: Output, long: Output) -> tuple[int, int, int]:
    """Finds the leaves: pages of 64 KiB in which blocks start.

    Args:
        start: (n,) addresses of the blocks, ascending.
        size: (n,) bytes of the blocks.
        leaves: gets the page number, address >> 16, of each leaf, ascending.
        long: gets the numbers of the blocks that end in another page than the one they start in.

    Returns:
        (number of leaves, number of long blocks, all addresses joined by |).
    """
    count, reach, last, merged = 0, 0, -1, 0
    for i in range(len(start)):
        page = start[i] >> 16
        if page != last:
            leaves[count], last = page, page
            count += 1
        if (start[i] + size[i] - 1) >> 16 > page:
            long[reach] = i
            reach += 1
        merged |= start[i]
    return count, reach, merged


def pages_of_rows(rows: RowReader, numbers: ArrayColumn, leaves: Output, long: Output) -> tuple[int, int, int, int]:
    """`pages` for the blocks of the rows `numbers`. Blocks that reach into the next one are long by their own bytes.

    Returns:
        What `pages` returns, and the bytes of all blocks, each up to the next one at most.
    """
    entry, header8, size8, unused = rows.entry, rows.header8, rows.size8, rows.unused
    count, reach, last, merged, total, end = 0, 0, -1, 0, 0, 0
    for i in range(len(numbers)):
        row = numbers[i]
        address, length = int(entry[row]) + int(header8[row]) * UNIT, int(size8[row]) * UNIT - int(unused[row])
        page = address >> 16
        if page != last:
            leaves[count], last = page, page
            count += 1
        if (address + length - 1) >> 16 > page:
            long[reach] = i
            reach += 1
        total += length - max(0, end - address)
        merged, end = merged | address, address + length
    return count, reach, merged, total


def mark(start: ArrayColumn, shift: int, cells: Output) -> None:
    """Fills `cells` for blocks that start at the addresses `start`, ascending.

    `cells`: `65536 >> shift >> 5` elements of 0 for each leaf.
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
