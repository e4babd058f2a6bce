"""The segment of a heap that an address lies in, for heaps of thousands of segments."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from heapdump.blocks.heap import Segment


class NtSegmentMap:
    """Finds segments by address.

    Attributes:
        overlap: True where some of them overlap, which is damage.
    """

    def __init__(self, segments: Sequence[Segment]) -> None:
        """`segments` in any order; where some overlap, which is damage, the first of them counts."""
        self._all = segments
        self._ascending = sorted(segments, key=lambda segment: segment.span.start)
        self._starts = [segment.span.start for segment in self._ascending]
        self.overlap = any(one.span.end > other.span.start for one, other in pairwise(self._ascending))

    def at(self, address: int) -> Segment | None:
        """The segment that holds the address, or None."""
        if self.overlap:
            return next((segment for segment in self._all if address in segment.span), None)
        i = bisect_right(self._starts, address) - 1
        return self._ascending[i] if i >= 0 and address in self._ascending[i].span else None
