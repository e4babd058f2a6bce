"""Every place in the memory of the dump that holds a text, a pointer or bytes, found by streaming over it once."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter

from heapdump.analyses.by_hand.known_bytes import read_known
from heapdump.analyses.memory.regions import select
from heapdump.analyses.memory.usage import UNKNOWN, UsageMap
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, merged
from heapdump.wording import preview

_WINDOW = 8 << 20
_AROUND = 48
_TOP = 1 << 64
_EVERYWHERE = Span(0, _TOP)


@dataclass(frozen=True, slots=True)
class Hit:
    """A place in memory that holds one of the patterns.

    `address`: of its first byte; `length`: bytes of the pattern; `is_wide`: True for a text in UTF-16.
    """

    address: int
    length: int
    is_wide: bool


def searched_spans(usage_map: UsageMap, usage: str | None, at: Span | None) -> list[Span]:
    """The spans to search, ascending: all memory, that of one usage, or the part of these in the span `at`.

    Raises:
        WrongUsage: no such usage in this process.
    """
    spans = [_EVERYWHERE] if usage is None else merged(region.span for region in select(usage_map, usage=usage))
    return [part for span in spans if (part := span & (at or _EVERYWHERE))]


def find_all(space: AddressSpace, spans: Sequence[Span], patterns: Sequence[bytes]) -> Iterator[Hit]:
    """Every place in the spans that holds a pattern, ascending; places may overlap. One pass, 8 MiB at a time."""
    longest = max(len(pattern) for pattern in patterns)
    for span in spans:
        overlap, overlap_at = b"", -1
        for part in _windows(space, span):
            data = space.try_read(part.start, part.size)
            if data is None:
                continue
            if overlap_at + len(overlap) != part.start:
                overlap = b""
            start, data = part.start - len(overlap), overlap + data
            yield from _in_window(data, start, len(overlap), patterns)
            overlap = data[-(longest - 1) :] if longest > 1 else b""
            overlap_at = start + len(data) - len(overlap)
            space.mapped.forget(part)


def _windows(space: AddressSpace, span: Span) -> Iterator[Span]:
    """The parts of the span that the dump holds, in pieces."""
    for part in space.mapped.present(span):
        space.mapped.expect(part)
        for start in range(part.start, part.end, _WINDOW):
            yield Span(start, min(start + _WINDOW, part.end))


def _in_window(data: bytes, start: int, overlap_bytes: int, patterns: Sequence[bytes]) -> Iterator[Hit]:
    """Hits that do not end inside the first `overlap_bytes` bytes: those were found before. Ascending."""
    found = (_of_pattern(data, start, overlap_bytes, one, is_wide=i == 1) for i, one in enumerate(patterns))
    return heapq.merge(*found, key=attrgetter("address"))


def _of_pattern(data: bytes, start: int, overlap_bytes: int, pattern: bytes, *, is_wide: bool) -> Iterator[Hit]:
    at = data.find(pattern, max(0, overlap_bytes - len(pattern) + 1))
    while at >= 0:
        yield Hit(start + at, len(pattern), is_wide)
        at = data.find(pattern, at + 1)


def usage_at(usage_map: UsageMap, address: int) -> str:
    """The usage of the memory at an address."""
    i = usage_map.table.index_at(address)
    return UNKNOWN if i is None else usage_map.names[int(usage_map.codes[i])]


def text_around(space: AddressSpace, hit: Hit) -> str:
    """The text that the place is part of, at most 48 characters before it and behind it; of bytes a preview.

    A text ends at characters that are not printable.
    """
    step = 2 if hit.is_wide else 1
    reach = _AROUND * step
    known = read_known(space, max(0, hit.address - reach), 2 * reach + hit.length)
    before = known.each(known.span.start, hit.address - known.span.start)
    own = known.each(hit.address, hit.length)
    behind = known.each(hit.address + hit.length, reach)
    text = _printable(before[::-1], step, is_reversed=True)[::-1] + preview(_bytes(own)[::step])
    return text + _printable(behind, step, is_reversed=False)


def _bytes(data: list[int | None]) -> bytes:
    return bytes(byte or 0 for byte in data)


def _printable(data: list[int | None], step: int, *, is_reversed: bool) -> str:
    """The printable characters up to the first other one. Reversed UTF-16 has its zero bytes first."""
    out = []
    for i in range(0, len(data) - step + 1, step):
        low, high = (data[i + step - 1], data[i]) if is_reversed else (data[i], data[i + step - 1])
        if low is None or not 0x20 <= low < 0x7F or (step == 2 and high != 0):
            break
        out.append(chr(low))
    return "".join(out)
