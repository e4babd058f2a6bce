"""Blocks that no loop over containers can find anything in: what is marked, against the loops over all blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heapdump import kernels
from heapdump.kernels.b_trees import tree_heads
from heapdump.kernels.container_flags import B_TREES, COUNTED, MEMBERS, SHAPES, flags_of
from heapdump.kernels.container_members import containers_of
from heapdump.kernels.container_shapes import shapes_of
from heapdump.kernels.counted_members import counted_of

pytestmark = pytest.mark.property
BASE, BLOCKS, WORDS = 0x10000, 40, 40
SIZES = (160, 16, 24, 31, 32, 40, 48, 64, 72, 96)


def random_heap(seed: int, width: int) -> tuple[np.ndarray, ...]:
    """(words, start, size, first, targets) of blocks with pointers, numbers that fit sizes, and noise."""
    random = np.random.default_rng(seed)
    shape, mask = (BLOCKS, WORDS), -1 if width == 8 else 0xFFFFFFFF
    size, start = random.choice(SIZES, BLOCKS), BASE + 0x100 * np.arange(BLOCKS)
    other, kind = random.integers(0, BLOCKS, shape), random.integers(0, 24, shape)
    near, fits = start[other], size[other]
    numbers = [
        near + fits,
        near + 16,
        fits,
        fits - 1,
        fits + 1,
        3 + 0 * near,
        7 + 0 * near,
        fits // width,
        other,
        (fits // 8) * ((1 << 32) + 1),
    ]
    words = np.select([kind == i for i in range(len(numbers))], numbers, np.where(kind < 20, near, 0))
    before = np.roll(words.reshape(-1), 1).reshape(shape)  # in order, as the ends of an array are
    words = np.where(random.random(shape) < 0.2, before + random.choice(SIZES, shape), words) & mask
    inside = (words - BASE) & 0xFF
    block = np.where((words >= BASE) & (words < BASE + 0x100 * BLOCKS), (words - BASE) >> 8, 0)
    is_edge = (words >= BASE) & (words < BASE + 0x100 * BLOCKS) & (inside < size[block])
    is_edge &= np.arange(WORDS) < (size // width)[:, None]
    targets = np.where(inside == 0, block, -1 - block)[is_edge].astype(np.int32)
    return words.reshape(-1), start, size, np.append(0, np.cumsum(is_edge.sum(axis=1))).astype(np.int32), targets


@pytest.mark.parametrize("width", [8, 4])
@settings(max_examples=25)
@given(st.integers(0, 1 << 40), st.booleans())
def test_loops_find_the_same_in_marked_blocks_as_in_all(width, seed, has_headers):
    words, start, size, first, targets = random_heap(seed, width)
    mask, nodes = -1 if width == 8 else 0xFFFFFFFF, np.flatnonzero(np.diff(first))
    header = (np.arange(BLOCKS) % 7 == 0).astype(np.uint8) * np.uint8(36 * has_headers)
    places, flags = (nodes * WORDS, nodes, size[nodes] // width), np.zeros(BLOCKS, np.uint8)
    headers = int(np.count_nonzero(header))
    high, biggest = int((start + size).max()), int(size.max())
    graph = (first, targets, start, size)
    for run in (flags_of, kernels.compiled(flags_of) or flags_of):
        run(words, mask, width, *places, BASE, high, biggest, BLOCKS, first, targets, header, headers, flags)
    loops = (
        (
            MEMBERS,
            1,
            lambda place, node, many, out: containers_of(words, mask, width, place, node, many, 0, *graph, out),
        ),
        (
            COUNTED,
            1,
            lambda place, node, many, out: counted_of(words, mask, width, place, node, many, 0, *graph, header, out),
        ),
        (
            B_TREES,
            1,
            lambda place, node, many, out: tree_heads(words, mask, width, place, node, many, 0, *graph, out),
        ),
        (
            SHAPES,
            2,
            lambda place, node, many, out: shapes_of(
                words, mask, width, place, node, many, 0, *graph, first, targets, 1, out
            ),
        ),
    )
    for bit, least, loop in loops:
        degree, found = np.diff(first)[nodes], []
        for wanted in (degree >= least, (degree >= least) & (flags[nodes] & bit != 0)):
            rows = np.zeros((4000, 6), np.int64)
            place, node, words_of = (column[wanted] for column in places)
            many, _ = loop(place, node, words_of, rows)
            found.append(rows[:many].tolist())
        assert found[0] == found[1]
