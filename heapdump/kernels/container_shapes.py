"""Finds what may be a list, a map, a hash table or a deque of libstdc++ or libc++, a deque of Visual C++, or of MFC.

Their heads lie in the owner itself. Each shape is some words of the owner, the first one a pointer to the start of a
block; `analyses/containers/` proves what may be one:

    PAIR          { p; q; elements }                                   list of both libraries, map of libc++
    TREE          { color 0; root; first; last; elements }             map of libstdc++
    CHAIN         { buckets; number of buckets; first; elements }      hash table of both
    RING_OF_SLOTS { proxy; slots; number of slots; first; elements }   deque of Visual C++
    TWO_ENDS      { slots; number of slots; four pointers; four pointers }    deque of libstdc++
    SLOTS         { slots; begin; end; end of slots; first; elements } deque of libc++
    PLEXES        { blocks; elements of a block }, elements before     lists and maps of MFC
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, OutputGrid

PAIR, TREE, CHAIN, RING_OF_SLOTS, TWO_ENDS, SLOTS, PLEXES = range(1, 8)
_MOST_OF_PLEX = 4096


def shapes_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn, k: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, below: ArrayColumn,
    points: ArrayColumn, is_block: int, out: OutputGrid,
) -> tuple[int, int]:  # fmt: skip
    """Writes each shape in the sources `k`, `k + 1` … to a row of `out`: source, offset in bytes, shape, block at `p`.

    Sources and their words are those of `container_members.containers_of`, and so is the result. `below`, `points`:
    edges of blocks, like `first` and `targets`, which are those of the sources; `is_block`: 1 where the sources are
    blocks themselves. Then a node that a PAIR leads to must lead back to the source.
    """
    found, room, most = 0, len(out), len(start)
    while k < len(source):
        one, many, base = source[k], count[k], place[k]
        edge, edges = first[one], first[one + 1]
        if found + edges - edge > room and found > 0:
            return found, k
        i = -1
        while edge < edges and found < room and i + 2 < many:
            i += 1
            value, a = words[base + i] & mask, targets[edge]
            inside = value - start[a if a >= 0 else -1 - a]
            if value == 0 or inside < 0 or (inside != 0 and inside >= size[a if a >= 0 else -1 - a]):
                continue
            edge += 1
            if a < 0 or inside != 0:
                continue
            second, shape = words[base + i + 1] & mask, 0
            third = words[base + i + 2] & mask if i + 2 < many else 0
            fourth = words[base + i + 3] & mask if i + 3 < many else 0
            b = targets[edge] if edge < edges else -1
            if b >= 0 and start[b] == second and size[b] == size[a]:
                c = targets[edge + 1] if edge + 1 < edges else -1
                if 2 <= third <= most:
                    shape = 1 - is_block
                    for e in range(5 if size[one * is_block] != size[a] or i != 0 else 0):
                        at = below[a] + e if e < 2 else below[b] + e - 2
                        if at < below[(a if e < 2 else b) + 1] and (points[at] == one or points[at] == -1 - one):
                            shape = 1
                elif i >= 1 and words[base + i - 1] & 0xFFFFFFFF == 0 and c >= 0 and start[c] == third:
                    shape = 2 if size[c] == size[a] and 2 <= fourth <= most else 0
            elif second >= 2 and size[a] == second * width:
                if b >= 0 and start[b] == third and 2 <= fourth <= most:
                    shape = 3
                elif second >= 8 and second & (second - 1) == 0 and i >= 1 and 0 <= third < second << 4:
                    shape = 4 if 1 <= fourth <= second << 4 else 0
                if shape == 0 and second >= 8 and i + 9 < many:
                    low, high = words[base + i + 5] & mask, words[base + i + 9] & mask
                    shape = 5 if value <= low <= high < value + size[a] else 0
            elif value <= second < third <= value + size[a] == fourth and i + 5 < many:
                shape = 6 if words[base + i + 5] & mask >= 1 else 0
            if shape == 0 and i >= 5 and 1 <= second <= _MOST_OF_PLEX and words[base + i - 2] & mask >= 1:
                rest = size[a] - width if (size[a] - width) % second == 0 else size[a] - 2 * width
                shape = 7 if rest % second == 0 and rest >= 2 * width * second else 0
            if shape != 0:
                out[found, 0], out[found, 1], out[found, 2], out[found, 3] = one, i * width, shape, a
                found += 1
        k += 1
    return found, k
