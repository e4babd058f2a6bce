"""Lines of text folded at words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.render.table import draw
from heapdump.render.view import Lines


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
