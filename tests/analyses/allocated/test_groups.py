"""Grouping: random keys and sizes equal a dictionary, compiled or not."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.analyses.allocated.groups import dense, group, number_small
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY

NEAR = st.integers(0, 500).map(lambda i: i * 8 + 0x5000000)
FAR = st.integers(0, (1 << 64) - 1)
ROWS = st.lists(st.tuples(st.one_of(st.just(0), NEAR, FAR), st.integers(2, 60), st.integers(0, 3)), max_size=80)


def table_of(rows: list[tuple[int, int, int]]) -> BlockTable:
    n = len(rows)
    size8 = np.array([size8 for _, size8, _ in rows], np.uint32)
    return BlockTable(
        np.arange(n, dtype=np.uint64) * np.uint64(0x1000), size8, np.full(n, 16, np.uint32), np.full(n, 2, np.uint8),
        np.array([heap for _, _, heap in rows], np.uint16), np.full(n, BUSY, np.uint16),
    )  # fmt: skip


def check(rows: list[tuple[int, int, int]]) -> None:
    keys = np.array([key for key, _, _ in rows], np.uint64)
    numbers, values = dense(keys)
    assert [values[number] for number in numbers.tolist()] == keys.tolist()
    assert len(set(values)) == len(values) == len(set(keys.tolist()))
    found = {g.value: g for g in group(table_of(rows), np.arange(len(rows)), numbers, values)}
    truth: dict[int, list[tuple[int, int, int]]] = defaultdict(list)
    for row, (key, size8, heap) in enumerate(rows):
        truth[key].append((row, size8 * 8 - 16, heap))
    assert found.keys() == truth.keys()
    everything = sum(size for group_ in truth.values() for _, size, _ in group_)
    for key, members in truth.items():
        got, sizes = found[key], [size for _, size, _ in members]
        assert (got.count, got.bytes, got.min_size, got.max_size) == (len(sizes), sum(sizes), min(sizes), max(sizes))
        assert got.share == pytest.approx(sum(sizes) / everything if everything else 0)
        assert got.heaps == tuple(sorted({heap for _, _, heap in members}))
        assert got.sample == tuple(row * 0x1000 + 16 for row, _, _ in members[:5])
    in_order = [g.bytes for g in found.values()]
    assert in_order == sorted(in_order, reverse=True)


@pytest.mark.property
@given(rows=ROWS)
def test_groups_equal_a_dictionary(rows):
    check(rows)


def test_compiled_groups_are_the_same(monkeypatch):
    random = np.random.default_rng(3)
    rows = [
        (int(k) * 16 + 0x7000, int(u), int(h))
        for k, u, h in zip(
            random.integers(0, 40, 900), random.integers(2, 99, 900), random.integers(0, 4, 900), strict=True
        )
    ]
    monkeypatch.setattr(kernels, "WORTH_COMPILING", 0)
    check(rows)


def test_nothing_has_no_groups():
    numbers, values = dense(np.empty(0, np.uint64))
    assert group(table_of([]), np.empty(0, np.int64), numbers, values) == ()


@given(values=st.lists(st.integers(0, 9), max_size=40))
def test_small_values_are_numbered_by_their_first_appearance(values: list[int]) -> None:
    numbers = np.array(values, np.int32)
    found = number_small(numbers)
    assert found == list(dict.fromkeys(values))
    assert [found[number] for number in numbers.tolist()] == values
