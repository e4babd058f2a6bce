"""Rows around an address in a table of millions are found without reading all of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.analyses.blocks.locate import locate
from heapdump.analyses.damage.evidence import _nearest_blocks
from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, tag
from heapdump.dump.lists import RANGE
from heapdump.memory.space import AddressSpace
from tests.empty_source import EmptySource

BASE, SIZE = 0x10000000, 32


def table_of(internal: list[bool]) -> BlockTable:
    """Busy blocks side by side."""
    count = len(internal)
    tags = np.where(internal, tag(BlockKind.BACKEND, busy=True, internal=True), tag(BlockKind.BACKEND, busy=True))
    columns, each = BlockColumns(), np.ones(count, np.int64)
    columns.append(0, BASE + SIZE * np.arange(count), each * SIZE // 8, each * 16, each * 2, tags)
    return columns.since(0)


@given(internal=st.lists(st.booleans(), min_size=1, max_size=200), data=st.data())
def test_neighbours_are_the_nearest_rows_of_the_program(internal, data):
    table, row = table_of(internal), data.draw(st.integers(0, len(internal) - 1))
    own = [i for i, flag in enumerate(internal) if not flag]
    assert table.internal_rows.tolist() == [i for i, flag in enumerate(internal) if flag]
    assert table.program_row(row, 1) == min((i for i in own if i >= row), default=None)
    assert table.program_row(row, -1) == max((i for i in own if i <= row), default=None)


def test_no_look_up_makes_a_column_of_the_whole_table(monkeypatch: pytest.MonkeyPatch):
    """Thousands of damaged places in a heap of millions of blocks would take hours."""

    def refuse(table: BlockTable) -> None:
        raise AssertionError(f"a column of {len(table):,} rows")

    table = table_of([False, True, False, False, True, False])
    for name in ("address", "entry_size", "size", "kind", "is_busy", "is_internal"):
        monkeypatch.setattr(BlockTable, name, property(refuse))
    found = locate(table, AddressSpace(EmptySource(), np.empty(0, RANGE), 8), BASE + 2 * SIZE + 16)
    assert [block.row for block in found.neighbours] == [0, 3]
    assert [block and block.row for block in _nearest_blocks(table, BASE + 4 * SIZE)] == [3, 5]
