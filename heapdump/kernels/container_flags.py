"""Says of each block which of the loops over containers can find one in it, by its own words alone.

A container is a pointer with numbers or pointers beside it. Most blocks have no such words, and are left out before
the blocks that their pointers lead to are looked at, which lie anywhere in memory.

    MEMBERS    `container_members.containers_of`
    COUNTED    `counted_members.counted_of`
    SHAPES     `container_shapes.shapes_of`
    B_TREES    `b_trees.tree_heads`
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output

MEMBERS, COUNTED, SHAPES, B_TREES = 1, 2, 4, 8


def flags_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, low: int,
    high: int, biggest: int, most: int, first: ArrayColumn, targets: ArrayColumn, header: ArrayColumn, headers: int,
    out: Output,
) -> None:  # fmt: skip
    """Adds the bits of the loops that may find something to `out[source[k]]`, for every source k.

    Sources, their words and edges are those of `container_members.containers_of`. Blocks lie in [low, high], none of
    them has more than `biggest` bytes, `most` are there. `header`: see `counted_members.counted_of`; `headers`: how
    many of them are not 0.
    """
    more = 16 // width
    for k in range(len(source)):
        one, many, base, bits = source[k], count[k], place[k], 0
        wanted = 15 if first[one + 1] - first[one] >= 2 else 11
        for edge in range(first[one], first[one + 1] if headers != 0 else first[one]):
            block = targets[edge]
            if header[block if block >= 0 else -1 - block] != 0:
                bits = 2
                break
        for i in range(many):
            v = words[base + i] & mask
            if v < low or v > high:
                continue
            if bits == wanted:
                break
            a = words[base + i - 2] & mask if i >= 2 else 0
            b = words[base + i - 1] & mask if i >= 1 else -1
            c = words[base + i + 1] & mask if i + 1 < many else -1
            d = words[base + i + 2] & mask if i + 2 < many else -1
            e = words[base + i + 3] & mask if i + 3 < many else -1
            if i + 2 < many and ((v <= c <= d and 8 <= d - v <= biggest) or (8 <= d < biggest and 0 <= c <= d)):
                bits |= 1
            if i + more + 1 < many:
                size, room = words[base + i + more] & mask, words[base + i + more + 1] & mask
                if 8 <= room < biggest and 0 <= size <= room:
                    bits |= 1
            half, rest = c & 0xFFFFFFFF, (c >> 32) & 0xFFFFFFFF
            if (
                (5 <= a <= biggest + 1 and a & 3 == 1 and 0 <= b < biggest)
                or (v + 12 <= c < v + biggest and 1 <= d <= biggest)
                or (4 <= b <= biggest and 1 <= c <= b)
                or (4 <= c <= biggest and 1 <= d <= c)
                or (4 <= d <= biggest and 1 <= c <= d)
                or (4 <= rest <= biggest and 1 <= half <= rest)
                or (4 <= half <= biggest and 1 <= rest <= half)
                or (3 <= c < biggest and c & (c + 1) == 0 and e >= 1)
                or (3 <= b < biggest and b & (b + 1) == 0 and d >= 1)
            ):
                bits |= 2
            if wanted == 15 and (
                (low <= c <= high and (2 <= d <= most or 2 <= e <= most))
                or (c >= 2 and c * width <= biggest and (2 <= e <= most or (c >= 8 and (e >= 1 or i + 9 < many))))
                or (v <= c < d <= e and e - v <= biggest)
                or (i >= 5 and 1 <= c <= 4096 and a >= 1)
            ):
                bits |= 4
            if 1 <= c <= 24 and d >= 3:
                bits |= 8
        out[one] = bits
