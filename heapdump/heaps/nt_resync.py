"""Finds the next trustworthy header behind a damaged one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt_entry import decoded, headers_at
from heapdump.heaps.nt_generation import Generation

_WINDOW = 1 << 16
"""Granules examined at a time: damage is usually short."""


def next_good_header(
    generation: Generation, words: NDArray[np.int64], at: int, end: int
) -> tuple[int, int] | None:
    """(granule, the PREVIOUS size its header states) of the next header from `at` on whose chain holds for two more.

    None where there is none before `end`. Each examined granule costs some numpy operations.
    """
    for low in range(at, end, _WINDOW):
        high = min(low + _WINDOW, end)
        found = _candidates(generation, words, low, high, end)
        for granule, previous in found:
            if _holds(generation, words, granule, end):
                return granule, previous
    return None


def _header(generation: Generation, words: NDArray[np.int64], granule: int) -> tuple[int, int, bool]:
    """(size, previous size, whether the header holds by itself)."""
    header = headers_at(generation, words, np.array([granule]))
    size = int(header.size[0])
    return size, int(header.previous[0]), size > 0 and bool(header.holds[0])


def _candidates(
    generation: Generation, words: NDArray[np.int64], low: int, high: int, end: int
) -> list[tuple[int, int]]:
    stride = generation.stride
    headers = decoded(generation, words[low * stride + generation.lead : high * stride : stride])
    fits = (headers.size > 0) & (np.arange(low, high) + headers.size <= end)
    rows = np.flatnonzero(headers.holds & fits & (headers.previous > 0))
    return [(low + int(i), int(headers.previous[i])) for i in rows.tolist()]


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
