"""Gaps: free runs of the address space, their neighbours, and what removing the neighbours would gain.

    | free run | allocation | free run |      removing the allocation joins both runs and its own addresses

Removing it gains the joined run minus the larger of the two. A large allocation gains by its own size. What breaks up
the address space are allocations between large free runs, however small. So dividers are ordered by the free bytes that
they keep apart: the smaller of the two runs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from heapdump.analyses.memory.allocations import Allocations, VirtualAllocation
from heapdump.analyses.memory.free_runs import GRANULARITY
from heapdump.spans import Span

_MOST_MEMBERS = 8
_LARGE_SHARE = 16
"""A free run is large when it has at least this part of the bytes of the largest one."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """A free run and the allocations that touch it; None at an end of the address space."""

    span: Span
    before: VirtualAllocation | None
    after: VirtualAllocation | None


@dataclass(frozen=True, slots=True)
class Divider:
    """Allocations between two free runs.

    Attributes:
        span: from the first to the last of them.
        members: the allocations, at most eight.
        joined: the free run that there would be without them.
        gain_bytes: bytes of `joined` minus the larger of the two free runs.
        apart_bytes: bytes of the smaller of the two free runs.
    """

    span: Span
    members: tuple[VirtualAllocation, ...]
    joined: Span
    gain_bytes: int
    apart_bytes: int


class Gaps:
    """The free runs of one process and what lies between them."""

    def __init__(self, runs: Sequence[Span], allocations: Allocations) -> None:
        """`runs`: free runs, ascending."""
        self._runs, self._allocations = runs, allocations

    def largest(self, count: int) -> list[Neighbours]:
        """The largest free runs with their neighbours, the largest first."""
        order = sorted(self._runs, key=lambda run: (-run.size, run.start))[:count]
        return [self._neighbours(run) for run in order]

    def _neighbours(self, run: Span) -> Neighbours:
        before = self._allocations.before(run.start)
        after = next(self._allocations.inside(Span(run.end, run.end + 1)), None)
        return Neighbours(run, before, after)

    def dividers(self, count: int) -> list[Divider]:
        """The `count` dividers that keep most free bytes apart, the most first; none lies inside an earlier one."""
        out: list[Divider] = []
        for one in sorted([*self._single(), *self._clusters()], key=_most_apart):
            if len(out) == count:
                break
            if not any(other.span.covers(one.span) for other in out):
                out.append(one)
        return out

    def making_room(self, request: int, count: int) -> list[Divider]:
        """The first `count` of those without which a request of `request` bytes would fit, each for itself.

        Several allocations are left out where one of them is enough.
        """
        single = [one for one in self._single() if one.joined.size >= request]
        starts = [one.span.start for one in single]
        several = (one for one in self._clusters() if one.joined.size >= request)
        needed = [one for one in several if bisect_left(starts, one.span.start) == bisect_left(starts, one.span.end)]
        return sorted([*single, *needed], key=_most_apart)[:count]

    def _single(self) -> Iterator[Divider]:
        """Allocations with a free run on both sides."""
        for i in range(len(self._runs) - 1):
            left, right = self._runs[i], self._runs[i + 1]
            between = self._allocations.indices(left.end, right.start)
            if len(between) == 1:
                yield self._divider(left, right, between)

    def _clusters(self) -> Iterator[Divider]:
        """A few allocations between two large free runs, with smaller free runs between them."""
        largest = max((run.size for run in self._runs), default=0)
        large = [run for run in self._runs if run.size >= max(GRANULARITY, largest // _LARGE_SHARE)]
        for left, right in pairwise(large):
            between = self._allocations.indices(left.end, right.start)
            if 1 < len(between) <= _MOST_MEMBERS:
                yield self._divider(left, right, between)

    def _divider(self, left: Span, right: Span, between: range) -> Divider:
        span = Span(self._allocations.span(between[0]).start, self._allocations.span(between[-1]).end)
        joined = Span(left.start, right.end)
        members = tuple(self._allocations.at(i) for i in between)
        larger, smaller = max(left.size, right.size), min(left.size, right.size)
        return Divider(span, members, joined, joined.size - larger, smaller)

    def fitting(self, request: int) -> int:
        """The number of free runs that have room for a request of `request` bytes."""
        return sum(run.size >= request for run in self._runs)


def _most_apart(divider: Divider) -> tuple[int, Span]:
    return -divider.apart_bytes, divider.span
