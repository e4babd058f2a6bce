"""Cells of equal size over an address range, and how many bytes of them some spans cover."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.spans import Span


class Coverage:
    """n disjoint spans, ascending. `start`, `size`: (n,) integers, in bytes."""

    def __init__(self, start: NDArray[np.unsignedinteger], size: NDArray[np.unsignedinteger]) -> None:
        """Sums the sizes once, in O(n)."""
        self._start = start.astype(np.uint64)
        self._size = size.astype(np.int64)
        self._below = np.concatenate([[0], np.cumsum(self._size)])

    def cells(self, span: Span, count: int) -> NDArray[np.int64]:
        """Bytes that the spans cover in each of `count` cells of equal size; (count,) int64."""
        edges = edges_of(span, count)
        return np.diff(self._covered(edges))

    def _covered(self, edges: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Bytes that the spans cover below each address."""
        if not len(self._start):
            return np.zeros(len(edges), np.int64)
        row = np.searchsorted(self._start, edges, side="right").astype(np.int64) - 1
        inside = np.maximum(row, 0)
        into = np.minimum((edges - np.minimum(self._start[inside], edges)).astype(np.int64), self._size[inside])
        return np.where(row < 0, 0, self._below[inside] + into)


def edges_of(span: Span, count: int) -> NDArray[np.uint64]:
    """The borders of `count` cells of equal size in a span, start and end included; (count + 1,) uint64, ascending."""
    return np.array([span.start + span.size * i // count for i in range(count + 1)], np.uint64)
