"""Lines of text folded at words, and tables: what is cut, what goes on below, sizes, numbers of rows."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from heapdump.render.folding import fold
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


PIECES = st.sampled_from(
    ["", " ", "12 MB", "of 3 bytes", "\t", "データ", "\x1b[31m", "\ue000", "C:\\a b\\c.dll", "heapdump heaps"]
)


@given(st.lists(st.tuples(PIECES, st.sampled_from(["", "bold", "command"])), max_size=5), st.integers(8, 90))
def test_a_line_reads_the_same_with_and_without_colours(pieces, width):
    plain = "".join(draw([Lines([pieces])], color=False, width=width, explain=False))
    coloured = "".join(draw([Lines([pieces])], color=True, width=width, explain=False))
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured).split("\n") == plain.split("\n")


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


def test_several_columns_share_the_width_and_none_goes_over_it():
    columns: tuple[Column[str], ...] = (
        Column("Number", lambda key: "0x2444ff8dfd0", "fixed"),
        Column("Short", lambda key: "other", "flexible, needs little", flexible=16, wraps=True),
        Column("Type", lambda key: key * 3, "needs more than its share", flexible=16, wraps=True),
        Column("Caller", lambda key: key, "needs most", flexible=16),
    )
    for width in range(60, 200, 7):
        lines = drawn(Table(columns, KEYS), width)
        assert max(map(len, lines)) <= width
        assert len(lines) > 3 or width >= 190
    assert len(drawn(Table(columns, KEYS), 230)) == 3


def test_a_column_of_a_high_rank_stays_where_it_fits_and_a_wider_one_does_not():
    columns: tuple[Column[str], ...] = (
        Column("Key", lambda key: "short", "stays"),
        Column("Wide", lambda key: "x" * 30, "goes, of a low rank", rank=2),
        Column("#", lambda key: "~0", "fits, of a higher rank", rank=3),
    )
    assert drawn(Table(columns, ["one"]), 20) == ["Key    #", "short  ~0", "not shown at this", "  width: Wide"]


def test_empty_columns_are_not_shown_and_equal_ones_are_told_once():
    columns: tuple[Column[str], ...] = (
        Column("Key", lambda key: key, "the rows differ"),
        Column("Heap", lambda key: "0x500000", "the same for all", folds=True),
        Column("State", lambda key: "busy", "the same, but not to be folded"),
        Column("Flags", lambda key: "", "nothing"),
    )
    assert drawn(Table(columns, ["a", "b", "c"]), 80) == [
        "Key  State", "a    busy", "b    busy", "c    busy", "in every row above: Heap 0x500000",
    ]  # fmt: skip
    assert drawn(Table(columns, ["a", "b"]), 80)[:2] == ["Key  Heap      State", "a    0x500000  busy"]
    explained = "".join(draw([Table(columns, ["a", "b", "c"])], color=False, width=80, explain=True))
    assert "  Heap: the same for all\n" in explained
    assert "Flags" not in explained


def test_a_number_is_not_parted_from_its_unit():
    text = "system commit 11.9 GB of 18.5 GB"
    assert "".join(draw([Lines([[(text, "")]])], color=False, width=30, explain=False)).splitlines() == [
        "system commit 11.9 GB of", "  18.5 GB",
    ]  # fmt: skip
    column: Column[str] = Column("Key", lambda key: key, "what decides", flexible=4, wraps=True)
    assert drawn(Table([column], [text]), 30)[1:] == ["system commit 11.9 GB of", "18.5 GB"]


def test_names_are_parted_where_one_of_their_parts_ends():
    assert fold("buffer at visioncore.dll!PushFrame+0x12", 16) == ["buffer at", "visioncore.dll!", "PushFrame+0x12"]
    assert fold("class std::vector", 12) == ["class", "std::vector"]
    assert fold(r"C:\Windows\System32\ntdll.dll", 14) == ["C:\\Windows\\", "System32\\", "ntdll.dll"]
    assert fold("of 3.5 MB", 6) == ["of", "3.5 MB"]


@pytest.mark.property
@given(text=st.text("ab !:\\/+0x字", max_size=60), width=st.integers(2, 20))
def test_folding_loses_no_character_but_spaces_and_no_line_is_too_wide(text, width):
    lines = fold(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cell_len(line) <= width for line in lines) or cell_len(text) <= width


def test_columns_that_fold_give_way_where_no_column_can_be_left_out():
    columns: tuple[Column[str], ...] = (
        Column("Key", lambda key: "0x2444ff8dfd0", "fixed"),
        Column("Type", lambda key: "buffer of the std::vector", "wraps", flexible=16, wraps=True),
        Column("Caller", lambda key: "visioncore.dll!PushFrame", "wraps", flexible=24, wraps=True),
    )
    lines = drawn(Table(columns, KEYS), 45)
    assert max(map(len, lines)) <= 45
    assert lines[1] == "0x2444ff8dfd0  buffer of the   visioncore.dll"


def test_tables_that_look_alike_have_the_same_columns_and_name_the_others_once():
    columns: list[Column[str]] = [Column(name, str, name, rank=rank) for rank, name in enumerate("AB")]
    rows = ["short", "a text that is long"]
    first = drawn(Table(columns, rows[:1], beside=rows, goes_on=True), 30)
    last = drawn(Table(columns, rows[1:], beside=rows), 30)
    assert first == ["A", "short"]
    assert last == ["A", rows[1], "not shown at this width: B"]
    assert drawn(Table(columns, rows[:1]), 30)[0].split() == ["A", "B"]
