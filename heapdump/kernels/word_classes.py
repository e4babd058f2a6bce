"""The words of chosen nodes of the pointer graph, and the nodes that they point into."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output


def words_of(
    words: ArrayColumn, mask: int, place: ArrayColumn, node: ArrayColumn, count: ArrayColumn, most: int,
    first: ArrayColumn, targets: ArrayColumn, start: ArrayColumn, size: ArrayColumn, values: Output, refs: Output,
) -> None:  # fmt: skip
    """Copies the first words of chosen nodes to `values`, and writes the node that each points into to `refs`.

    The pointers of a node lie in its edges in the order of their addresses, so that no search is necessary.

    Args:
        words: the file as signed words of one width.
        mask: the bits of a word: -1, or 0xFFFFFFFF for words of 4 bytes.
        place: (k,) index in `words` of the first word of each chosen node.
        node: (k,) chosen nodes.
        count: (k,) words of each that are wanted, at most `most`.
        most: words for which there is room.
        first: (n + 1,) the edges of node i are `targets[first[i]:first[i + 1]]` (`kernels.reach`).
        targets: likewise.
        start: (n,) address of each node.
        size: (n,) bytes of each node.
        values: (k * most,) gets the words.
        refs: (k * most,) gets nodes; stays as it is for words that point into none.
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
