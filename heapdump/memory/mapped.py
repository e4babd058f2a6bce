"""Many words of memory at once, as arrays over the mapped file: for array arithmetic, kernels and sweeps.

`space.AddressSpace` reads single values from the same memory ranges. Nothing is cached here.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from heapdump.spans import Span


class ByteSource(Protocol):
    """The file of the dump. `offset` and `size` are in bytes; [offset, offset + size) is read."""

    @property
    def file_bytes(self) -> int:
        """Size of the file."""

    def read_at(self, offset: int, size: int) -> bytes:
        """A copy of the bytes; for scattered small reads."""

    def view_at(self, offset: int, size: int) -> memoryview:
        """The mapped bytes themselves, not a copy; for sweeps."""

    def expect(self, offset: int, size: int) -> None:
        """Announces a sweep over these bytes: they may be read ahead."""

    def forget(self, offset: int, size: int) -> None:
        """Announces the end of a sweep over these bytes: they need not stay in memory."""


_U64 = np.uint64
_SHORT = 16 << 20
"""A span of up to this many bytes is always worth a copy, even where the dump holds little of it."""


PHASE_BYTES = 16
"""The phase of a span is its file offset % PHASE_BYTES. The word array that serves it begins at byte `phase` of the
file, so that the span begins at a multiple of 16 bytes, the larger of the two granule sizes, in that array."""


@dataclass(frozen=True, slots=True)
class SpanWords:
    """The words of one span: a view of the whole file, or a copy of the span.

    The word at address a of the span is `words[(a - base) // 8]`.

    Attributes:
        words: (n,) int64 little-endian words: all words of the file from byte `phase` on, or a copy of the span alone.
        base: address that word 0 would have. It may be negative, because the file may begin far before the span.
        phase: byte of the file at which `words` begins, 0 or 8; -1 for a copy.
        missing: parts of the span that are not in the dump; their words are zero.
    """

    words: NDArray[np.int64]
    base: int
    phase: int
    missing: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class WordBatch:
    """The words of some of the spans that `batches` was given; all of these lie in one array.

    The word at address a of span `rows[k]` is `words[(a - base[k]) // 8]`.

    Attributes:
        words: (n,) int64 little-endian words.
        rows: (m,) int64 indices of the spans, ascending.
        base: (m,) int64 address that word 0 would have for each span.
        missing: for a batch of one copied span, its parts that are not in the dump; their words are zero. Else empty.
    """

    words: NDArray[np.int64]
    rows: NDArray[np.int64]
    base: NDArray[np.int64]
    missing: tuple[Span, ...]


class MappedMemory:
    """The memory ranges of a dump, and where their bytes lie in the file.

    Attributes:
        starts: (n,) uint64 first address of each range, ascending; ranges do not overlap.
        ends: (n,) uint64 address behind each range.
        file_offsets: (n,) int64 offset in the file of each range's first byte.
        edges: (starts, ends, file_offsets) as Python arrays: `bisect` over them is four times as fast as numpy's search
            for one address.
    """

    def __init__(self, source: ByteSource, ranges: NDArray[np.void]) -> None:
        """`ranges`: (n,) with fields start, size (bytes), offset (in the file), as `ranges.disjoint` gives them."""
        self._source = source
        self.starts: NDArray[np.uint64] = np.ascontiguousarray(ranges["start"], dtype=_U64)
        self.ends: NDArray[np.uint64] = self.starts + ranges["size"].astype(_U64)
        self.file_offsets: NDArray[np.int64] = np.ascontiguousarray(ranges["offset"], dtype=_U64).view(np.int64)
        self.edges = (
            array("Q", self.starts.tobytes()),
            array("Q", self.ends.tobytes()),
            array("Q", self.file_offsets.tobytes()),
        )
        self._sizes = self.ends - self.starts
        self._before = np.concatenate([np.zeros(1, _U64), np.cumsum(self.ends - self.starts, dtype=_U64)])

    @property
    def total_bytes(self) -> int:
        """Bytes of memory in the dump."""
        return int(self._before[-1])

    def words(self, span: Span, size: int) -> Iterator[tuple[int, NDArray[np.uint64]]]:
        """Copies of the words of `size` bytes at multiples of `size` in the span that the dump holds.

        Yields (address of the first word, (n,) uint64 words) for each piece in one range. A word across two touching
        ranges is left out.
        """
        starts, ends, offsets = self.edges
        i = max(0, bisect_right(starts, span.start) - 1)
        while i < len(starts) and starts[i] < span.end:
            start = -(-max(starts[i], span.start) // size) * size
            count = (min(ends[i], span.end) - start) // size
            if count > 0:
                data = self._source.read_at(offsets[i] + start - starts[i], count * size)
                yield start, np.frombuffer(data, f"<u{size}").astype(_U64)
            i += 1

    def gather(self, addresses: NDArray[np.uint64], size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """The little-endian unsigned integers at n addresses.

        Args:
            addresses: (n,) in any order.
            size: bytes of each integer, a power of two.

        Returns:
            ((n,) values, 0 where one is missing; (n,) True where the dump has all its bytes). An integer across two
            ranges counts as missing.
        """
        place = self.places(addresses, size)
        there = place >= 0
        if there.all():
            return self.integers_at(place.view(_U64), size), there
        out = np.zeros(len(addresses), _U64)
        out[there] = self.integers_at(place[there].view(_U64), size)
        return out, there

    def places(self, addresses: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
        """Offset in the file of the `size` bytes at each address; -1 where no single range holds them. (n,) int64."""
        if not len(self.starts) or not len(addresses):
            return np.full(len(addresses), -1, np.int64)
        i = np.searchsorted(self.starts, addresses, side="right")
        i -= i > 0
        distance = addresses - self.starts[i]  # wraps below the first range: then it is too far
        place = self.file_offsets[i] + distance.view(np.int64)
        room = self._sizes[i]
        inside = (distance < room) & (room - distance >= _U64(size))
        return place if inside.all() else np.where(inside, place, -1)

    def integers_at(self, offset: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
        """The unsigned integers of `size` bytes, a power of two, at n offsets; each must lie in the file."""
        if not len(offset):
            return np.zeros(0, _U64)
        phases, shift = offset & _U64(size - 1), _U64(size.bit_length() - 1)
        first = int(phases[0])
        if (phases == _U64(first)).all():
            words = self.file_words(first, size).view(f"<u{size}")
            return words[(offset >> shift).view(np.int64)].astype(_U64, copy=False)
        found = np.zeros(len(offset), _U64)
        for phase in np.unique(phases).tolist():
            rows = phases == _U64(phase)
            found[rows] = self.file_words(phase, size).view(f"<u{size}")[(offset[rows] >> shift).view(np.int64)]
        return found

    def file_place(self, span: Span) -> int | None:
        """Offset of the span in the file; None where no single range holds it, or the offset is no multiple of 8."""
        offset = int(self.file_places(np.array([span.start]), np.array([span.end]))[0])
        return offset if offset >= 0 and offset % 8 == 0 else None

    def file_places(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
        """Offset in the file of each span [start, end), (n,) int64; -1 where no single range holds it."""
        if not len(self.starts) or not len(starts):
            return np.full(len(starts), -1, np.int64)
        i = np.maximum(np.searchsorted(self.starts, starts.astype(_U64), side="right"), 1) - 1
        low = self.starts[i].astype(np.int64)
        inside = (starts >= low) & (ends <= self.ends[i].astype(np.int64))
        return np.where(inside, self.file_offsets[i] + starts - low, -1)

    def file_words(self, phase: int, size: int = 8) -> NDArray[np.int64]:
        """A view of the whole file from byte `phase` on as signed little-endian words of `size` bytes; no copy."""
        count = max(0, self._source.file_bytes - phase) // size
        return np.frombuffer(self._source.view_at(phase, count * size), f"<i{size}")

    def in_file(self, span: Span) -> SpanWords | None:
        """The words of the span as a view of the file; None under the conditions of `file_place`."""
        place = self.file_place(span)
        if place is None:
            return None
        phase = place % PHASE_BYTES
        return SpanWords(self.file_words(phase), span.start - (place - phase), phase, ())

    def span_words(self, span: Span) -> SpanWords:
        """The words of the span: a view of the file where `in_file` gives one, else a copy.

        Start and size of the span are multiples of 8.
        """
        found = self.in_file(span)
        if found is None:
            words, missing = self.words64(span)
            found = SpanWords(words, span.start, -1, missing)
        return found

    def batches(self, start: NDArray[np.int64], end: NDArray[np.int64]) -> Iterator[WordBatch]:
        """The words of n spans [start, end); (n,) multiples of 8 each.

        First come the spans that are views of the file, many in a batch, then the others as copies, one in a batch.
        """
        place = self.file_places(start, end)
        place[place % 8 != 0] = -1
        for phase in np.unique(place[place >= 0] % PHASE_BYTES).tolist():
            rows = np.flatnonzero((place >= 0) & (place % PHASE_BYTES == phase))
            yield WordBatch(self.file_words(phase), rows, start[rows] - (place[rows] - phase), ())
        for row in np.flatnonzero(place < 0).tolist():
            words, missing = self.words64(Span(int(start[row]), int(end[row])))
            yield WordBatch(words, np.array([row]), start[row : row + 1], missing)

    def words64(self, span: Span) -> tuple[NDArray[np.int64], tuple[Span, ...]]:
        """(a copy of the 64-bit words of the span, signed, from its start on; its parts that are not in the dump).

        A damaged memory map has regions of any size: up to 7 bytes behind the last word are left out. Missing bytes are
        zero.
        """
        span = Span(span.start, span.start + span.size // 8 * 8)
        out = np.zeros(span.size // 8, "<i8")  # the system commits pages of it when they are written
        raw = out.view(np.uint8)
        missing, at = [], span.start
        for piece, offset in self._pieces(span):
            if piece.start > at:
                missing.append(Span(at, piece.start))
            data = self._source.view_at(offset, piece.size)
            raw[piece.start - span.start : piece.end - span.start] = np.frombuffer(data, np.uint8)
            at = piece.end
        if at < span.end:
            missing.append(Span(at, span.end))
        return out, tuple(missing)

    def expect(self, span: Span) -> None:
        """Announces a sweep over the span: its bytes of the file may be read ahead."""
        for piece, offset in self._pieces(span):
            self._source.expect(offset, piece.size)

    def forget(self, span: Span) -> None:
        """Announces the end of a sweep over the span: its bytes of the file need not stay in memory."""
        for piece, offset in self._pieces(span):
            self._source.forget(offset, piece.size)

    def forget_all(self) -> None:
        """Announces that no byte of the file need stay in memory, after reads here and there; costs one call."""
        self._source.forget(0, self._source.file_bytes)

    def count_present(self, start: int, end: int) -> int:
        """Bytes of [start, end) that the dump holds."""
        return sum(piece.size for piece, _ in self._pieces(Span(start, end)))

    def present(self, span: Span) -> Iterator[Span]:
        """The parts of the span that the dump holds, ascending; parts in two touching ranges are not joined."""
        return (piece for piece, _ in self._pieces(span))

    def _pieces(self, span: Span) -> Iterator[tuple[Span, int]]:
        """(piece of the span that one range holds, its offset in the file), ascending."""
        starts, ends, offsets = self.edges
        i = max(0, bisect_right(starts, span.start) - 1)
        while i < len(starts) and starts[i] < span.end:
            start, end = max(starts[i], span.start), min(ends[i], span.end)
            if start < end:
                yield Span(start, end), offsets[i] + start - starts[i]
            i += 1

    def is_mostly_present(self, span: Span) -> bool:
        """False for a span of more than 16 MiB of which the dump holds less than half; a copy would waste memory."""
        if span.size <= _SHORT:
            return True
        ends = np.array([span.start, span.end], _U64)
        return 2 * int(self.bytes_present(ends[:1], ends[1:])[0]) >= span.size

    def bytes_present(self, starts: NDArray[np.uint64], ends: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Bytes of each span [start, end) that the dump holds; (n,) uint64. O(n log ranges)."""
        return self._up_to(ends) - self._up_to(starts)

    def _up_to(self, addresses: NDArray[np.uint64]) -> NDArray[np.uint64]:
        """Bytes that the dump holds below each address; (n,) uint64."""
        if not len(self.starts):
            return np.zeros(len(addresses), _U64)
        i = np.searchsorted(self.starts, addresses, side="right")
        previous = np.maximum(i, 1) - 1
        inside = np.minimum(addresses, self.ends[previous]) - self.starts[previous]
        return np.where(i == 0, _U64(0), self._before[previous] + np.where(i == 0, _U64(0), inside))
