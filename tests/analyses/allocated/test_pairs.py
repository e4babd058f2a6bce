"""Bytes of pairs of groups equal those of a dictionary."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from heapdump import large_arrays
from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.allocated.pairs import bytes_of_pairs, places_of_rows
from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY


def test_bytes_of_pairs_are_those_of_their_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_arrays, "PART", 3)
    count = 8
    table = BlockTable(
        np.arange(count, dtype=np.uint64) * np.uint64(64), np.arange(2, 2 + count, dtype=np.uint32),
        np.full(count, 8, np.uint32), np.full(count, 1, np.uint8), np.zeros(count, np.uint16),
        np.full(count, BUSY, np.uint16),
    )  # fmt: skip

    def grouped(rows: list[int], values: list[int]) -> Leaks:
        """What is read of groups."""
        found: Any = SimpleNamespace(rows=np.array(rows, np.int64), values=np.array(values, np.int64))
        return cast(Leaks, found)

    left = places_of_rows(grouped([0, 1, 2, 3, 5, 7], [4, 4, 9, 2, 2, 9]), [9, 4], count)
    right = places_of_rows(grouped([0, 1, 2, 3, 4, 5, 7], [0, 1, 0, 1, 0, 0, 1]), [0, 1], count)
    found = bytes_of_pairs(table, left, right)
    sizes = table.size.tolist()
    truth = {(1, 0): sizes[0], (1, 1): sizes[1], (0, 0): sizes[2], (2, 1): sizes[3], (2, 0): sizes[5], (0, 1): sizes[7]}
    assert {(i, k): int(found[i, k]) for i, k in np.argwhere(found).tolist()} == truth
