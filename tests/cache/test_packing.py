"""Packed columns come back as they were; bytes that `pack` does not write are an error or some other column."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.cache.packing import Packing, pack, unpack
from tests.bench.graph import write_graph_dump

KINDS = ("u1", "u2", "u4", "u8", "i4", "i8")
ROWS = 5000


def back(column: np.ndarray[Any, Any]) -> Packing:
    found, data = pack(column)
    assert len(data) == found.file_bytes(len(column), column.itemsize)
    again = unpack(data, Packing.of(found.record()), len(column), column.dtype)
    assert again.dtype == column.dtype and np.array_equal(again, column)
    return found


@pytest.mark.property
@given(
    st.sampled_from(KINDS),
    st.integers(0, 63),
    st.integers(0, 1 << 40),
    st.integers(0, 300),
    st.booleans(),
    st.integers(0),
)
def test_columns_come_back(kind: str, bits: int, base: int, outliers: int, ascend: bool, seed: int) -> None:
    dtype, chance = np.dtype(kind), np.random.default_rng(seed % (1 << 32))
    values = base + chance.integers(0, 1 << bits, ROWS, dtype=np.int64)
    values[chance.integers(0, ROWS, outliers)] = chance.integers(-(1 << 62), 1 << 62, outliers)
    if ascend:
        values = np.cumsum(values & 0xFFFF0)
    back(values.view(np.uint64).astype(dtype) if dtype.kind == "u" else values.astype(dtype))


@pytest.mark.parametrize(
    ("column", "width", "steps"),
    [
        (np.full(ROWS, 7, np.uint16), 0, False),
        (np.arange(ROWS, dtype=np.int32), 0, True),
        (0x28A00000000 + np.cumsum(np.arange(ROWS) % 100 * 16).astype(np.uint64), 1, True),
        (np.arange(ROWS, dtype=np.uint32) % 200, 1, False),
        (np.random.default_rng(1).integers(0, 1 << 63, ROWS).astype(np.uint64) * np.uint64(2), -1, False),
        (np.array([1 << 63, (1 << 64) - 1] * ROWS, np.uint64), -1, False),
    ],
    ids=["equal", "ascending by one", "addresses", "small", "random", "large"],
)
def test_the_shortest_way_is_chosen(column: np.ndarray[Any, Any], width: int, steps: bool) -> None:
    found = back(column)
    assert (found.width, found.steps) == (width, steps)


def test_one_large_number_among_small_ones_is_an_exception() -> None:
    column = np.arange(1 << 16, dtype=np.uint32) % 100
    column[[5, 40_000]] = (1 << 31, (1 << 32) - 1)
    assert back(column).exceptions == 2


@pytest.mark.parametrize("seed", range(200))
def test_forged_bytes_are_no_defect(seed: int) -> None:
    chance = random.Random(seed)
    column = np.cumsum(np.arange(ROWS) % 50).astype(np.uint64)
    column[[70, 900]] += 1 << 40
    found, data = pack(column)
    forged = Packing(
        chance.choice((found.width, 0, 1, 2, 4)), chance.choice((found.steps, True, False)),
        chance.choice((found.base, -5, 1 << 61)), chance.choice((found.shift, 31)),
        chance.choice((found.exceptions, 0, 1, 100, ROWS + 1)),
    )  # fmt: skip
    size = forged.file_bytes(ROWS, 8)
    changed = np.frombuffer(chance.randbytes(size), np.uint8) if chance.random() < 0.5 else np.resize(data, size)
    with contextlib.suppress(ValueError):
        assert len(unpack(changed, forged, ROWS, np.dtype(np.uint64))) == ROWS


@pytest.mark.parametrize(
    "record", [[], [3, 0, 0, 0, 0], [1, 0, 0, 64, 0], [1, 0, 1 << 62, 0, 0], [1, 0, 0, 0, -1], [1] * 6]
)
def test_there_is_no_other_packing(record: list[int]) -> None:
    with pytest.raises(ValueError, match=r"packed in another way|unpack"):
        Packing.of(record)


def test_an_index_takes_few_bytes_a_block(tmp_path, monkeypatch, capsys) -> None:
    from heapdump.cli import run

    monkeypatch.setenv("HEAPDUMP_CACHE", str(tmp_path / "cache"))
    dump, blocks = tmp_path / "x.dmp", 40_000
    write_graph_dump(dump, blocks, 56, tree=True)
    for call in ("leaks --unreachable", "retained", "leaks --group-by owner", "triage"):
        name, *rest = call.split()
        assert run([name, str(dump), *rest]) in (0, 1, 4)
    capsys.readouterr()
    size = sum(file.stat().st_size for file in (tmp_path / "cache" / "blocks").rglob("*") if file.is_file())
    assert size <= 40 * blocks
