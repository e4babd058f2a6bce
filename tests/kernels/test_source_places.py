"""Where the words of blocks lie in the file: the loop beside arrays, plain and compiled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.kernels.source_places import source_places

pytestmark = pytest.mark.property
BLOCKS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 70), st.integers(0, 3)), max_size=25)
RANGES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 200), st.integers(0, 90)), max_size=5)


@settings(max_examples=60)
@given(BLOCKS, RANGES, st.sampled_from([4, 8]), st.integers(0, 2), st.sampled_from([0, 4]), st.sampled_from([0, 1, 6]))
def test_places_are_those_that_arrays_find(blocks, ranges, width, least, needed, bits):
    step, size, degree = (np.array(column, np.int64) for column in zip(*blocks, (0, 0, 0), strict=True))
    start, first = 0x1000 + np.cumsum(step), np.concatenate([[0], np.cumsum(degree)]).astype(np.int32)
    lows, highs, at = [], [], 0x1000
    for gap, length, _ in ranges:
        lows.append(at + gap)
        highs.append(at + gap + length)
        at = highs[-1]
    low, high = np.array(lows, np.int64), np.array(highs, np.int64)
    delta = np.array([offset - address for (_, _, offset), address in zip(ranges, low.tolist(), strict=True)], np.int64)
    marks = (start % 8).astype(np.uint8)
    truth: dict[int, list[tuple[int, int, int]]] = {phase: [] for phase in range(width)}
    for i, (begin, bytes_, edges) in enumerate(zip(start.tolist(), size.tolist(), degree.tolist(), strict=True)):
        need = (needed or bytes_ // width) * width
        if bits and not marks[i] & bits:
            continue
        if edges < least or (needed and bytes_ <= 3 * width):
            continue
        for r in range(len(low)):
            is_last = r + 1 == len(low) or begin < low[r + 1]
            if low[r] <= begin and is_last and begin + need <= high[r]:
                offset = begin + int(delta[r])
                truth[offset % width].append((offset // width, i, bytes_ // width))
    for run in (source_places, kernels.compiled(source_places) or source_places):
        for phase in range(width):
            out = [np.empty(len(start), np.int64) for _ in range(3)]
            many, others = run(
                start, size.astype(np.int32), 0, len(start), width, phase, first, least, needed, marks, bits, low, high,
                delta, *out,
            )  # fmt: skip
            found = list(zip(*(column[:many].tolist() for column in out), strict=True))
            assert found == truth[phase]
            assert others == sum(1 << other for other in range(width) if other != phase and truth[other])
