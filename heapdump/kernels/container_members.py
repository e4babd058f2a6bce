"""Finds members of blocks that are containers of a C++ library, by a pointer and the counts beside it.

A pointer to a block, the capacity that the block's size gives, and a size of no more than the capacity. The pointers of a
source are its edges, in the order of their addresses.

    vector          { begin; end; end of capacity }
    string          { pointer in 16 bytes; size; capacity }            Visual C++, capacity + 1 characters
    GNU string      { pointer; size; capacity }                        libstdc++, capacity + 1 characters
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output

VECTOR, ALIGNED_VECTOR, STRING, WSTRING, GNU_STRING, GNU_WSTRING = range(1, 7)
"""Kinds. ALIGNED_VECTOR: the array lies up to 64 bytes behind the start of its block."""


def containers_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn,
    owners: Output, offsets: Output, kinds: Output, buffers: Output, used: Output, capacity: Output,
) -> tuple[int, int]:  # fmt: skip
    """Writes each container in the sources from number `k` on: source, offset of its pointer, kind, block, bytes used and held.

    Args:
        words: the file as signed words of `width` bytes, of which `mask` are the bits.
        mask: see `words`.
        width: 4 or 8.
        place: (m,) index in `words` of the first word of each source.
        source: (m,) number of each source in `first`.
        count: (m,) words of each.
        k: the source to begin at.
        first: the edges of the sources (`kernels.reach`).
        targets: likewise.
        start: (n,) address of each block.
        size: (n,) bytes of each block.
        owners: gets sources, `offsets`, `kinds`, `buffers`, `used`, `capacity` the rest; all have the same room.

    Returns:
        (containers written, the source before which there was no room for more, or m).
    """
    found, room, more = 0, len(owners), 16 // width
    while k < len(source):
        one, many, base = source[k], count[k], place[k]
        edge, edges = first[one], first[one + 1]
        if found + edges - edge > room and found > 0:
            return found, k
        i = -1
        while edge < edges and found < room:
            i += 1
            if i >= many:
                break
            value = words[base + i] & mask
            block = targets[edge]
            if block < 0:
                block = -1 - block
            inside = value - start[block]
            if value == 0 or inside < 0 or (inside != 0 and inside >= size[block]):
                continue
            edge += 1
            if i + 2 >= many or size[block] < 8:
                continue
            second, third = words[base + i + 1] & mask, words[base + i + 2] & mask
            kind, bytes_used, bytes_held = 0, 0, 0
            if inside == 0 and value <= second <= third and third - value == size[block]:
                kind, bytes_used, bytes_held = 1, second - value, size[block]
            elif 0 < inside <= 64 and size[block] >= 4096 and value % 32 == 0:
                if value <= second <= third and size[block] - 64 <= third - value <= size[block] - inside:
                    kind, bytes_used, bytes_held = 2, second - value, third - value
            elif inside == 0:
                if 16 <= third < size[block] and 0 <= second <= third:
                    if third + 1 == size[block]:
                        kind, bytes_used, bytes_held = 5, second, third
                    elif 2 * (third + 1) == size[block]:
                        kind, bytes_used, bytes_held = 6, 2 * second, 2 * third
                if kind == 0 and i + more + 1 < many:
                    second, third = words[base + i + more] & mask, words[base + i + more + 1] & mask
                    if 0 <= second <= third < size[block]:
                        if third >= 16 and third + 1 == size[block]:
                            kind, bytes_used, bytes_held = 3, second, third
                        elif third >= 8 and 2 * (third + 1) == size[block]:
                            kind, bytes_used, bytes_held = 4, 2 * second, 2 * third
            if kind != 0:
                owners[found], offsets[found], kinds[found], buffers[found] = one, i * width, kind, block
                used[found], capacity[found] = bytes_used, bytes_held
                found += 1
        k += 1
    return found, k
