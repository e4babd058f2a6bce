"""The memory that the dump holds, by address.

Stands on sorted, disjoint ranges; a scalar read costs one binary search. All heap code stands on these few methods:
the plain forms raise `Unreadable`, the `try_` forms return None.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heapdump.errors import Unreadable
from heapdump.spans import Span


class ByteSource(Protocol):
    """The dump's file as this room sees it; `offset` and `size` in bytes of the file."""

    @property
    def file_bytes(self) -> int:
        """Size of the file."""

    def read_at(self, offset: int, size: int) -> bytes:
        """A copy, for scattered small reads."""

    def view_at(self, offset: int, size: int) -> memoryview:
        """The bytes where they lie, for sweeps."""

    def expect(self, offset: int, size: int) -> None:
        """These bytes will be swept soon."""

    def forget(self, offset: int, size: int) -> None:
        """These bytes were swept and need not stay in memory."""


_U64 = np.uint64
_TOP = (1 << 64) - 1
_SHORT = 16 << 20


class AddressSpace:
    """Bytes of the process by address, for one pointer size.

    Where two ranges of the file overlap, the one with the lower start (of equal ones: the first listed) keeps the
    common part. Nothing is cached here.
    """

    def __init__(self, source: ByteSource, ranges: NDArray[np.void], pointer_bytes: int) -> None:
        """`ranges`: (n,) with fields start, size, offset, disjoint and ascending (see `disjoint`)."""
        self._source = source
        self._read_at = source.read_at
        self.pointer_bytes = pointer_bytes
        self.starts: NDArray[np.uint64] = np.ascontiguousarray(ranges["start"], dtype=_U64)
        self.ends: NDArray[np.uint64] = self.starts + ranges["size"].astype(_U64)
        self._starts = array("Q", self.starts.tobytes())
        self._ends = array("Q", self.ends.tobytes())
        self._offsets = array("Q", np.ascontiguousarray(ranges["offset"], dtype=_U64).tobytes())
        self._before = np.concatenate([np.zeros(1, _U64), np.cumsum(self.ends - self.starts, dtype=_U64)])

    @property
    def total_bytes(self) -> int:
        """Bytes of memory in the dump."""
        return int(self._before[-1])

    def with_pointers(self, pointer_bytes: int) -> AddressSpace:
        """The same memory read with another pointer size (the other view of a WOW64 process)."""
        other = object.__new__(AddressSpace)
        other.__dict__.update(self.__dict__, pointer_bytes=pointer_bytes)
        return other

    def try_read(self, address: int, size: int) -> bytes | None:
        """Exactly `size` bytes, stitched across touching ranges, or None where one of them is missing."""
        i = bisect_right(self._starts, address) - 1
        if i < 0 or address < 0 or address + size > _TOP:
            return None
        if address + size <= self._ends[i]:
            at = self._offsets[i] + address - self._starts[i]
            return self._read_at(at, size)
        return self._stitched(i, address, size)

    def _stitched(self, i: int, address: int, size: int) -> bytes | None:
        parts = []
        while size > 0:
            if i >= len(self._starts) or not self._starts[i] <= address < self._ends[i]:
                return None
            n = min(size, self._ends[i] - address)
            at = self._offsets[i] + address - self._starts[i]
            parts.append(self._read_at(at, n))
            address, size, i = address + n, size - n, i + 1
        return b"".join(parts)

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

    def words(self, span: Span) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """The aligned pointer-sized words of the span that the dump holds, one (address, (n,) uint64) for each piece.

        Pieces end where the dump has a gap; a word across two touching ranges is left out. Copies the bytes.
        """
        i = max(0, bisect_right(self._starts, span.start) - 1)
        size = self.pointer_bytes
        while i < len(self._starts) and self._starts[i] < span.end:
            start = -(-max(self._starts[i], span.start) // size) * size
            count = (min(self._ends[i], span.end) - start) // size
            if count > 0:
                at = self._offsets[i] + start - self._starts[i]
                yield start, np.frombuffer(self._read_at(at, count * size), f"<u{size}").astype(_U64)
            i += 1

    def gather(self, addresses: NDArray[np.uint64], size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """(little-endian integers of `size` bytes, a power of two; 0 where one byte is missing; whether it is there), (n,) each.

        3 to 5 million a second or more; one that lies across two ranges counts as missing.
        """
        out, there = np.zeros(len(addresses), _U64), np.zeros(len(addresses), bool)
        if not len(self.starts) or not len(addresses):
            return out, there
        i = np.maximum(np.searchsorted(self.starts, addresses, side="right"), 1) - 1
        low, high = self.starts[i], self.ends[i]
        there = (addresses >= low) & (addresses < high) & (high - np.minimum(addresses, high) >= _U64(size))
        offset = np.frombuffer(self._offsets, _U64)[i] + addresses - low
        out[there] = self._at_offsets(offset if there.all() else offset[there], size)
        return out, there

    def _at_offsets(self, offset: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
        """The integers at offsets of the file that are in it."""
        phases, place = offset & _U64(size - 1), (offset >> _U64(size.bit_length() - 1)).astype(np.int64)
        found = np.zeros(len(offset), _U64)
        for phase in np.flatnonzero(np.bincount(phases.astype(np.int64), minlength=1)).tolist():
            rows = slice(None) if (phases == phase).all() else phases == phase
            found[rows] = self.file_words(phase, size).view(f"<u{size}")[place[rows]]
        return found

    def file_place(self, span: Span) -> int | None:
        """Offset of the span in the file; None where no single range holds it on an 8-byte boundary of the file."""
        offset = int(self.file_places(np.array([span.start]), np.array([span.end]))[0])
        return offset if offset >= 0 and offset % 8 == 0 else None

    def file_places(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offset in the file of each span; -1 where no single range holds it. (n,) int64."""
        if not len(self.starts) or not len(starts):
            return np.full(len(starts), -1, np.int64)
        i = np.maximum(np.searchsorted(self.starts, starts.astype(_U64), side="right"), 1) - 1
        low = self.starts[i].astype(np.int64)
        inside = (starts >= low) & (ends <= self.ends[i].astype(np.int64))
        return np.where(inside, np.frombuffer(self._offsets, _U64)[i].astype(np.int64) + starts - low, -1)

    def file_words(self, phase: int, size: int = 8) -> NDArray[np.int64]:
        """The whole file from byte `phase` on as signed words of `size` bytes, where it lies: nothing is read or copied."""
        count = max(0, self._source.file_bytes - phase) // size
        return np.frombuffer(self._source.view_at(phase, count * size), f"<i{size}")

    @property
    def file_offsets(self) -> NDArray[np.int64]:
        """Where in the file each range begins; (n,) int64 in the order of `starts`."""
        return np.frombuffer(self._offsets, np.int64)

    def words64(self, span: Span) -> tuple[NDArray[np.int64], tuple[Span, ...]]:
        """(a copy of the span as signed 64-bit words, the parts of it that the dump does not hold).

        `span.start` and size are multiples of 8. Missing bytes read as zero.
        """
        out = np.zeros(span.size // 8, "<i8")  # pages that nothing is written to cost nothing
        raw = out.view(np.uint8)
        missing, at = [], span.start
        for part, offset in self._pieces(span):
            if part.start > at:
                missing.append(Span(at, part.start))
            raw[part.start - span.start : part.end - span.start] = np.frombuffer(
                self._source.view_at(offset, part.size), np.uint8
            )
            at = part.end
        if at < span.end:
            missing.append(Span(at, span.end))
        return out, tuple(missing)

    def expect(self, span: Span) -> None:
        """The span will be swept soon: its part of the file may be read ahead."""
        for part, offset in self._pieces(span):
            self._source.expect(offset, part.size)

    def forget(self, span: Span) -> None:
        """The span was swept: its part of the file need not stay in memory."""
        for part, offset in self._pieces(span):
            self._source.forget(offset, part.size)

    def _pieces(self, span: Span) -> Iterator[tuple[Span, int]]:
        """(part of the span that one range holds, its offset in the file), ascending."""
        i = max(0, bisect_right(self._starts, span.start) - 1)
        while i < len(self._starts) and self._starts[i] < span.end:
            start, end = max(self._starts[i], span.start), min(self._ends[i], span.end)
            if start < end:
                yield Span(start, end), self._offsets[i] + start - self._starts[i]
            i += 1

    def is_mostly_present(self, span: Span) -> bool:
        """False for a long span of which the dump holds less than half: not worth memory of its size."""
        if span.size <= _SHORT:
            return True
        ends = np.array([span.start, span.end], _U64)
        return 2 * int(self.bytes_present(ends[:1], ends[1:])[0]) >= span.size

    def bytes_present(self, starts: NDArray[np.uint64], ends: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """How many bytes of each half-open span the dump holds; (n,) uint64. O(n log ranges)."""
        return self._up_to(ends) - self._up_to(starts)

    def _up_to(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Bytes held below each address."""
        if not len(self.starts):
            return np.zeros(len(addresses), _U64)
        i = np.searchsorted(self.starts, addresses, side="right")
        previous = np.maximum(i, 1) - 1
        inside = np.minimum(addresses, self.ends[previous]) - self.starts[previous]
        return np.where(i == 0, _U64(0), self._before[previous] + np.where(i == 0, _U64(0), inside))
