"""The record of a heap that is recognised and not walked: its own reservation by the memory map, and why."""

from __future__ import annotations

from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
from heapdump.blocks.kinds import HeapKind
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim, role_of
from heapdump.spans import Span


def own_reservation(
    context: DiscoveryContext,
    claim: HeapClaim,
    index: int,
    kind: HeapKind,
    part: ExtentKind,
    note: str,
    known: Span | None = None,
) -> Heap:
    """A heap known by its own reservation alone; `known` is its extent where the dump has no memory map."""
    process, view = context.process, context.view
    span = None if kind == HeapKind.UNKNOWN else process.regions.allocation(claim.address) or known
    committed = process.regions.committed_bytes(span) if span and process.regions.is_complete_map else None
    return Heap(
        address=claim.address,
        index=index,
        kind=kind,
        role=role_of(view, claim.address, None),
        view=view.arch,
        flags=None,
        segments=(),
        large_blocks=None,
        extents=(Extent(span, part),) if span else (),
        reserved_bytes=span.size if span else None,
        committed_bytes=committed,
        counters=WindowsCounters(),
        front_end=None,
        lookaside_bytes=0,
        stack_traces=None,
        trust=claim.trust,
        layout=claim.layout.name if claim.layout else None,
        findings=(),
        notes=(note,),
        is_fully_walked=False,
    )
