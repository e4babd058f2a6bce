"""Growth over several dumps: slope, Kendall's test, and the shape of the growth (compare.md §4).

Pure arithmetic on numbers and times; no library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import combinations, pairwise
from statistics import median

_FEWEST = 4
"""Dumps from which on a trend can be told from chance: of three, one order in six rises all the way."""

_SIGNIFICANT = 0.05
_JUMP_SHARE = 0.8
"""Part of the growth that one jump has in a step, and that a plateau has behind it before its last third."""

_STEP_SHARE, _REST_SHARE = 0.06, 0.15
"""In a step, as a part of the jump: the largest other change, and all of them together."""

_FLAT_SHARE = 0.25
"""Slope of the last third of a plateau, as a part of the slope of the whole."""

_LEVEL_SHARE = 0.02
"""Range of a series without a trend, as a part of its largest value, below which it does not change to speak of."""

_EXACT_UP_TO = 60
"""Dumps up to which Kendall's distribution is counted; beyond, it is normal."""


class Shape(StrEnum):
    """The shape of a series; the value is the word of the JSON."""

    STEADY_GROWTH = "steady_growth"
    STEP = "step"
    PLATEAU = "plateau"
    SAWTOOTH = "sawtooth"
    SHRINKING = "shrinking"
    FLAT = "flat"
    NO_TREND = "no_trend"

    @property
    def words(self) -> str:
        """The shape, for a person."""
        return self.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Trend:
    """The trend of a series of values y_i, one a dump.

    Attributes:
        shape: None with fewer than four dumps.
        slope: units per hour, or per dump where `is_per_hour` is False; Theil and Sen's.
        is_per_hour: True where the times of all dumps are known.
        share_up: steps that rise / all steps, 0 to 1.
        kendall_s: S = Σ sign(y_j - y_i) over i < j.
        p_value: chance, 0 to 1, that values without a trend have this S or one farther in its direction.
    """

    shape: Shape | None
    slope: float
    is_per_hour: bool
    share_up: float
    kendall_s: int
    p_value: float


def hours_of(times: Sequence[int | None]) -> list[float] | None:
    """Times in hours since the first; None where one is not known, or they do not ascend."""
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(late <= early for early, late in pairwise(known)):
        return None
    return [(time - known[0]) / 3600 for time in known]


def trend_of(values: Sequence[int], hours: Sequence[float] | None) -> Trend:
    """The trend of a series; `hours` of each value, None for equal steps."""
    places = list(range(len(values))) if hours is None else hours
    steps = [late - early for early, late in pairwise(values)]
    s = kendall_s(values)
    p_value = kendall_p(len(values), abs(s))
    up = sum(step > 0 for step in steps) / len(steps) if steps else 0.0
    shape = _shape(values, places, s, p_value) if len(values) >= _FEWEST else None
    return Trend(shape, theil_sen(values, places), hours is not None, up, s, p_value)


def theil_sen(values: Sequence[int], places: Sequence[float]) -> float:
    """The median of the slopes of all pairs of values at these places; 0 with fewer than two values."""
    pairs = combinations(zip(places, values, strict=True), 2)
    slopes = [(late - early) / (b - a) for (a, early), (b, late) in pairs if b > a]
    return float(median(slopes)) if slopes else 0.0


def kendall_s(values: Sequence[int]) -> int:
    """Σ sign(y_j - y_i) over all pairs i < j."""
    return sum((late > early) - (late < early) for early, late in combinations(values, 2))


def kendall_p(count: int, s: int) -> float:
    """P(S >= s) of `count` numbers in random order, no two of them equal.

    Equal numbers make S smaller, so that p is an upper bound for them.
    """
    if count < 2:
        return 1.0
    if count > _EXACT_UP_TO:
        deviation = math.sqrt(count * (count - 1) * (2 * count + 5) / 18)
        return 0.5 * math.erfc((s - 1) / deviation / math.sqrt(2))
    pairs = count * (count - 1) // 2
    most_inversions = (pairs - s) // 2  # S = pairs - 2 * inversions
    orders = _orders_by_inversions(count)
    return sum(orders[: most_inversions + 1]) / math.factorial(count)


@cache
def _orders_by_inversions(count: int) -> tuple[int, ...]:
    """Orders of `count` numbers with 0, 1, 2 … inversions (Mahonian numbers)."""
    counts = [1]
    for size in range(2, count + 1):
        longer = [0] * (len(counts) + size - 1)
        for inversions, orders in enumerate(counts):
            for more in range(size):
                longer[inversions + more] += orders
        counts = longer
    return tuple(counts)


def _shape(values: Sequence[int], places: Sequence[float], s: int, p_value: float) -> Shape:
    """The first shape that fits."""
    if max(values) - min(values) <= _LEVEL_SHARE * max(map(abs, values)) and p_value >= _SIGNIFICANT:
        return Shape.FLAT
    if values[-1] < values[0]:
        return (
            Shape.SHRINKING if s < 0 and (p_value < _SIGNIFICANT or _is_step([-v for v in values])) else _other(values)
        )
    if _is_step(values):
        return Shape.STEP
    if s > 0 and p_value < _SIGNIFICANT:
        return Shape.PLATEAU if _is_plateau(values, places) else Shape.STEADY_GROWTH
    return _other(values)


def _is_step(values: Sequence[int]) -> bool:
    """One jump up has most of the growth, and little else moves."""
    steps = [late - early for early, late in pairwise(values)]
    jump, delta = max(steps), values[-1] - values[0]
    others = sorted(map(abs, steps))
    others.remove(jump if delta > 0 else others[-1])
    is_quiet = max(others) <= _STEP_SHARE * jump and sum(others) <= _REST_SHARE * jump
    return delta > 0 and jump >= _JUMP_SHARE * delta and is_quiet


def _is_plateau(values: Sequence[int], places: Sequence[float]) -> bool:
    """Most of the growth lies before the last third, which rises slowly or not at all."""
    first = len(values) - max(2, -(-len(values) // 3))
    delta, length = values[-1] - values[0], places[-1] - places[0]
    if delta <= 0 or values[first] - values[0] < _JUMP_SHARE * delta:
        return False
    return abs(theil_sen(values[first:], places[first:])) * length <= _FLAT_SHARE * delta


def _other(values: Sequence[int]) -> Shape:
    """Sawtooth where the direction changes at half of the places or more, and twice at least."""
    steps = [late - early for early, late in pairwise(values) if late != early]
    turns = sum((early > 0) != (late > 0) for early, late in pairwise(steps))
    return Shape.SAWTOOTH if turns >= max(2, (len(values) - 2) / 2) else Shape.NO_TREND
