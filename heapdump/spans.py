"""Half-open address spans. Every layer uses them; they know nothing of dumps or heaps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """The addresses `start <= a < end` (bytes)."""

    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes in the span."""
        return self.end - self.start

    def __contains__(self, address: int) -> bool:
        """True for an address inside the span."""
        return self.start <= address < self.end

    def __and__(self, other: Span) -> Span | None:
        """The common part, or None where there is none."""
        start, end = max(self.start, other.start), min(self.end, other.end)
        return Span(start, end) if start < end else None

    def covers(self, other: Span) -> bool:
        """True when every address of `other` lies in this span."""
        return self.start <= other.start and other.end <= self.end


class SpanMap(Generic[T]):
    """Values by span, ascending by start; where spans overlap the earlier start keeps the common part."""

    def __init__(self, items: Iterable[tuple[Span, T]]) -> None:
        """Takes (span, value) pairs in any order; empty spans are left out."""
        self._items: list[tuple[Span, T]] = []
        for span, value in sorted((item for item in items if item[0].size > 0), key=lambda item: item[0]):
            floor = self._items[-1][0].end if self._items else 0
            if span.end > floor:
                self._items.append((Span(max(span.start, floor), span.end), value))
        self._starts = [span.start for span, _ in self._items]

    def __iter__(self) -> Iterator[tuple[Span, T]]:
        """Yields (span, value), ascending."""
        return iter(self._items)

    def __len__(self) -> int:
        """The number of spans."""
        return len(self._items)

    def at(self, address: int) -> T | None:
        """The value whose span holds the address, or None."""
        i = bisect_right(self._starts, address) - 1
        if i < 0 or address >= self._items[i][0].end:
            return None
        return self._items[i][1]


def merged(spans: Iterable[Span]) -> list[Span]:
    """The same addresses as ascending, disjoint, non-touching spans."""
    out: list[Span] = []
    for span in sorted(span for span in spans if span.size > 0):
        if out and span.start <= out[-1].end:
            out[-1] = Span(out[-1].start, max(out[-1].end, span.end))
        else:
            out.append(span)
    return out
