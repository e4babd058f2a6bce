"""Memory under construction: committed runs that structures are written into.

In: runs and writes at absolute addresses. Out: page-granular (address, bytes). It knows no layout, so that
the builders that restate layouts by hand on purpose have nothing to agree about but addresses.
"""

from __future__ import annotations

import struct
from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

PAGE = 0x1000


class MemoryImage:
    """Committed runs of memory, addressed absolutely; `pointer` is 4 or 8 bytes."""

    def __init__(self, pointer: int) -> None:
        """Begin without any memory."""
        self.pointer = pointer
        self._starts: list[int] = []
        self._runs: list[bytearray] = []

    def commit(self, start: int, size: int) -> None:
        """Add a zeroed run [start, start + size)."""
        at = bisect_right(self._starts, start)
        self._starts.insert(at, start)
        self._runs.insert(at, bytearray(size))

    def write(self, address: int, data: bytes) -> None:
        """Put bytes at an address; they must lie in one run.

        Raises:
            ValueError: that memory was not committed.
        """
        at = bisect_right(self._starts, address) - 1
        if at < 0 or address + len(data) > self._starts[at] + len(self._runs[at]):
            raise ValueError(f"0x{address:x}: {len(data)} bytes outside of committed memory")
        offset = address - self._starts[at]
        self._runs[at][offset : offset + len(data)] = data

    def scatter(self, addresses: NDArray[np.int64], words: NDArray[np.int64]) -> None:
        """Put a 64-bit word at each address, multiples of 8 in one run."""
        at = bisect_right(self._starts, int(addresses[0])) - 1
        np.frombuffer(self._runs[at], np.int64)[(addresses - self._starts[at]) >> 3] = words

    def u8(self, address: int, value: int) -> None:
        """Put one byte."""
        self.write(address, struct.pack("<B", value))

    def u16(self, address: int, value: int) -> None:
        """Put a 16-bit word."""
        self.write(address, struct.pack("<H", value))

    def u32(self, address: int, *values: int) -> None:
        """Put consecutive 32-bit words."""
        self.write(address, struct.pack(f"<{len(values)}I", *values))

    def word(self, address: int, *values: int) -> None:
        """Put consecutive pointer-sized words."""
        self.write(address, struct.pack(f"<{len(values)}{'Q' if self.pointer == 8 else 'I'}", *values))

    def ring(self, head: int, nodes: list[int]) -> None:
        """Link `nodes` into the doubly linked list of `head` in this order; an empty one points to itself."""
        chain = [head, *nodes, head]
        for before, node, after in zip([chain[-2], *chain[:-2]], chain[:-1], chain[1:], strict=True):
            self.word(node, after, before)

    def pieces(self) -> tuple[tuple[int, bytes], ...]:
        """All runs, by ascending address."""
        return tuple((start, bytes(run)) for start, run in zip(self._starts, self._runs, strict=True))
