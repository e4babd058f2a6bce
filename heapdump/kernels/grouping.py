"""Numbers the distinct values of a key, and sums rows of a block table by these numbers; one pass each."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader


def assign(values: ArrayColumn, low: int, shift: int, table: Output, numbers: Output) -> int:
    """Numbers the distinct values from 0 on, in the order of their first appearance.

    Args:
        values: (n,) 0, or `low` and more; multiples of `1 << shift` above `low`.
        low: the smallest value that is not 0.
        shift: see above.
        table: of 0, scratch. Value 0 has index 0, any other value index `((value - low) >> shift) + 1`.
        numbers: (n,) gets the number of each value; may be `values`.

    Returns:
        How many distinct values there are.
    """
    count = 0
    for i in range(len(values)):
        value = values[i]
        place = 0
        if value:
            place = ((value - low) >> shift) + 1
        if table[place] == 0:
            count += 1
            table[place] = count
        numbers[i] = table[place] - 1
    return count


def add_up(numbers: ArrayColumn, chosen: ArrayColumn, rows: RowReader, counts: Output, totals: Output) -> None:
    """Adds 1 to `counts[numbers[i]]`, and the requested bytes of row `chosen[i]` to `totals[numbers[i]]`."""
    size8, unused = rows.size8, rows.unused
    for i in range(len(chosen)):
        row, number = chosen[i], numbers[i]
        counts[number] += 1
        totals[number] += size8[row] * UNIT - unused[row]


def aggregate(
    chosen: ArrayColumn, numbers: ArrayColumn, rows: RowReader, heaps: int, most: int,
    counts: Output, totals: Output, smallest: Output, largest: Output, seen: Output, samples: Output,
) -> None:  # fmt: skip
    """Adds row `chosen[i]` to the sums of its number, `numbers[i]`.

    Args:
        chosen: (n,) rows of the block table.
        numbers: (n,) in [0, m).
        rows: the block table.
        heaps: number of heaps.
        most: rows that are kept as samples of one number.
        counts: (m,) number of rows.
        totals: (m,) requested bytes.
        smallest: (m,) requested bytes of the smallest row.
        largest: (m,) requested bytes of the largest row.
        seen: (m * heaps,); element `number * heaps + heap` becomes 1 where a row of the number lies in that heap.
        samples: (m * most,); gets the first `most` rows of each number, from element `number * most` on.
    """
    size8, unused, heap = rows.size8, rows.unused, rows.heap
    for i in range(len(chosen)):
        row, number = chosen[i], numbers[i]
        size = size8[row] * UNIT - unused[row]
        if counts[number] < most:
            samples[number * most + counts[number]] = row
        if counts[number] == 0 or size < smallest[number]:
            smallest[number] = size
        if size > largest[number]:
            largest[number] = size
        seen[number * heaps + heap[row]] = 1
        counts[number] += 1
        totals[number] += size
