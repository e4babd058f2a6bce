"""Finds what may be a B-tree map of Rust: a pointer, the height of its tree, and its elements, in three words."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, OutputGrid


def tree_heads(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, out: OutputGrid,
) -> tuple[int, int]:  # fmt: skip
    """Writes each in the sources `k`, `k + 1` … to a row of `out`: source, offset in bytes, block, height, elements.

    Sources and their words are those of `container_members.containers_of`, and so is the result. The block has room
    for 12 pointers and some more.
    """
    found, room = 0, len(out)
    while k < len(source):
        one, many, base = source[k], count[k], place[k]
        edge, edges = first[one], first[one + 1]
        if found + edges - edge > room and found > 0:
            return found, k
        i = -1
        while edge < edges and found < room and i + 3 < many:
            i += 1
            value, block = words[base + i] & mask, targets[edge]
            inside = value - start[block if block >= 0 else -1 - block]
            if value == 0 or inside < 0 or (inside != 0 and inside >= size[block if block >= 0 else -1 - block]):
                continue
            edge += 1
            height, elements = words[base + i + 1] & mask, words[base + i + 2] & mask
            if block >= 0 and inside == 0 and 1 <= height <= 24 and elements >= 3 and size[block] > 14 * width:
                out[found, 0], out[found, 1], out[found, 2] = one, i * width, block
                out[found, 3], out[found, 4] = height, elements
                found += 1
        k += 1
    return found, k
