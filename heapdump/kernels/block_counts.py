"""Counts the rows of a block table by heap and class (the low six bits of `tags`), in one pass."""

from __future__ import annotations

from heapdump.kernels.arrays import Output
from heapdump.kernels.row import CLASS_MASK, CLASSES, UNIT, RowReader


def tally(rows: RowReader, counts: Output, occupied: Output, unused: Output) -> None:
    """Adds each row to three sums at index `heap * CLASSES + class`.

    Args:
        rows: the block table.
        counts: (heaps * CLASSES,) number of rows.
        occupied: (heaps * CLASSES,) occupied bytes.
        unused: (heaps * CLASSES,) unused bytes.
    """
    size8, unused_bytes, heap, tags = rows.size8, rows.unused, rows.heap, rows.tags
    for i in range(len(heap)):
        place = heap[i] * CLASSES + (tags[i] & CLASS_MASK)
        counts[place] += 1
        occupied[place] += size8[i] * UNIT
        unused[place] += unused_bytes[i]
