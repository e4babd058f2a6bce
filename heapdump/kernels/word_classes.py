"""Copies the words of chosen nodes of the pointer graph, and the nodes that these words point into."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def words_of(
    words: ArrayColumn, mask: int, place: ArrayColumn, node: ArrayColumn, count: ArrayColumn, most: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, values: Output, refs: Output,
) -> None:  # fmt: skip
    """Copies the first words of chosen nodes to `values`, and the node that each word points into to `refs`.

    The edges of a node are in the order of their addresses, so no search is needed.

    Args:
        words: the file as signed words of 4 or 8 bytes.
        mask: the bits of a word: -1, or 0xFFFFFFFF for words of 4 bytes.
        place: (k,) index in `words` of the first word of each chosen node.
        node: (k,) chosen nodes.
        count: (k,) number of words to copy of each, at most `most`.
        most: room for words of one node.
        first: (n + 1,) the edges of node i are `targets[first[i]:first[i + 1]]` (`kernels.reach`).
        targets: likewise.
        start: (n,) address of each node.
        size: (n,) bytes of each node.
        values: (k * most,) gets the words; those of chosen node j from index `j * most` on.
        refs: (k * most,) gets the nodes; elements of words that point into none are not changed.
    """
    for k in range(len(node)):
        source, begin, at = node[k], place[k], k * most
        edge, edges = first[source], first[source + 1]
        for i in range(count[k]):
            value = words[begin + i] & mask
            values[at + i] = value
            if edge == edges or value == 0:
                continue
            block = targets[edge]
            if block < 0:
                block = -1 - block
            inside = value - start[block]
            if inside == 0 or 0 < inside < size[block]:
                refs[at + i] = block
                edge += 1
