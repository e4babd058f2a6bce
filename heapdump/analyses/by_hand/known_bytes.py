"""Bytes of memory of which some may not be in the dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_TOP = 1 << 64


@dataclass(frozen=True, slots=True)
class KnownBytes:
    """The bytes of a span.

    Attributes:
        span: the addresses.
        data: its bytes; 0 for each that the dump does not hold.
        missing: the parts of the span that the dump does not hold, ascending.
    """

    span: Span
    data: bytes
    missing: tuple[Span, ...]

    def piece(self, address: int, size: int) -> bytes | None:
        """`size` bytes at an address inside the span; None where one of them is missing, or behind the span."""
        wanted = Span(address, address + size)
        if not self.span.covers(wanted) or any(wanted & gap for gap in self.missing):
            return None
        return self.data[address - self.span.start : wanted.end - self.span.start]

    def integer(self, address: int, size: int) -> int | None:
        """A little-endian unsigned integer; None where one of its bytes is missing."""
        data = self.piece(address, size)
        return None if data is None else int.from_bytes(data, "little")

    def each(self, address: int, size: int) -> list[int | None]:
        """The bytes at an address inside the span one by one, None for a missing one; fewer at the span's end."""
        out: list[int | None] = list(self.data[address - self.span.start : address - self.span.start + size])
        wanted = Span(address, address + len(out))
        for gap in self.missing:
            if missing := wanted & gap:
                out[missing.start - address : missing.end - address] = [None] * missing.size
        return out


def read_known(space: AddressSpace, address: int, size: int) -> KnownBytes:
    """The bytes from an address on, cut at the end of the address space."""
    span = Span(address, max(address, min(address + size, _TOP)))
    pieces, missing = list(_pieces(space, span)), []
    out, at = bytearray(span.size), span.start
    for start, data in pieces:
        if start > at:
            missing.append(Span(at, start))
        out[start - span.start : start - span.start + len(data)] = data
        at = start + len(data)
    if at < span.end:
        missing.append(Span(at, span.end))
    return KnownBytes(span, bytes(out), tuple(missing))


def _pieces(space: AddressSpace, span: Span) -> Iterator[tuple[int, bytes]]:
    """(address, bytes) of each part of the span that one range of the dump holds, ascending."""
    for part in space.mapped.present(span):
        data = space.try_read(part.start, part.size)
        if data is not None:
            yield part.start, data
