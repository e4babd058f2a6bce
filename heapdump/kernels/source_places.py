"""Says where in the file the words of blocks lie, for many blocks at once, ascending by address."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def source_places(
    start: ArrayColumn, size: ArrayColumn, i: int, until: int, width: int, phase: int, first: ArrayColumn, least: int,
    needed: int, flags: ArrayColumn, bits: int, range_start: ArrayColumn, range_end: ArrayColumn,
    range_delta: ArrayColumn, place: Output, source: Output, count: Output,
) -> tuple[int, int]:  # fmt: skip
    """Writes the place of each block of [i, until) whose words lie in one memory range, at `phase` in the file.

    Args:
        start: (n,) addresses, ascending.
        size: (n,) bytes.
        i: index of the first block.
        until: index behind the last block.
        width: bytes of a word, 4 or 8.
        phase: words of the file begin at offsets o with o % width == phase.
        first: (n + 1,) the pointers of block j are those number `first[j]` to `first[j + 1] - 1`.
        least: only blocks with so many pointers or more.
        needed: 0, or a number of words: then only blocks with more bytes than all of these but one, and so many words
            must lie in the range instead of those of the block.
        flags: (n,) numbers of blocks; only blocks with one of the `bits` in it. Not read where `bits` is 0.
        bits: see `flags`.
        range_start: (m,) first address of each memory range, ascending.
        range_end: (m,) address behind each range.
        range_delta: (m,) offset in the file of an address of the range, minus the address.
        place: (until - i,) gets the number of the first word, in words of the file.
        source: (until - i,) gets the index of the block.
        count: (until - i,) gets the number of its whole words.

    Returns:
        (number of blocks written, bit p is set where blocks with another phase p were left out).
    """
    many, others, r, ranges, by = 0, 0, 0, len(range_start), 3 if width == 8 else 2
    for j in range(i, until):
        if first[j + 1] - first[j] < least or (needed > 0 and size[j] <= (needed - 1) * width):
            continue
        if bits != 0 and flags[j] & bits == 0:
            continue
        begin, words = start[j], size[j] >> by
        if not (r < ranges and range_start[r] <= begin < range_end[r]):
            low, high = 0, ranges  # the last range that starts at or below the address
            while low < high:
                middle = (low + high) >> 1
                if range_start[middle] <= begin:
                    low = middle + 1
                else:
                    high = middle
            r = max(0, low - 1)
        if ranges == 0 or begin < range_start[r] or begin + ((needed if needed > 0 else words) << by) > range_end[r]:
            continue
        at = begin + range_delta[r]
        if at & (width - 1) != phase:
            others |= 1 << (at & (width - 1))
            continue
        place[many], source[many], count[many] = at >> by, j, words
        many += 1
    return many, others
