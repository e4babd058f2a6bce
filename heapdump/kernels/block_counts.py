"""Counts the rows of a block table by heap and by what they are, in one pass."""

from __future__ import annotations

from typing import Any


def tally(heap: Any, units: Any, spare: Any, tags: Any, counts: Any, occupied: Any, unasked: Any) -> None:
    """Adds each row to the three sums at `heap * 64 + low six bits of tags`: 1, occupied bytes, and spare ones."""
    for i in range(len(heap)):
        place = heap[i] * 64 + (tags[i] & 63)
        counts[place] += 1
        occupied[place] += units[i] * 8
        unasked[place] += spare[i]
