"""The largest free runs of one dump, and what lies in them in a later one: who broke up the address space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.analyses.memory.allocations import Allocations, VirtualAllocation
from heapdump.analyses.memory.free_runs import free_runs
from heapdump.spans import Span

if TYPE_CHECKING:
    from heapdump.analyses.compare.facts import DumpFacts

_MOST_GAPS = 5
_MOST_OCCUPANTS = 64


@dataclass(frozen=True, slots=True)
class FilledGap:
    """A free run of the first dump in which something lies in the last dump.

    Attributes:
        span: the free run in the first dump.
        largest_now: the largest part of it that is free in the last dump; None without one.
        occupants: allocations in it in the last dump, the largest first.
        hidden: number of smaller allocations that are left out.
    """

    span: Span
    largest_now: Span | None
    occupants: tuple[VirtualAllocation, ...]
    hidden: int


def filled_gaps(first: DumpFacts, last: DumpFacts) -> tuple[FilledGap, ...]:
    """The five largest free runs of the first dump, those left out in which nothing lies in the last dump.

    None where one dump has no complete memory map. Addresses are compared as they are: in another run of the program
    other modules may lie there for no reason but address space layout randomisation.
    """
    before = free_runs(first.process.regions, first.limit.end)
    if not before or not last.process.regions.is_complete_map:
        return ()
    largest = sorted(before, key=lambda run: (-run.size, run.start))[:_MOST_GAPS]
    allocations, now = Allocations(last.usage_map), free_runs(last.process.regions, last.limit.end)
    found = (_filled(gap, allocations, now) for gap in largest)
    return tuple(gap for gap in found if gap.occupants)


def _filled(gap: Span, allocations: Allocations, now: list[Span]) -> FilledGap:
    inside = sorted(allocations.inside(gap), key=lambda one: (-one.span.size, one.span.start))
    pieces = [common for run in now if (common := run & gap) is not None]
    largest = max(pieces, key=lambda piece: (piece.size, -piece.start), default=None)
    return FilledGap(gap, largest, tuple(inside[:_MOST_OCCUPANTS]), max(0, len(inside) - _MOST_OCCUPANTS))
