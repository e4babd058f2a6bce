"""Numbers the different values of a key, and sums rows of a block table by such numbers; one pass each."""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Output
from heapdump.kernels.row import UNIT, RowReader


def assign(values: ArrayColumn, low: int, shift: int, table: Output, numbers: Output) -> int:
    """Numbers values from 0 on in the order of their first appearance: `numbers[i]` becomes the number of `values[i]`.

    `table`: a zero for each possible place, which is `((value - low) >> shift) + 1`, and 0 for a value of 0. It becomes
    1 + the number of the value with that place.

    Returns:
        The number of different values.
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
        chosen: (n,) rows.
        numbers: (n,) below m.
        rows: the block table.
        heaps: number of heaps.
        most: samples of each number.
        counts: (m,) rows.
        totals: (m,) requested bytes.
        smallest: (m,) fewest requested bytes of a row.
        largest: (m,) most requested bytes of a row.
        seen: (m * heaps,); element `number * heaps + heap of the row` becomes 1.
        samples: (m * most,); from element `number * most` on, the first `most` rows.
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
