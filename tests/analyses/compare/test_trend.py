"""Trends: Kendall's distribution against every order, shapes of known series, chance that is not called growth."""

from __future__ import annotations

import math
import random
from itertools import permutations

import pytest

from heapdump.analyses.compare.trend import Shape, hours_of, kendall_p, kendall_s, theil_sen, trend_of

MB = 1 << 20
_SERIES = 4000
_LENGTHS = [4, 5, 6, 8, 12, 20, 40]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 6, 7])
def test_the_distribution_is_that_of_all_orders(count: int) -> None:
    found = [kendall_s(order) for order in permutations(range(count))]
    for s in range(count * (count - 1) // 2 + 1):
        assert (
            kendall_p(count, s) == pytest.approx(sum(one >= s for one in found) / math.factorial(count))
            or (count * (count - 1) // 2 - s) % 2
        )


def test_the_normal_distribution_goes_on_where_counting_ends() -> None:
    assert kendall_p(61, 400) == pytest.approx(kendall_p(60, 391), rel=0.15)


def test_slopes_are_medians_that_one_wild_dump_does_not_move() -> None:
    assert theil_sen([0, 10, 20, 30, 40, 50], range(6)) == 10
    assert theil_sen([0, 10, 20, 9000, 40, 50], range(6)) == 10
    assert trend_of([0, 100, 200], [0, 0.5, 1]).slope == 200


def test_times_that_do_not_ascend_are_no_times() -> None:
    assert hours_of([0, 1800, 7200]) == [0, 0.5, 2]
    assert hours_of([5, 5]) is None and hours_of([7, 3]) is None and hours_of([None, 3]) is None


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ([10, 20, 30, 40], Shape.STEADY_GROWTH), ([10, 12, 20, 29, 31, 44, 45], Shape.STEADY_GROWTH), ([0, 1, 1, 2, 3, 5, 8, 13], Shape.STEADY_GROWTH),
        ([10, 10, 90, 90, 91], Shape.STEP), ([5, 5, 5, 5, 5, 700], Shape.STEP), ([5, 700, 700, 700, 700], Shape.STEP),
        ([0, 40, 70, 90, 100, 101, 101, 100, 101], Shape.PLATEAU), ([0, 50, 80, 95, 96, 96], Shape.PLATEAU),
        ([10, 50, 12, 49, 11, 52, 10], Shape.SAWTOOTH), ([100, 10, 90, 12, 110, 9], Shape.SAWTOOTH),
        ([90, 70, 60, 40, 10], Shape.SHRINKING), ([90, 90, 2, 2], Shape.SHRINKING),
        ([50, 50, 50, 50], Shape.FLAT), ([1000, 1001, 999, 1000, 1002], Shape.FLAT), ([0, 0, 0, 0, 0], Shape.FLAT),
        ([10, 20, 30], None), ([1, 2], None),
    ],
)  # fmt: skip
def test_series_of_known_shape_are_classified(values: list[int], shape: Shape | None) -> None:
    assert trend_of([value * MB for value in values], None).shape is shape
    hours = [2.5 * i for i in range(len(values))]
    assert trend_of([value * MB for value in values], hours).shape is shape


@pytest.mark.parametrize("length", _LENGTHS)
def test_chance_is_called_growth_in_fewer_than_five_of_a_hundred_series(length: int) -> None:
    chance = random.Random(length)
    alarms = {Shape.STEADY_GROWTH: 0, Shape.SHRINKING: 0, Shape.STEP: 0, Shape.PLATEAU: 0}
    for _ in range(_SERIES):
        shape = trend_of([round(chance.gauss(100 * MB, 15 * MB)) for _ in range(length)], None).shape
        if shape in alarms:
            alarms[shape] += 1
    assert alarms[Shape.STEADY_GROWTH] + alarms[Shape.STEP] + alarms[Shape.PLATEAU] < 0.05 * _SERIES, alarms
    assert alarms[Shape.SHRINKING] < 0.05 * _SERIES, alarms


@pytest.mark.parametrize("length", _LENGTHS[3:])
def test_growth_in_noise_is_found(length: int) -> None:
    chance = random.Random(length)
    found = 0
    for _ in range(400):
        values = [round((100 + 10 * i) * MB + chance.gauss(0, 6 * MB)) for i in range(length)]
        found += trend_of(values, None).shape is Shape.STEADY_GROWTH
    assert found >= 380


@pytest.mark.parametrize("shape", [Shape.STEP, Shape.PLATEAU, Shape.SAWTOOTH, Shape.SHRINKING])
def test_shapes_with_a_little_noise_are_found(shape: Shape) -> None:
    chance = random.Random(shape)
    found = 0
    for _ in range(400):
        length = chance.randrange(8, 30)
        at = chance.randrange(1, length - 2)
        shapes: dict[Shape, list[float]] = {
            Shape.STEP: [100 if i < at else 200 for i in range(length)],
            Shape.PLATEAU: [200 - 100 * 0.5**i for i in range(length)],
            Shape.SAWTOOTH: [100 + 60 * (i % 2) for i in range(length)],
            Shape.SHRINKING: [500 - 10 * i for i in range(length)],
        }
        values = [round(value * MB + chance.gauss(0, 0.2 * MB)) for value in shapes[shape]]
        found += trend_of(values, None).shape is shape
    assert found >= 380, found
