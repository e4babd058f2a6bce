"""Rows of a block table in the making are brought into order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.columns import BlockColumns

ENTRIES = st.lists(st.one_of(st.integers(0, 12), st.integers(0, (1 << 64) - 1)), max_size=60)


def columns_of(entries: list[int]) -> BlockColumns:
    """Rows with these entries, each numbered in its other columns."""
    columns, count = BlockColumns(), len(entries)
    tail = columns.tail(count)
    for row, entry in enumerate(entries):
        tail.entry[row] = entry
        for column in (tail.size8, tail.unused, tail.header8, tail.tags):
            column[row] = row
    columns.add(count, 5)
    return columns


@given(entries=ENTRIES, first=st.integers(0, 60))
def test_rows_are_sorted_by_entry_and_equal_ones_stay_in_order(entries, first):
    first = min(first, len(entries))
    columns = columns_of(entries)
    columns.sort(first)
    order = [*range(first), *sorted(range(first, len(entries)), key=lambda i: entries[i])]
    table = columns.since(0)
    assert table.entry.tolist() == [entries[i] for i in order]
    for column in (table.size8, table.unused, table.header8, table.tags):
        assert column.tolist() == order
    assert table.heap.tolist() == [5] * len(entries)


def test_a_long_column_with_one_row_out_of_order_is_sorted():
    """Order is looked for by parts of 1 << 18 rows: the last of one and the first of the next are compared too."""
    for place in (1 << 18, (1 << 18) + 1, (1 << 18) + 2):
        columns, count = BlockColumns(), (1 << 18) + 3
        np.asarray(columns.tail(count).entry)[:count] = np.arange(count)
        columns.add(count, 0)
        columns.since(0).entry[place - 1 : place + 1] = place, place - 1
        columns.sort()
        assert np.array_equal(columns.since(0).entry, np.arange(count))
