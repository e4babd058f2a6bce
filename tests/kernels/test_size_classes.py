"""Blocks numbered by heap and size, labels put in the place of others, bounds of rows: plain and compiled."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump import kernels
from heapdump.kernels.pointer_map import sizes_of, starts_of
from heapdump.kernels.row import RowReader
from heapdump.kernels.size_classes import choose_labels, count_numbers, number_sizes


@pytest.fixture(params=["plain", "compiled"])
def blocks(request) -> int:
    """A number of blocks for which kernels run in this way."""
    return kernels.WORTH_COMPILING if request.param == "compiled" else 0


def test_keys_are_numbered_as_they_come_and_long_ones_left_out(blocks):
    rows, size = np.array([0, 2, 3, 5, 6], np.int32), np.array([3, 1, 3, 9, 3], np.int32)
    heap, widths = np.array([0, 9, 1, 0, 9, 0, 1], np.int16), np.array([8, 8, 8, 8, 4], np.uint8)
    table, counts, width_of = (np.zeros(8, np.int64) for _ in range(3))
    numbers = np.full(5, 7, np.int32)
    assert kernels.run(number_sizes, blocks, rows, size, heap, 2, widths, table, counts, width_of, numbers) == 3
    assert numbers.tolist() == [0, 1, 0, -1, 2]
    assert (table.tolist(), counts.tolist()) == ([0, 0, 0, 2, 0, 0, 1, 3], [0, 0, 0, 1, 0, 0, 2, 1])
    assert width_of.tolist() == [0, 0, 0, 8, 0, 0, 8, 4]
    found = np.zeros(3, np.int64)
    kernels.run(count_numbers, blocks, numbers, found)
    assert found.tolist() == [2, 1, 1]


def test_a_label_is_replaced_where_the_cluster_says_more(blocks):
    number = np.array([0, 1, 0, 1], np.int32)
    choice = np.array([[5, -1], [-1, 7]], np.int64)
    kernels.run(choose_labels, blocks, np.array([0, 0, -1, 1], np.int32), choice, number)
    assert number.tolist() == [5, 1, 0, 7]


def test_a_row_ends_where_the_next_one_starts(blocks):
    entry, size8 = np.array([0x1000, 0x1040, 0x1060], np.int64), np.array([16, 4, 4], np.uint32)
    unused, header8 = np.array([8, 8, 0], np.uint32), np.array([2, 2, 2], np.uint8)
    rows = RowReader(entry, size8, unused, header8, np.zeros(3, np.int16), np.zeros(3, np.uint16))
    out = np.zeros(3, np.int64)
    kernels.run(starts_of, blocks, rows, np.arange(3, dtype=np.int32), out)
    assert out.tolist() == [0x1010, 0x1050, 0x1070]
    kernels.run(sizes_of, blocks, rows, np.arange(3, dtype=np.int32), out)
    assert out.tolist() == [0x40, 24, 32]
