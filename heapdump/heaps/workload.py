"""Estimates the number of blocks of a walk from those it has met; decides whether compiled loops are worth it."""

from __future__ import annotations

_SAMPLED_SHARE, _SAMPLED_BYTES = 16, 1 << 20
"""An estimate is made once 1/16 of all bytes, or 1 MiB, were walked."""


class Workload:
    """Counts the blocks that all threads of an allocator have met.

    It influences speed only. When two threads add at once, one count may be lost; the estimate is then a little low.
    """

    def __init__(self, total_bytes: int) -> None:
        """`total_bytes`: bytes of all memory to walk."""
        self._total_bytes, self._blocks, self._bytes = total_bytes, 0, 0

    def add(self, blocks: int, size: int) -> None:
        """Adds `blocks` blocks that were met in `size` bytes."""
        self._blocks += blocks
        self._bytes += size

    def expected(self, least: int = 0) -> int:
        """Estimate of the blocks in all memory, at the density met so far; `least` before enough bytes were added."""
        if self._bytes < max(1, min(self._total_bytes // _SAMPLED_SHARE, _SAMPLED_BYTES)):
            return least
        return max(least, self._blocks * self._total_bytes // self._bytes)
