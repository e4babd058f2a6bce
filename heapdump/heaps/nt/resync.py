"""Finds the next trustworthy header behind a damaged one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.entry import decoded, headers_at
from heapdump.heaps.nt.entry_format import EntryFormat

_FIRST, _WINDOW = 64, 1 << 16
"""Granules examined at a time: few at first, since damage is usually short, then twice as many each time."""


def next_good_header(
    entry_format: EntryFormat, words: NDArray[np.int64], at: int, stop: int, end: int
) -> tuple[int, int] | None:
    """(granule, the PREVIOUS size its header states) of the next header in [at, stop) whose chain holds for two more.

    The chain may go on up to `end`. None where there is none. Each examined granule costs some numpy operations.
    """
    low, width = at, _FIRST
    while low < stop:
        high = min(low + width, stop)
        found = _first_good(entry_format, words, low, high, end)
        if found is not None:
            return found
        low, width = high, min(2 * width, _WINDOW)
    return None


def _first_good(
    entry_format: EntryFormat, words: NDArray[np.int64], low: int, high: int, end: int
) -> tuple[int, int] | None:
    """The first one in [low, high) that holds, and whose next two exist and each name the size of the one before.

    All are followed at once: of memory full of headers that hold for a step, one after the other took seconds a MiB.
    """
    stride = entry_format.stride
    headers = decoded(entry_format, words[low * stride + entry_format.word_index : high * stride : stride])
    rows = np.flatnonzero(headers.holds & (headers.size > 0) & (headers.previous > 0))
    size = headers.size[rows]
    following = low + rows + size
    for _ in range(2):
        if not len(rows):
            return None
        inside = following < end
        header = headers_at(entry_format, words, np.minimum(following, end - 1))
        good = (following == end) | (inside & header.holds & (header.size > 0) & (header.previous == size))
        following = np.where(inside, following + header.size, following)[good]
        rows, size = rows[good], header.size[good]
    return (low + int(rows[0]), int(headers.previous[rows[0]])) if len(rows) else None
