"""Counts the rows of a block table by heap and by what they are, in one pass."""

from __future__ import annotations

from typing import Any


def tally(heap: Any, units: Any, spare: Any, tags: Any, counts: Any, totals: Any) -> None:
    """Adds each row to `counts[heap * 64 + low six bits of tags]`, and its bytes to `totals` at the same place.

    Bytes: requested of a busy row (tag bit 4), occupied of a free one.
    """
    for i in range(len(heap)):
        low = tags[i] & 63
        place = heap[i] * 64 + low
        counts[place] += 1
        totals[place] += units[i] * 8
        if low & 16:
            totals[place] -= spare[i]
