"""Finds members of blocks that are containers of a C++ library, by a pointer and the counts beside it.

A pointer to a block, the capacity that the block's size gives, and a size of no more than the capacity. The pointers of a
source are its edges, in the order of their addresses.

    vector          { begin; end; end of capacity }
    string          { pointer in 16 bytes; size; capacity }            Visual C++, capacity + 1 characters
    GNU string      { pointer; size; capacity }                        libstdc++, capacity + 1 characters
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, OutputGrid

VECTOR, ALIGNED_VECTOR, STRING, WSTRING, GNU_STRING, GNU_WSTRING = range(1, 7)
"""Kinds. ALIGNED_VECTOR: the array lies up to 64 bytes behind the start of its block."""


def containers_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn,
    out: OutputGrid,
) -> tuple[int, int]:  # fmt: skip
    """Writes each container in the sources from number `k` on to a row of `out`.

    A row: source, offset of its pointer in bytes, kind, block, bytes used, bytes held. `words`: the file as signed words of
    `width` bytes, of which `mask` are the bits. Of each source: `place` (m,) index of its first word in `words`, `source`
    its number in `first`, `count` its words. `first`, `targets`: the edges of the sources (`kernels.reach`). `start`,
    `size`: address and bytes of each block.

    Returns:
        (containers written, the source before which there was no room for more, or m).
    """
    found, room, more = 0, len(out), 16 // width
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
                for shift in (1, more):  # libstdc++, then Visual C++
                    if kind == 0 and i + shift + 1 < many:
                        second, third = words[base + i + shift] & mask, words[base + i + shift + 1] & mask
                        for letter in (1, 2):  # bytes of a character
                            if third * letter >= 16 and 0 <= second <= third and letter * (third + 1) == size[block]:
                                kind = letter + (4 if shift == 1 else 2)
                                bytes_used, bytes_held = letter * second, letter * third
            if kind != 0:
                out[found, 0], out[found, 1], out[found, 2] = one, i * width, kind
                out[found, 3], out[found, 4], out[found, 5] = block, bytes_used, bytes_held
                found += 1
        k += 1
    return found, k
