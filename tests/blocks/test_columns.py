"""Rows of a block table in the making are brought into order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.columns import BlockColumns, copy_rows

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


@given(counts=st.lists(st.integers(0, 200_000), max_size=5), foreseen=st.integers(0, 400_000))
def test_columns_grow_to_what_is_foreseen_and_keep_their_rows(counts, foreseen):
    """Never to a fixed share of the memory that is walked."""
    columns, total = BlockColumns(forecast=lambda: foreseen), 0
    for count in counts:
        rows = columns.claim(count)
        rows.entry[:] = np.arange(total, total + count)
        total += count
    assert np.array_equal(columns.since(0).entry, np.arange(total))
    assert len(columns._all) <= max(foreseen * 17 // 16, total * 5 // 4) + (1 << 16)


def test_rows_claimed_before_others_may_be_written_after_them():
    columns = BlockColumns(forecast=lambda: 10)
    first, second = columns.claim(2), columns.claim(1)
    assert columns.has_room(3)
    copy_rows(columns_of([7]).since(0), second)
    copy_rows(columns_of([3, 5]).since(0), first)
    assert columns.since(0).entry.tolist() == [3, 5, 7]
    assert columns.since(0).tags.tolist() == [0, 1, 0]
