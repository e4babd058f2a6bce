"""The record of a heap that is recognised but not walked: its own reservation by the memory map, and the reason."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim, role_of
from heapdump.spans import Span


@dataclass(frozen=True, slots=True)
class Unwalked:
    """The facts about a heap that is not walked.

    Attributes:
        kind: its kind.
        note: a sentence with the reason.
        part: kind of the extent that its reservation becomes; None where it gets no extent.
        span: the reservation, for dumps without a memory map; None where it is not known.
    """

    kind: HeapKind
    note: str
    part: ExtentKind | None = None
    span: Span | None = None


def own_reservation(context: DiscoveryContext, claim: HeapClaim, index: int, facts: Unwalked) -> Heap:
    """The record of a heap of which only the reservation at its address is known."""
    process, view, part = context.process, context.view, facts.part
    span = None if part is None else process.regions.allocation(claim.address) or facts.span
    committed = process.regions.committed_bytes(span) if span and process.regions.is_complete_map else None
    return Heap(
        address=claim.address,
        index=index,
        kind=facts.kind,
        role=role_of(view, claim.address, None),
        view=view.arch,
        flags=None,
        segments=(),
        large_blocks=None,
        extents=(Extent(span, part),) if span and part else (),
        reserved_bytes=span.size if span else None,
        committed_bytes=committed,
        counters=WindowsCounters(),
        front_end=None,
        lookaside_bytes=0,
        stack_traces=None,
        trust=claim.trust,
        layout=claim.layout.name if claim.layout else None,
        findings=(),
        notes=(facts.note,),
        is_fully_walked=False,
    )
