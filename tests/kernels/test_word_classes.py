"""The words of chosen nodes, and what they point into: compiled and in plain Python alike."""

from __future__ import annotations

import numpy as np
import pytest

from heapdump import kernels
from heapdump.kernels.word_classes import words_of

START, SIZE = np.array([0x1000, 0x1040, 0x1080], np.int64), np.array([64, 64, 8], np.int32)
FIRST, TARGETS = np.array([0, 3, 4, 4], np.int32), np.array([1, -2, 2, 0], np.int32)
WORDS = np.array([7, 0x1040, 0, 0x1048, 5, 0x1080, 0x1040, 9, 0x1000, 0x1041], np.int64)


@pytest.mark.parametrize("blocks", [0, kernels.WORTH_COMPILING])
def test_words_point_into_the_nodes_of_the_edges_in_turn(blocks):
    if blocks:
        pytest.importorskip("numba")
    values, refs = np.zeros(16, np.int64), np.full(16, -1, np.int64)
    place, node, count = np.array([0, 8]), np.array([0, 1]), np.array([8, 2])
    kernels.run(words_of, blocks, WORDS, -1, place, node, count, 8, FIRST, TARGETS, START, SIZE, values, refs)
    assert values.tolist() == [*WORDS[:8].tolist(), 0x1000, 0x1041, *[0] * 6]
    assert refs.tolist() == [-1, 1, -1, 1, -1, 2, -1, -1, 0, *[-1] * 7]
