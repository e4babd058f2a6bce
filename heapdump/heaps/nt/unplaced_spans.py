"""Spans of committed runs whose entries the walk of the back end could not place.

Their headers are damaged, or not in the dump. LFH blocks inside may still be found by their own headers
(`lfh_by_headers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class UnplacedSpan:
    """Memory of one run between the last entry that was placed and the next one.

    Attributes:
        span: the memory.
        entry: address of the last entry in the span, which ends where the span ends; None where it is not known.
    """

    span: Span
    entry: int | None


@dataclass
class UnplacedSpans:
    """The unplaced spans of some runs, in the order of the walk. One that continues in the next window is one span."""

    _found: list[UnplacedSpan] = field(default_factory=list)

    def add(self, start: int, end: int, entry: int | None = None) -> None:
        """Adds [start, end). Joins it to the last span where that ends at `start` and its entry is not known."""
        if self._found and self._found[-1].span.end == start and self._found[-1].entry is None:
            start = self._found.pop().span.start
        if start < end:
            self._found.append(UnplacedSpan(Span(start, end), entry))

    @property
    def is_open(self) -> bool:
        """True where the next span may join the last one, whose entry is not known."""
        return bool(self._found) and self._found[-1].entry is None

    def __iter__(self) -> Iterator[UnplacedSpan]:
        """Yields the spans in the order of the walk."""
        return iter(self._found)
