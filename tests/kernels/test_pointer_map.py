"""The map of the blocks of a table: made of its rows alone, it is that of their addresses."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.table import BlockTable
from heapdump.kernels.pointer_map import mark, mark_rows, pages, pages_of_rows, take, take_starts
from heapdump.kernels.row import BUSY, INTERNAL

TOP = 1 << 48
STEPS = st.lists(
    st.tuples(
        st.sampled_from([0, 1, 2, 5, 4096, 9000]), st.integers(0, 6), st.sampled_from([0, BUSY, BUSY | INTERNAL])
    ),
    max_size=40,
)


def table_of(steps: list[tuple[int, int, int]], first: int) -> BlockTable:
    """Blocks with these distances from the block before, sizes, both in 16 bytes, and tags."""
    columns = BlockColumns()
    entry = first + 16 * np.cumsum([step for step, _, _ in steps], dtype=np.int64)
    size8, tags = np.array([2 * size for _, size, _ in steps]), np.array([tags for _, _, tags in steps])
    columns.append(0, entry, size8, np.zeros(len(steps), int), np.full(len(steps), 2), tags)
    return columns.since(0)


@given(steps=STEPS, first=st.sampled_from([0x10000, 0x7FF0, TOP - 0x5000]))
def test_the_map_of_rows_is_that_of_their_addresses(steps: list[tuple[int, int, int]], first: int) -> None:
    table = table_of(steps, first)
    many = len(table)
    rows, start, size = np.empty(many, np.int32), np.empty(many, np.int64), np.empty(many, np.int64)
    count = take(table.reader(), BUSY | INTERNAL, BUSY, TOP, rows, start, size)
    leaves, long = np.empty(many, np.int64), np.empty(many, np.int64)
    found, reach, joined = pages(start[:count], size[:count], leaves, long)
    cells = np.zeros(found * 128, np.int64)
    mark(start[:count], 4, cells)

    same, same_leaves = np.empty(many, np.int32), np.empty(many, np.int64)
    merged = int(np.bitwise_or.reduce(start[:count], initial=0))
    assert joined == merged
    own_leaves, own_long = np.empty(many, np.int64), np.empty(many, np.int64)
    assert pages_of_rows(table.reader(), rows[:count], own_leaves, own_long)[::2] == (found, merged)
    assert own_leaves[:found].tolist() == leaves[:found].tolist()
    assert set(long[:reach].tolist()) <= set(own_long.tolist())
    found_rows = take_starts(table.reader(), BUSY | INTERNAL, BUSY, TOP, same, same_leaves)
    crowded = sum(int(row) + 1 < many and table.entry[row + 1] <= table.address[row] for row in rows[:count])
    assert found_rows == (count, found, merged, crowded)
    assert same[:count].tolist() == rows[:count].tolist()
    assert same_leaves[:found].tolist() == leaves[:found].tolist()
    marked = np.zeros(found * 128, np.int64)
    mark_rows(table.reader(), same[:count], 4, marked)
    assert marked.tolist() == cells.tolist()


def test_a_block_below_the_one_before_has_no_map() -> None:
    table = table_of([(0, 1, BUSY), (-2, 1, BUSY)], 0x10000)
    assert take_starts(table.reader(), BUSY, BUSY, TOP, np.empty(2, np.int32), np.empty(2, np.int64))[0] == -1
