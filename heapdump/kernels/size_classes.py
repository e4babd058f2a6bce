"""Numbers blocks by heap and size, counts numbers, and puts labels in the place of others; one pass each."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Grid, Output


def number_sizes(
    rows: ArrayColumn, size: ArrayColumn, heap: ArrayColumn, heaps: int, widths: ArrayColumn, table: Output,
    counts: Output, width_of: Output, numbers: Output,
) -> int:  # fmt: skip
    """Numbers the distinct keys size * heaps + heap from 0 on, in the order of their first appearance.

    Args:
        rows: (n,) row of each node in the block table.
        size: (n,) bytes of each node.
        heap: heap of each row of the table.
        heaps: number of heaps.
        widths: (n,) bytes of a pointer.
        table: of 0; gets the number of each key, plus one.
        counts: of 0, as long as `table`; gets how many nodes have each key.
        width_of: likewise; gets the bytes of a pointer in the last one of these.
        numbers: (n,) gets the number of each node; -1 for keys for which `table` has no room.

    Returns:
        How many keys have a number.
    """
    count, room = 0, len(table)
    for i in range(len(rows)):
        key = size[i] * heaps + heap[rows[i]]
        if key >= room:
            numbers[i] = -1
            continue
        if table[key] == 0:
            count += 1
            table[key] = count
        numbers[i] = table[key] - 1
        counts[key] += 1
        width_of[key] = widths[i]
    return count


def count_numbers(numbers: ArrayColumn, counts: Output) -> None:
    """Adds to `counts[k]` how often the number k is there; negative numbers do not count."""
    for i in range(len(numbers)):
        if numbers[i] >= 0:
            counts[numbers[i]] += 1


def choose_labels(cluster: ArrayColumn, choice: Grid, number: Output) -> None:
    """Replaces the label of each block that is in a cluster by `choice[cluster, label]`, where that is no -1."""
    for i in range(len(number)):
        if cluster[i] >= 0:
            better = choice[cluster[i], number[i]]
            if better >= 0:
                number[i] = better
