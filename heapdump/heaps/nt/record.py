"""What the walkers of both NT heap entry_formats know of a heap, as its record."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, FrontEnd, Heap, LargeBlock, Segment, Trust, WindowsCounters
from heapdump.blocks.kinds import HeapKind
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim, role_of

FRONT_ENDS: dict[int, FrontEnd] = {0: "none", 1: "lookaside", 2: "lfh"}
"""_HEAP.FrontEndHeapType."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What was read: `fields` of the header, lists, and whether each list is whole. `lookaside_bytes` None: not known."""

    fields: dict[str, int]
    segments: tuple[Segment, ...]
    has_all_segments: bool
    large_blocks: tuple[LargeBlock, ...] | None
    has_all_large_blocks: bool
    extents: tuple[Extent, ...]
    stated: WindowsCounters
    lookaside_bytes: int | None
    stack_traces: bool | None
    findings: list[Finding]
    notes: list[str]


def nt_heap(context: DiscoveryContext, claim: HeapClaim, index: int, parts: Parts) -> Heap:
    """The record of a verified NT heap; `claim.layout` is the layout that verified."""
    assert claim.layout is not None
    flags, segments = parts.fields.get("Flags"), parts.segments
    return Heap(
        address=claim.address,
        index=index,
        kind=HeapKind.NT,
        role=role_of(context.view, claim.address, (flags or 0) & 0xF000),
        view=context.view.arch,
        flags=flags,
        segments=segments,
        large_blocks=parts.large_blocks,
        extents=tuple(sorted(parts.extents, key=lambda extent: extent.span)),
        reserved_bytes=sum(s.span.size for s in segments) or None,
        committed_bytes=sum(s.committed_bytes for s in segments) or None,
        counters=parts.stated,
        front_end=FRONT_ENDS.get(parts.fields.get("FrontEndHeapType", 0)),
        lookaside_bytes=parts.lookaside_bytes or 0,
        stack_traces=parts.stack_traces,
        trust=claim.trust if parts.has_all_segments else Trust.DERIVED,
        layout=claim.layout.name,
        findings=tuple(parts.findings),
        notes=tuple(parts.notes),
        is_fully_walked=parts.has_all_segments and parts.has_all_large_blocks and parts.lookaside_bytes is not None,
    )
