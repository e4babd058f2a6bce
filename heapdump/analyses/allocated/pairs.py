"""Blocks grouped in two ways at once: the bytes of each pair of groups.

In: two groupings and the place of each group in a figure. Out: bytes by both places. Piece by piece: a byte a row.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.blocks.table import BlockTable
from heapdump.large_arrays import batches

_NO_PLACE = 255


def places_of_rows(leaks: Leaks, shown: Sequence[int], rows: int) -> NDArray[np.uint8]:
    """The place of each of all `rows` rows of the block table; 255 for rows that are in no group.

    It is the index in `shown` of the value of its group; len(shown), at most 254, for groups that are not shown.
    """
    place = np.full(int(leaks.values.max(initial=0)) + 1, len(shown), np.uint8)
    place[list(shown)] = np.arange(len(shown))
    out = np.full(rows, _NO_PLACE, np.uint8)
    for part in batches(len(leaks.rows)):
        out[leaks.rows[part]] = place[leaks.values[part]]
    return out


def bytes_of_pairs(table: BlockTable, left: NDArray[np.uint8], right: NDArray[np.uint8]) -> NDArray[np.int64]:
    """(256, 256) requested bytes of the rows of each pair of places (`places_of_rows`)."""
    totals = np.zeros(1 << 16, np.int64)
    for part in batches(len(table)):
        rows = part.start + np.flatnonzero((left[part] != _NO_PLACE) & (right[part] != _NO_PLACE))
        sizes = table.sizes(rows).astype(np.float64)  # of a part of the rows: sums are exact
        totals += np.bincount(left[rows].astype(np.int64) << 8 | right[rows], sizes, 1 << 16).astype(np.int64)
    return totals.reshape(256, 256)
