"""Spans of committed runs whose entries the walk of the back end could not place.

Their headers are damaged, or not in the dump. What lies inside may still tell itself: LFH blocks do (`lfh_by_headers`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class UnplacedSpan:
    """Memory of one run between the last entry that holds and the next one.

    `entry`: address of the last entry in it, which ends where the span does; None where nothing tells it.
    """

    span: Span
    entry: int | None


@dataclass
class UnplacedSpans:
    """The lost spans of some runs, in the order of the walk; one that goes on from window to window is one."""

    _found: list[UnplacedSpan] = field(default_factory=list)

    def add(self, start: int, end: int, entry: int | None = None) -> None:
        """Adds [start, end), or lengthens the span before, which ends there and whose last entry is not known."""
        if self._found and self._found[-1].span.end == start and self._found[-1].entry is None:
            start = self._found.pop().span.start
        if start < end:
            self._found.append(UnplacedSpan(Span(start, end), entry))

    def __iter__(self) -> Iterator[UnplacedSpan]:
        """In the order of the walk."""
        return iter(self._found)
