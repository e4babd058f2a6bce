"""The NT heap from Vista on: claim, header, segments, uncommitted ranges, large blocks.

Structures: heap-structures.md §2, offsets from `layouts/`. The heap's header is also its first segment's.
"""

from __future__ import annotations

from functools import cache

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, ExtentKind, Heap, LargeBlock, Segment, WindowsCounters
from heapdump.heaps.allocator import (
    HEAP_SIGNATURE,
    PAGE,
    SEGMENT_SIGNATURE,
    DiscoveryContext,
    Evidence,
    HeapClaim,
    Weight,
    claim_of,
)
from heapdump.heaps.nt.large_blocks import read_large_blocks
from heapdump.heaps.nt.record import FRONT_ENDS, Parts, nt_heap
from heapdump.heaps.nt.segments import read_segments
from heapdump.layouts import Layout, load
from heapdump.process.model import Process, View
from heapdump.spans import Span

CAPTURE_STACK_BACKTRACES = 0x08000000


def claim(view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
    """Needs two of the three signatures, with two also a place in the heap list or a segment list; the best layout wins.

    The signature alone is no proof, neither is the segment's: Wine's heaps have 0xFFEEFFEE in Windows' place and
    no 0xEEFFEEFF anywhere.
    """
    best: HeapClaim | None = None
    modern = _modern_layouts(view.layout_names)
    if not _may_be_heap(view, address, modern[0]):
        return None
    for layout in modern:
        found = _claim_with(view, address, layout, is_listed=is_listed)
        if found is not None and (best is None or found.score > best.score):
            best = found
        if best is not None and not best.doubts:
            break
    return best


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """Header, segments, large blocks, counters."""
    assert claim.layout is not None
    process, view = context.process, context.view
    heap, layout = claim.address, claim.layout
    fields = view.struct("_HEAP", heap, layout) or {}
    findings: list[Finding] = []
    notes = [f"heap {heap:#x}: expected {doubt}" for doubt in claim.doubts]
    segments, all_segments = read_segments(context, layout, heap, findings, notes)
    blocks, all_blocks = read_large_blocks(context, layout, heap, findings, notes)
    flags = fields.get("Flags")
    traces = None if flags is None else bool(flags & CAPTURE_STACK_BACKTRACES)
    extents = _extents(process, segments, blocks, fields.get("FrontEndHeap", 0))
    stated = _stated(view, layout, heap, fields)
    parts = Parts(
        fields, segments, all_segments, blocks, all_blocks, extents, stated, 0, traces, findings, notes
    )  # fmt: skip
    return nt_heap(context, claim, index, parts)


def is_modern(layout: Layout) -> bool:
    """True for layouts of Vista and later."""
    return "SegmentSignature" in layout["_HEAP"]


def is_later_segment(view: View, address: int) -> bool:
    """True for a later segment of an NT heap: FFEEFFEE, but its `Heap` member names another address."""
    struct = view.layout["_HEAP_SEGMENT"]
    if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != SEGMENT_SIGNATURE:
        return False
    return view.space.try_pointer(address + struct.offset("Heap")) != address


@cache
def _modern_layouts(names: tuple[str, ...]) -> tuple[Layout, ...]:
    return tuple(layout for layout in map(load, names) if is_modern(layout))


def _may_be_heap(view: View, heap: int, layout: Layout) -> bool:
    """A quick look at the two members that lie at the same place in every version; one of them is always needed."""
    struct = layout["_HEAP"]
    if view.space.try_integer(heap + struct.offset("SegmentSignature"), 4) == SEGMENT_SIGNATURE:
        return True
    return view.space.try_pointer(heap + struct.offset("Heap")) == heap


def _claim_with(view: View, heap: int, layout: Layout, *, is_listed: bool) -> HeapClaim | None:
    fields = view.struct("_HEAP", heap, layout)
    if fields is None:
        return None
    lists = [layout["_HEAP"].offset(name) for name in ("SegmentList", "VirtualAllocdBlocks")]
    seen = {
        Evidence("segment signature FFEEFFEE", Weight.SIGNATURE): fields["SegmentSignature"] == SEGMENT_SIGNATURE,
        Evidence("heap signature EEFFEEFF", Weight.SIGNATURE): fields["Signature"] == HEAP_SIGNATURE,
        Evidence("own address in Heap", Weight.SIGNATURE): fields["Heap"] == heap,
        Evidence("entries inside the first segment", Weight.PLAUSIBLE): _entries_fit(fields, heap),
        Evidence("a segment list that links back", Weight.LINKED): _links_back(view, heap + lists[0]),
        Evidence("a large-block list that links back", Weight.LINKED): _links_back(view, heap + lists[1]),
        Evidence("plausible counters", Weight.PLAUSIBLE): _counters_fit(view, layout, heap, fields),
    }
    signatures = sum(holds for one, holds in seen.items() if one.weight is Weight.SIGNATURE)
    if signatures < 2 or (signatures == 2 and not (is_listed or _links_back(view, heap + lists[0]))):
        return None
    is_exact = layout.name == view.layout.name and view.is_layout_exact
    return claim_of(heap, seen, layout, is_layout_exact=is_exact)


def _entries_fit(fields: dict[str, int], heap: int) -> bool:
    end = heap + fields["NumberOfPages"] * PAGE
    return heap < fields["FirstEntry"] <= end and heap < fields["LastValidEntry"] <= end


def _links_back(view: View, head: int) -> bool:
    first = view.space.try_pointer(head)
    return first is not None and view.space.try_pointer(first + view.pointer_bytes) == head


def _counters_fit(view: View, layout: Layout, heap: int, fields: dict[str, int]) -> bool:
    """Tells layouts apart that share their signatures: 14393 and 17763 differ in the tail of the header only."""
    counters = view.struct("_HEAP_COUNTERS", heap + layout["_HEAP"].offset("Counters"), layout)
    if counters is None or fields["FrontEndHeapType"] not in FRONT_ENDS:
        return False
    reserved, committed = counters["TotalMemoryReserved"], counters["TotalMemoryCommitted"]
    return (
        reserved % PAGE == 0
        and committed % PAGE == 0
        and 0 < committed <= reserved
        and 0 < counters["TotalSegments"] <= reserved // PAGE
    )


def _stated(view: View, layout: Layout, heap: int, fields: dict[str, int]) -> WindowsCounters:
    counters = view.struct("_HEAP_COUNTERS", heap + layout["_HEAP"].offset("Counters"), layout) or {}
    free = fields.get("TotalFreeSize")
    return WindowsCounters(
        free_bytes=None if free is None else free * view.granularity,
        reserved_bytes=counters.get("TotalMemoryReserved"),
        committed_bytes=counters.get("TotalMemoryCommitted"),
        large_uncommitted_bytes=counters.get("TotalMemoryLargeUCR"),
        virtual_bytes=counters.get("TotalSizeInVirtualBlocks"),
        segments=counters.get("TotalSegments"),
        uncommitted_ranges=counters.get("TotalUCRs"),
        lock_contention=counters.get("LockCollisions"),
    )


def _extents(
    process: Process, segments: tuple[Segment, ...], blocks: tuple[LargeBlock, ...] | None, front_end: int
) -> tuple[Extent, ...]:
    out = [Extent(reservation(process, s.span), ExtentKind.SEGMENT, i) for i, s in enumerate(segments)]
    out += [Extent(block.span, ExtentKind.LARGE_BLOCK) for block in blocks or ()]
    # the LFH context has a reservation of its own (8 and later); on 7 it is a large block or lies inside a segment
    own = process.regions.allocation(front_end) if front_end else None
    if own is not None and own.start == front_end and not any(e.span & own for e in out):
        out.append(Extent(own, ExtentKind.FRONT_END))
    return tuple(out)


def reservation(process: Process, span: Span) -> Span:
    """The segment with the guard page that Windows keeps behind it (8 and later: reserved, never part of the heap)."""
    whole = process.regions.allocation(span.start)
    if whole is not None and whole.start == span.start and span.end <= whole.end <= span.end + PAGE:
        return whole
    return span
