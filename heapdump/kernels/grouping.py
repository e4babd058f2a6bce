"""Numbers the different values of a key, and sums rows up by such numbers; one pass each."""

from __future__ import annotations

from typing import Any


def assign(values: Any, low: int, shift: int, table: Any, numbers: Any) -> int:
    """Numbers values in the order of their first appearance; how many different ones there are.

    `table` has a zero for each possible `((value - low) >> shift) + 1`; a value of 0 takes place 0. `numbers[i]` becomes
    the number of `values[i]`, counted from 0.
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


def add_up(numbers: Any, rows: Any, units: Any, spare: Any, counts: Any, totals: Any) -> None:
    """Adds 1 to `counts[number]` of each row of a block table, and its requested bytes to `totals[number]`."""
    for i in range(len(rows)):
        row, number = rows[i], numbers[i]
        counts[number] += 1
        totals[number] += units[row] * 8 - spare[row]


def aggregate(
    rows: Any, numbers: Any, units: Any, spare: Any, heap: Any, heaps: int, most: int,
    counts: Any, totals: Any, smallest: Any, largest: Any, seen: Any, samples: Any,
) -> None:  # fmt: skip
    """Adds each row to its number's sums: rows, requested bytes, smallest and largest, and its first `most` rows.

    `seen[number * heaps + heap of the row]` becomes 1.
    """
    for i in range(len(rows)):
        row, number = rows[i], numbers[i]
        size = units[row] * 8 - spare[row]
        if counts[number] < most:
            samples[number * most + counts[number]] = row
        if counts[number] == 0 or size < smallest[number]:
            smallest[number] = size
        if size > largest[number]:
            largest[number] = size
        seen[number * heaps + heap[row]] = 1
        counts[number] += 1
        totals[number] += size
