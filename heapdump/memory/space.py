"""Single reads of the process's memory by address; `mapped` reads many words at once.

A read costs one binary search over the memory ranges. Methods whose names begin with `try_` return None where a byte is
not in the dump; the others raise `Unreadable`.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from heapdump.errors import Unreadable
from heapdump.memory.mapped import ByteSource, MappedMemory

_TOP = (1 << 64) - 1


class AddressSpace:
    """The memory of the process by address, for one pointer size.

    Where two ranges of the dump overlap, the range with the lower start supplies the common part; of equal starts, the
    range that is listed first. Nothing is cached here.

    Attributes:
        mapped: the same memory, for many words at once.
        pointer_bytes: 4 or 8.
    """

    def __init__(self, source: ByteSource, ranges: NDArray[np.void], pointer_bytes: int) -> None:
        """`ranges`: (n,) with fields start, size, offset, disjoint and ascending (see `ranges.disjoint`)."""
        self._read_at = source.read_at
        self.pointer_bytes = pointer_bytes
        self.mapped = MappedMemory(source, ranges)
        self._starts, self._ends, self._offsets = self.mapped.edges

    @property
    def total_bytes(self) -> int:
        """Bytes of memory in the dump."""
        return self.mapped.total_bytes

    def with_pointers(self, pointer_bytes: int) -> AddressSpace:
        """The same memory read with another pointer size (the other view of a WOW64 process)."""
        other = object.__new__(AddressSpace)
        other.__dict__.update(self.__dict__, pointer_bytes=pointer_bytes)
        return other

    def try_read(self, address: int, size: int) -> bytes | None:
        """Exactly `size` bytes, also across touching ranges; None where one of them is not in the dump."""
        i = bisect_right(self._starts, address) - 1
        if i < 0 or address < 0 or address + size > _TOP:
            return None
        if address + size <= self._ends[i]:
            at = self._offsets[i] + address - self._starts[i]
            return self._read_at(at, size)
        return self._stitched(i, address, size)

    def _stitched(self, i: int, address: int, size: int) -> bytes | None:
        pieces = []
        while size > 0:
            if i >= len(self._starts) or not self._starts[i] <= address < self._ends[i]:
                return None
            n = min(size, self._ends[i] - address)
            at = self._offsets[i] + address - self._starts[i]
            pieces.append(self._read_at(at, n))
            address, size, i = address + n, size - n, i + 1
        return b"".join(pieces)

    def read(self, address: int, size: int) -> bytes:
        """Exactly `size` bytes.

        Raises:
            Unreadable: one of them is not in the dump.
        """
        data = self.try_read(address, size)
        if data is None:
            raise Unreadable(address, size)
        return data

    def try_integer(self, address: int, size: int) -> int | None:
        """A little-endian unsigned integer of `size` bytes, or None."""
        data = self.try_read(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def integer(self, address: int, size: int) -> int:
        """A little-endian unsigned integer of `size` bytes.

        Raises:
            Unreadable: one of its bytes is not in the dump.
        """
        return int.from_bytes(self.read(address, size), "little")

    def try_pointer(self, address: int) -> int | None:
        """A pointer of this view's size, or None."""
        return self.try_integer(address, self.pointer_bytes)

    def pointer(self, address: int) -> int:
        """A pointer of this view's size.

        Raises:
            Unreadable: one of its bytes is not in the dump.
        """
        return self.integer(address, self.pointer_bytes)
