"""Texts filled with the numbers of many records equal those that are written one by one."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.render.templates import Number, filled, pieces, placeholders

WORDS = ("busy", "free", 'a "quoted" word', "")
ROWS = st.lists(
    st.tuples(
        st.integers(0, (1 << 64) - 1) | st.integers(0, 1 << 20),
        st.integers(0, (1 << 64) - 1) | st.integers(0, 100_000),
        st.integers(0, 3),
        st.sampled_from(WORDS),
    ),
    min_size=1,
)


def record(address: int, size: int, stack: int, word: str) -> str:
    numbers = {"address": hex(address), "state": word, "size": size, "stack": stack or None}
    return json.dumps(numbers) + "\n"


@pytest.mark.property
@given(ROWS)
def test_filled_texts_are_those_of_json(rows: list[tuple[int, int, int, str]]) -> None:
    kinds = dict.fromkeys((word, bool(stack)) for _, _, stack, word in rows)
    forms = {form: number for number, form in enumerate(kinds)}
    address, size, stack = placeholders(3)
    templates = [
        pieces(record(address, size, stack if has_stack else 0, word), (True, False, False))
        for word, has_stack in forms
    ]
    columns = [np.array(column, np.uint64) for column in list(zip(*rows, strict=True))[:3]]
    which = np.array([forms[word, bool(stack)] for _, _, stack, word in rows])
    numbers = [Number(columns[0], is_hex=True), Number(columns[1]), Number(columns[2], is_optional=True)]
    assert filled(templates, which, numbers) == "".join(record(*row) for row in rows)


def test_an_example_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="no place for number 0"):
        pieces("{}", (False, False))
