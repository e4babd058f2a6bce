"""How many units page ranges have, by their first descriptors and by the numbers of their units.

UnitSize of the first unit of a range is the number of its units; in the other units in use the same byte is the number
of the unit in its range (docs/reference/heap-structures.md §6.3).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]
Numbers = NDArray[np.int64]


def range_lengths(is_first: Flags, in_use: Flags, is_signed: Flags, unit_size: Numbers) -> Numbers:
    """Units of each range at its first unit, 0 elsewhere: UnitSize, cut at the next range.

    Where the units behind the end go on with the numbers, UnitSize is too small, and they belong to the range.

    Args:
        is_first: (segments, units) True for the first unit of a range.
        in_use: likewise, True for units in use.
        is_signed: likewise, True for descriptors with the TreeSignature, which have no number.
        unit_size: likewise, UnitSize.
    """
    units = np.arange(is_first.shape[1])
    to_next = np.where(is_first, _next(is_first)[:, 1:] - units, 0)
    cut = np.where(is_first & (unit_size > 0), np.minimum(to_next, unit_size), to_next)
    first = np.maximum.accumulate(np.where(is_first, units, 0), axis=1)
    is_numbered = in_use & ~is_signed & (unit_size == units - first) & (units > first)
    end = np.take_along_axis(_next(~is_numbered), np.minimum(units + cut, len(units)), axis=1)
    return np.where(in_use & (cut > 0), np.minimum(end - units, to_next), cut)


def _next(found: Flags) -> Numbers:
    """(segments, units + 1) the first unit, at each one or behind it, for which `found` is True; `units` for none."""
    many = found.shape[1]
    place = np.where(found, np.arange(many), many)
    place = np.concatenate([place, np.full((len(place), 1), many)], axis=1)
    return np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
