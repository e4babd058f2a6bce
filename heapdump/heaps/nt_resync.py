"""Finds the next trustworthy header behind a damaged one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

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


def _decoded(generation: Generation, words: NDArray[np.int64], low: int, high: int) -> NDArray[np.int64]:
    raw = words[low * generation.stride + generation.lead : high * generation.stride : generation.stride]
    if generation.is_old or not generation.mask:
        return raw ^ (0 if generation.is_old else generation.key & 0xFFFF_0000_0000)
    return raw ^ generation.key


def _fields(generation: Generation, words: NDArray[np.int64], granule: int) -> tuple[int, int, bool]:
    """(size, previous size, whether the header holds by itself)."""
    word = int(_decoded(generation, words, granule, granule + 1)[0])
    size = word & 0xFFFF
    if generation.is_old:
        return size, word >> 16 & 0xFFFF, size > 0
    good = size > 0
    if generation.mask:
        raw = int(words[granule * generation.stride + generation.lead])
        good = good and bool(raw & generation.mask) and not (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF
    return size, word >> 32 & 0xFFFF, good


def _candidates(
    generation: Generation, words: NDArray[np.int64], low: int, high: int, end: int
) -> list[tuple[int, int]]:
    word = _decoded(generation, words, low, high)
    size = word & 0xFFFF
    good = (size > 0) & (np.arange(low, high) + size <= end)
    if generation.mask and not generation.is_old:
        raw = words[low * generation.stride + generation.lead : high * generation.stride : generation.stride]
        good &= (raw & generation.mask) != 0
        good &= ((word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF) == 0
    previous = word >> (16 if generation.is_old else 32) & 0xFFFF
    rows = np.flatnonzero(good & (previous > 0))
    return [(low + int(i), int(previous[i])) for i in rows.tolist()]


def _holds(generation: Generation, words: NDArray[np.int64], granule: int, end: int) -> bool:
    """True when the next two headers exist and each names the size of the one before."""
    size, _, good = _fields(generation, words, granule)
    for _ in range(2):
        granule += size
        if granule == end:
            return good
        if not good or granule > end - 1:
            return False
        following, previous, good = _fields(generation, words, granule)
        if not good or previous != size:
            return False
        size = following
    return True
