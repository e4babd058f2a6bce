"""Lists and trees of the Visual C++ library: the nodes that a head leads to, counted.

Each node is a block of its own. A head is a node without a value:

    list     { next; previous; value }                      a ring; next of the head is the first node
    tree     { left; parent; right; color; is nil; value }  left, parent, right of the head: first node, root, last node

Pointers of a block are its edges, in the order of their addresses.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output, OutputGrid

_DEEPEST = 128
"""Levels of a balanced tree: more than 2 log2 of the blocks that a process can have."""


def heads_of(first: ArrayColumn, targets: ArrayColumn, size: ArrayColumn, is_head: Output) -> None:
    """Writes 1 for each node whose first two pointers lead to starts of nodes of its size, else 0; (n,)."""
    for node in range(len(size)):
        edge, good = first[node], first[node + 1] - first[node] >= 2
        for e in range(edge, edge + 2 if good else edge):
            good = good and targets[e] >= 0 and size[targets[e]] == size[node]
        is_head[node] = 1 if good else 0


def leading_to(first: ArrayColumn, targets: ArrayColumn, size: ArrayColumn, is_head: ArrayColumn, out: Output) -> None:
    """Writes 1 for each node with a pointer to a head that is of another size, or no head itself, else 0; (n,)."""
    for node in range(len(size)):
        out[node] = 0
        for e in range(first[node], first[node + 1]):
            target = targets[e]
            if target >= 0 and is_head[target] != 0 and (is_head[node] == 0 or size[target] != size[node]):
                out[node] = 1
                break


def pairs_of(
    words: ArrayColumn, mask: int, width: int, place: ArrayColumn, source: ArrayColumn, count: ArrayColumn,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, is_head: ArrayColumn, most: int,
    out: OutputGrid,
) -> int:  # fmt: skip
    """Writes each pointer to a head that a number from 1 to `most` follows: source, offset in bytes, head, number.

    Sources and their words are those of `container_members.containers_of`; `is_head` (n,): of each block. `out` has a
    row for each edge.

    Returns:
        Rows written.
    """
    found = 0
    for k in range(len(source)):
        edge, edges, base = first[source[k]], first[source[k] + 1], place[k]
        for i in range(count[k] - 1):
            if edge >= edges:
                break
            block = targets[edge]
            if block < 0:
                block = -1 - block
            value = words[base + i] & mask
            inside = value - start[block]
            if value == 0 or inside < 0 or (inside != 0 and inside >= size[block]):
                continue
            edge += 1
            number = words[base + i + 1] & mask
            if inside == 0 and is_head[block] != 0 and 0 < number <= most:
                out[found, 0], out[found, 1], out[found, 2], out[found, 3] = source[k], i * width, block, number
                found += 1
    return found


def rings_of(
    first: ArrayColumn, targets: ArrayColumn, size: ArrayColumn, sentinels: ArrayColumn, ring: Output, length: Output
) -> int:
    """Writes the number of the ring of each node, from 1 on, to `ring`; 0 for nodes of none. In O(nodes).

    `sentinels`: where rings are looked for; `length` (sentinels + 1,) gets the nodes of each ring, 0 for none: a node
    has another size, or does not point back.

    Returns:
        Rings and attempts.
    """
    made = 0
    for k in range(len(sentinels)):
        head = sentinels[k]
        if ring[head] != 0:
            continue
        made += 1
        node, steps, is_ring = head, 0, 1
        while is_ring != 0:
            ring[node] = made
            steps += 1
            following = targets[first[node]]
            if (
                following < 0
                or size[following] != size[head]
                or first[following + 1] - first[following] < 2
                or targets[first[following] + 1] != node
            ):
                is_ring = 0
            elif following == head:
                break
            elif ring[following] != 0:
                is_ring = 0
            else:
                node = following
        length[made] = steps if is_ring != 0 else 0
    return made


def trees_of(
    first: ArrayColumn, targets: ArrayColumn, size: ArrayColumn, sentinels: ArrayColumn, counts: ArrayColumn,
    tree: Output, is_whole: Output,
) -> None:  # fmt: skip
    """Writes the number of the tree of each node, from 1 on, to `tree`, sentinels left out.

    `counts`: nodes of each tree; `is_whole` gets 1 where the tree below the head has so many, in order from its first
    to its last one, each with its parent. Nodes of a tree that is not whole keep its number.
    """
    for k in range(len(sentinels)):
        head = sentinels[k]
        node, last, seen, good = targets[first[head]], head, 0, 1
        while good != 0 and node != head:
            if node < 0 or seen >= counts[k] or tree[node] != 0 or size[node] != size[head]:
                break
            if first[node + 1] - first[node] < 3:
                break
            tree[node] = k + 1
            last, seen, levels = node, seen + 1, 0
            below = targets[first[node] + 2]
            if below == head:  # up to the first node of which this is not the right side
                above = targets[first[node] + 1]
                while above >= 0 and above != head and levels < _DEEPEST:
                    if first[above + 1] - first[above] < 3 or targets[first[above] + 2] != node:
                        break
                    node, above, levels = above, targets[first[above] + 1], levels + 1
                if above >= 0 and above != head and targets[first[above]] != node:
                    good = 0
                node = above
            else:  # down to the left
                while below >= 0 and below != head and levels < _DEEPEST:
                    if (
                        size[below] != size[head]
                        or first[below + 1] - first[below] < 3
                        or targets[first[below] + 1] != node
                    ):
                        below = -1
                    else:
                        node, below, levels = below, targets[first[below]], levels + 1
                if below != head:
                    good = 0
        is_right = node == head and good != 0 and seen == counts[k]
        is_whole[k] = 1 if is_right and targets[first[head] + 2] == last else 0


def chains_of(
    first: ArrayColumn, targets: ArrayColumn, size: ArrayColumn, sentinels: ArrayColumn, counts: ArrayColumn,
    chain: Output, before: Output, last: Output,
) -> None:  # fmt: skip
    """Writes the number of the chain of each node, from 1 on, to `chain`, and the node before it to `before`.

    A chain is `sentinels[k]` and the nodes that first edges lead to, `counts[k]` nodes in all, each of one size and of
    no other chain. `last` gets the last node of each; -1 where there are fewer. In O(nodes).
    """
    for k in range(len(sentinels)):
        node, steps, previous = sentinels[k], 0, -1
        last[k] = -1
        while node >= 0 and chain[node] == 0 and size[node] == size[sentinels[k]]:
            chain[node] = k + 1
            before[node] = previous
            steps += 1
            if steps == counts[k]:
                last[k] = node
                break
            if first[node + 1] == first[node]:
                break
            previous, node = node, targets[first[node]]
