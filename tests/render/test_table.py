"""Lines of text folded at words, and tables: what is cut, what goes on below, sizes, numbers of rows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.render.table import draw
from heapdump.render.view import Column, Lines, Table, size_column


@pytest.mark.property
@given(
    words=st.lists(st.text("abc", min_size=1, max_size=9), min_size=1, max_size=30),
    width=st.integers(22, 40),
    indent=st.integers(0, 3),
)
def test_folded_lines_hold_every_word_once_and_hang_two_columns_in(words, width, indent):
    text = " " * indent + " ".join(words)
    first, *rest = "".join(draw([Lines([[(text, "")]])], color=False, width=width, explain=False)).splitlines()
    assert " ".join([first, *rest]).split() == words
    assert all(len(line) <= max(width, 20 + indent + 2) and line == line.rstrip() for line in (first, *rest))
    assert all(len(line) - len(line.lstrip()) == indent + 2 for line in rest)


def test_a_space_behind_a_full_line_is_not_put_before_the_next_one():
    lines = "".join(
        draw([Lines([[("a" * 10 + " " + "b" * 11 + " cc", "")]])], color=False, width=22, explain=False)
    ).splitlines()
    assert lines == ["a" * 10 + " " + "b" * 11, "  cc"]


KEYS = ("PoolAlloc ← XMalloc ← CommandLoop ← MainWorker", "short")
COLUMNS: tuple[Column[str], ...] = (
    size_column("Size", lambda key: 1000 * len(key), "of it"),
    Column("Key", lambda key: key, "what decides", flexible=12, wraps=True),
    Column("Less", lambda key: "word", "goes first", rank=1),
)


def drawn(table, width, **look):
    return "".join(draw([table], color=False, width=width, explain=False, **look)).splitlines()


def test_a_column_that_wraps_shows_every_word():
    lines = drawn(Table(COLUMNS, KEYS), 27)
    assert lines[:6] == [
        "    Size  Key",
        "44.92 kB  PoolAlloc ←",
        "          XMalloc ←",
        "          CommandLoop ←",
        "          MainWorker",
        "4.883 kB  short",
    ]
    assert lines[6:] == ["not shown at this width:", "  Less"]
    assert drawn(Table(COLUMNS, KEYS), 80)[1] == f"44.92 kB  {KEYS[0]}  word"


def test_a_word_longer_than_the_column_goes_on_below():
    column: Column[str] = Column("Key", lambda key: key, "what decides", flexible=4, wraps=True)
    assert drawn(Table([column], ["abcdefghij"]), 4) == ["Key", "abcd", "efgh", "ij"]


def test_rows_are_numbered_and_sizes_exact_where_that_is_asked_for():
    lines = drawn(Table(COLUMNS, KEYS, numbered=True), 80, exact=True)
    assert [line.split()[:2] for line in lines] == [["#", "Size"], ["#1", "46,000"], ["#2", "5,000"]]


def test_a_column_without_a_title_is_not_named_among_those_left_out():
    bar: Column[str] = Column("", lambda key: "#" * 20, "a bar", rank=1)
    assert drawn(Table([COLUMNS[1], bar], ["short"]), 20) == ["Key", "short"]


def test_a_table_whose_rows_are_all_hidden_is_not_empty():
    assert drawn(Table(COLUMNS, [], hidden=3, empty="nothing"), 80)[-1] == "… 3 more (--all, or --limit N)"
