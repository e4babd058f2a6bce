"""Finds containers of a C++ library among the words of blocks and of module data.

A container is a pointer to a block, followed by a capacity that fits the size of that block exactly, and by a size that
is not above the capacity:

    vector          { begin; end; end of capacity }            end of capacity - begin == bytes of the block
    string          { pointer in 16 bytes; size; capacity }    Visual C++: capacity + 1 characters fill the block
    GNU string      { pointer; size; capacity }                libstdc++: likewise
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, OutputGrid

VECTOR, ALIGNED_VECTOR, STRING, WSTRING, GNU_STRING, GNU_WSTRING = range(1, 7)
"""Kinds of containers. ALIGNED_VECTOR: the array of a vector begins 1 to 64 bytes behind the start of its block, which
has 4096 bytes or more (Visual C++ aligns it to 32 bytes). WSTRING, GNU_WSTRING: characters of 2 bytes."""


def containers_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn,
    out: OutputGrid,
) -> tuple[int, int]:  # fmt: skip
    """Writes each container in the sources `k`, `k + 1` … to a row of `out`.

    `words`: the file as signed words of `width` bytes, 4 or 8. `mask`: the bits of a word: -1, or 0xFFFFFFFF for words
    of 4 bytes. Source i, (m,): node `source[i]` of the pointer graph, `count[i]` words from `words[place[i]]` on. The
    edges of node j are `targets[first[j]:first[j + 1]]`, in the order of their addresses (`reach`). Block b, (n,):
    `size[b]` bytes from the address `start[b]` on. `out`, (room, 6): source node, offset of the pointer in the source
    in bytes, kind, block, bytes used by elements, bytes of the capacity.

    Returns (rows written, index of the source to go on with: m at the end, less where `out` has no room for its edges).
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
