"""Answers beside a walk: stored once, read back, made again where they belong to another question or are damaged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heapdump.blocks.table import COLUMNS, BlockTable
from heapdump.blocks.walk import Walk
from heapdump.cache.answers import StoredAnswer, answer_from, json_answer
from heapdump.cache.store import Store
from heapdump.cache.walk import write_walk

SQUARES = StoredAnswer("squares", lambda columns: columns["values"].tolist(), lambda found: {"values": np.array(found)})


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """With a stored walk of no blocks."""
    store = Store("stamp", tmp_path / "indexes")
    write_walk(
        store, Walk(lambda: BlockTable(**{name: np.empty(0, kind) for name, kind in COLUMNS.items()}), {}, (), ())
    )
    return store


def is_stored(store: Store) -> bool:
    return (store.folder / "squares.json").is_file()


def never() -> list[int]:
    raise AssertionError("made again")


def test_an_answer_is_made_once(store):
    assert not is_stored(store)
    assert answer_from(store, SQUARES, lambda: [1, 4, 9]) == [1, 4, 9]
    assert is_stored(store)
    assert answer_from(store, SQUARES, never) == [1, 4, 9]


def test_an_answer_to_another_question_is_made_again(store):
    answer_from(store, SQUARES, lambda: [1, 4, 9])
    other = StoredAnswer("squares", lambda columns: None, SQUARES.write)
    assert answer_from(store, other, lambda: [16]) == [16]
    assert answer_from(store, SQUARES, never) == [16]


def test_a_damaged_answer_is_made_again_and_said(store):
    answer_from(store, SQUARES, lambda: [1, 4, 9])
    file = store.folder / "squares.values"
    file.write_bytes(file.read_bytes()[:-1])
    assert answer_from(store, SQUARES, lambda: [1]) == [1]
    assert any("squares" in remark and "damaged" in remark for remark in store.remarks)


def test_a_json_answer_comes_back_as_it_was(store):
    text = json_answer("text", lambda record: record["text"], lambda found: {"text": found})
    assert answer_from(store, text, lambda: "Größe ←") == "Größe ←"
    assert answer_from(store, text, never) == "Größe ←"


def test_without_a_walk_nothing_is_stored(tmp_path):
    (tmp_path / "indexes").mkdir()
    store = Store("stamp", tmp_path / "indexes")
    assert answer_from(store, SQUARES, lambda: [1]) == [1]
    assert not is_stored(store)
