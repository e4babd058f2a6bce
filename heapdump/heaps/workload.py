"""How many blocks a walk will meet, estimated from the blocks that it has met: decides whether compiled loops pay."""

from __future__ import annotations

_SAMPLED_SHARE, _SAMPLED_BYTES = 16, 1 << 20
"""The number of all blocks is estimated once 1/16 of all bytes is walked, or 1 MiB."""


class Workload:
    """The blocks of the heaps that an allocator walks, counted by all its threads together.

    Influences speed alone. Of two counts that threads add at once one may be lost: the estimate is a little off then.
    """

    def __init__(self, total_bytes: int) -> None:
        """`total_bytes`: of all memory that the walk goes over."""
        self._total_bytes, self._blocks, self._bytes = total_bytes, 0, 0

    def add(self, blocks: int, size: int) -> None:
        """`blocks` blocks are in `size` bytes of that memory."""
        self._blocks += blocks
        self._bytes += size

    def expected(self, least: int = 0) -> int:
        """Blocks in all of the memory if the rest is like what was added; `least` before enough bytes were added."""
        if self._bytes < max(1, min(self._total_bytes // _SAMPLED_SHARE, _SAMPLED_BYTES)):
            return least
        return max(least, self._blocks * self._total_bytes // self._bytes)
