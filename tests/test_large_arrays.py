"""Large arrays in files hold what arrays in memory hold, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from heapdump import large_arrays, open_dump
from heapdump.large_arrays import LARGE_BYTES, empty, full, resized, zeros
from tests.samples import SAMPLES

MANY = LARGE_BYTES // 8


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where large arrays lie in files."""
    large_arrays.use_files(tmp_path)
    yield tmp_path
    large_arrays.use_files(None)


def test_in_memory_they_are_plain_arrays() -> None:
    assert empty(MANY, np.int64).base is None
    assert resized(zeros(3, np.int64), MANY)[:3].tolist() == [0, 0, 0]


def test_in_files_they_can_be_written_and_grow(folder: Path) -> None:
    array = full(MANY, 7, np.int64)
    assert array.base is not None and array.flags.writeable
    array[-1] = 8
    longer = resized(array, 2 * MANY)
    assert longer[[0, MANY - 1, MANY, -1]].tolist() == [7, 8, 0, 0]
    assert resized(longer, 4).tolist() == [7] * 4
    assert not any(folder.iterdir()), "files have no names"


def test_short_ones_stay_in_memory(folder: Path) -> None:
    assert empty(MANY - 1, np.int64).base is None


def test_a_full_disk_leaves_them_in_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, size: int) -> None:
        raise OSError

    monkeypatch.setattr(large_arrays, "_reserve", refuse)
    assert zeros(MANY, np.int64).base is None


def test_answers_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    SAMPLES["service"](tmp_path / "a.dmp")

    def answers() -> list[list[int]]:
        with open_dump(tmp_path / "a.dmp", use_index=False) as snapshot:
            tree = snapshot.retained
            columns = (*snapshot.walk.table.columns(), snapshot.reached.state, tree.order, tree.dominator, tree.bytes)
            return [column.tolist() for column in columns]

    plain = answers()
    monkeypatch.setattr(large_arrays, "LARGE_BYTES", 0)
    made: list[int] = []
    in_file = large_arrays._in_file

    def counted(count: int, kind: type[np.generic]) -> NDArray[np.generic]:
        made.append(count)
        return in_file(max(count, 1), kind)[:count]

    monkeypatch.setattr(large_arrays, "_in_file", counted)
    large_arrays.use_files(tmp_path)
    try:
        assert answers() == plain
    finally:
        large_arrays.use_files(None)
    assert len(made) > 20


def test_pieces_make_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers are looked up and counted piece by piece, and negative ones are none."""
    monkeypatch.setattr(large_arrays, "PART", 3)
    assert [(part.start, part.stop) for part in large_arrays.batches(7)] == [(0, 3), (3, 6), (6, 7)]
    numbers = np.array([2, 0, -1, 2, 1, -1, 2], np.int32)
    assert large_arrays.count_each(numbers, 4).tolist() == [1, 1, 3, 0]
    assert large_arrays.count_each(numbers[:0], 2).tolist() == [0, 0]
    large_arrays.look_up(numbers, np.array([7, 8, 9, -1]))
    assert numbers.tolist() == [9, 7, -1, 9, 8, -1, 9]
