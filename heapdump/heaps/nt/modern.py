"""The NT heap from Vista on: claim, header, segments, uncommitted ranges, large blocks.

Structures: heap-structures.md §2, offsets from `layouts/`. The heap's header is also its first segment's.
"""

from __future__ import annotations

from functools import cache

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, Heap, LargeBlock, Segment, WindowsCounters
from heapdump.heaps.allocator import HEAP_SIGNATURE, PAGE, SEGMENT_SIGNATURE, DiscoveryContext, HeapClaim
from heapdump.heaps.nt.large_blocks import read_large_blocks
from heapdump.heaps.nt.record import FRONT_ENDS, Parts, nt_heap
from heapdump.heaps.nt.segments import read_segments
from heapdump.layouts import Layout, load
from heapdump.process.model import Process, View
from heapdump.spans import Span

CAPTURE_STACK_BACKTRACES = 0x08000000


class NtHeapWalker:
    """NT heaps of Vista and later."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """Needs the heap signature and one more witness, or all others without it; the best layout wins.

        The signature alone is no proof, neither is the segment's: Wine's heaps have 0xFFEEFFEE in Windows' place and
        no 0xEEFFEEFF anywhere.
        """
        best: HeapClaim | None = None
        modern = _modern_layouts(view.layout_names)
        if not _may_be_heap(view, address, modern[0]):
            return None
        for layout in modern:
            claim = _claim_with(view, address, layout, is_listed=is_listed)
            if claim is not None and (best is None or len(claim.witnesses) > len(best.witnesses)):
                best = claim
            if best is not None and not best.doubts:
                break
        return best

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
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


@cache
def _modern_layouts(names: tuple[str, ...]) -> tuple[Layout, ...]:
    return tuple(layout for layout in map(load, names) if "SegmentSignature" in layout["_HEAP"])


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
    seen = {
        "segment signature FFEEFFEE": fields["SegmentSignature"] == SEGMENT_SIGNATURE,
        "heap signature EEFFEEFF": fields["Signature"] == HEAP_SIGNATURE,
        "own address in Heap": fields["Heap"] == heap,
        "entries inside the first segment": _entries_fit(fields, heap),
        "a segment list that links back": _links_back(view, heap + layout["_HEAP"].offset("SegmentList")),
        "a large-block list that links back": _links_back(view, heap + layout["_HEAP"].offset("VirtualAllocdBlocks")),
        "plausible counters": _counters_fit(view, layout, heap, fields),
    }
    good = sum(list(seen.values())[:3])
    if good < 2 or (good == 2 and not (is_listed or seen["a segment list that links back"])):
        return None
    witnesses = tuple(name for name, held in seen.items() if held)
    doubts = tuple(name for name, held in seen.items() if not held)
    build_is_known = layout.name == view.layout.name and view.is_layout_exact
    return HeapClaim(heap, witnesses, doubts, layout, build_is_known)


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
    out = [Extent(reservation(process, s.span), f"segment {i}") for i, s in enumerate(segments)]
    out += [Extent(block.span, "large block") for block in blocks or ()]
    # the LFH context has a reservation of its own (8 and later); on 7 it is a large block or lies inside a segment
    own = process.regions.allocation(front_end) if front_end else None
    if own is not None and own.start == front_end and not any(e.span & own for e in out):
        out.append(Extent(own, "front end"))
    return tuple(out)


def reservation(process: Process, span: Span) -> Span:
    """The segment with the guard page that Windows keeps behind it (8 and later: reserved, never part of the heap)."""
    whole = process.regions.allocation(span.start)
    if whole is not None and whole.start == span.start and span.end <= whole.end <= span.end + PAGE:
        return whole
    return span


WALKER = NtHeapWalker()
