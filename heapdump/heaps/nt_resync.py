"""Finds the next trustworthy header behind a damaged one."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt_entry import decoded, headers_at
from heapdump.heaps.nt_generation import Generation

_FIRST, _WINDOW = 64, 1 << 16
"""Granules examined at a time: few at first, since damage is usually short, then twice as many each time."""


def next_good_header(
    generation: Generation, words: NDArray[np.int64], at: int, stop: int, end: int
) -> tuple[int, int] | None:
    """(granule, the PREVIOUS size its header states) of the next header in [at, stop) whose chain holds for two more.

    The chain may go on up to `end`. None where there is none. Each examined granule costs some numpy operations.
    """
    low, width = at, _FIRST
    while low < stop:
        high = min(low + width, stop)
        for granule, previous in _candidates(generation, words, low, high, end):
            if _holds(generation, words, granule, end):
                return granule, previous
        low, width = high, min(2 * width, _WINDOW)
    return None


def _header(generation: Generation, words: NDArray[np.int64], granule: int) -> tuple[int, int, bool]:
    """(size, previous size, whether the header holds by itself)."""
    header = headers_at(generation, words, np.array([granule]))
    size = int(header.size[0])
    return size, int(header.previous[0]), size > 0 and bool(header.holds[0])


def _candidates(
    generation: Generation, words: NDArray[np.int64], low: int, high: int, end: int
) -> Iterator[tuple[int, int]]:
    """Headers that hold by themselves and whose next one does and names their size."""
    stride = generation.stride
    headers = decoded(generation, words[low * stride + generation.lead : high * stride : stride])
    following = np.arange(low, high) + headers.size
    fits = (headers.size > 0) & (following <= end)
    rows = np.flatnonzero(headers.holds & fits & (headers.previous > 0))
    inside = following[rows] < end
    second = headers_at(generation, words, np.minimum(following[rows], end - 1))
    good = ~inside | (second.holds & (second.previous == headers.size[rows]))
    for i in rows[good].tolist():
        yield low + i, int(headers.previous[i])


def _holds(generation: Generation, words: NDArray[np.int64], granule: int, end: int) -> bool:
    """True when the next two headers exist and each names the size of the one before."""
    size, _, good = _header(generation, words, granule)
    for _ in range(2):
        granule += size
        if granule == end:
            return good
        if not good or granule > end - 1:
            return False
        following, previous, good = _header(generation, words, granule)
        if not good or previous != size:
            return False
        size = following
    return True
