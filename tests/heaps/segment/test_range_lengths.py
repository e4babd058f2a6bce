"""How many units page ranges have, by UnitSize and by the numbers of their units."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump.heaps.segment.range_lengths import range_lengths

FIRST = 9
"""Stands for the first unit of a range; other digits are numbers of units, a space is a unit that is not in use."""


@pytest.mark.parametrize(
    ("units", "sizes", "expected"),
    [
        ("9123 91", {0: 4, 5: 2}, {0: 4, 5: 2}),
        ("9123 91", {0: 2, 5: 2}, {0: 4, 5: 2}),  # too small: the numbers go on
        ("9123 91", {0: 7, 5: 2}, {0: 5, 5: 2}),  # too large: cut at the next range
        ("9123012", {0: 2}, {0: 4}),  # the first unit of the next range is damaged: that range is another one
        ("9103 91", {0: 1, 5: 2}, {0: 2, 5: 2}),
    ],
)
def test_a_range_reaches_as_far_as_its_units_are_numbered(units, sizes, expected):
    is_first = np.array([[unit == str(FIRST) for unit in units]])
    in_use = np.array([[unit != " " for unit in units]])
    numbers = np.array([[sizes.get(i, 0 if unit == " " else int(unit)) for i, unit in enumerate(units)]])
    found = range_lengths(is_first, in_use, is_first, numbers)[0]
    assert {int(i): int(found[i]) for i in np.flatnonzero(found)} == expected
