"""The claim on, and the record of, an NT heap of Vista and later (docs/reference/heap-structures.md §2.1).

Offsets come from `layouts/`. The header of the heap is also the header of its first segment.
"""

from __future__ import annotations

from functools import cache

from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
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
from heapdump.heaps.nt.discovery import (
    FRONT_ENDS,
    LARGE_BLOCK_LIST,
    SEGMENT_LIST,
    HeapReader,
    HeapStructures,
    listed_extents,
    nt_heap,
)
from heapdump.heaps.nt.header_key import header_key
from heapdump.heaps.nt.heap_header import report_header
from heapdump.heaps.nt.keyed_segments import segments_with_key
from heapdump.heaps.nt.large_block_list import read_large_blocks
from heapdump.heaps.nt.segments import read_segments
from heapdump.layouts import Layout, load
from heapdump.process.model import View

_CAPTURE_STACK_BACKTRACES = 0x08000000  # _HEAP.Flags (§2.1)


def claim(view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
    """The claim of the layout with the highest score; None where none has evidence enough.

    Of the three signatures all must hold, or two and also the heap list or a segment list that links back. One
    signature is no evidence: heaps of Wine have FFEEFFEE at the place of Windows and EEFFEEFF nowhere.
    """
    best: HeapClaim | None = None
    modern = _modern_layouts(view.layout_names)
    if not _may_be_heap(view, address, modern[0]):
        return None
    for layout in modern:
        if view.is_layout_exact and layout.name == view.layout.name and view.struct("_HEAP", address, layout) is None:
            return None  # a byte of its header is not in the dump: an older, shorter layout must not be tried instead
        found = _claim_with(view, address, layout, is_listed=is_listed)
        if found is not None and (best is None or found.score > best.score):
            best = found
        if best is not None and not best.doubts:
            break
    return best


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of a claimed heap: header, segments, large blocks, Windows' counters."""
    reader = HeapReader.of(context, claim)
    report_header(reader)
    segments, has_all_segments = read_segments(reader)
    counters = _counters(reader)
    if not has_all_segments and len(segments) < (counters.segments or 0):
        key = header_key(reader.view.space, reader.address, reader.layout)
        segments += tuple(segments_with_key(reader, key, segments))
    large_blocks, has_all_large_blocks = read_large_blocks(reader)
    flags = reader.fields.get("Flags")
    found = HeapStructures(
        segments,
        has_all_segments,
        large_blocks,
        has_all_large_blocks,
        extents=_extents(reader, listed_extents(reader.process, segments, large_blocks)),
        counters=counters,
        stack_traces=None if flags is None else bool(flags & _CAPTURE_STACK_BACKTRACES),
    )
    return nt_heap(reader, claim, index, found)


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
    """True when SegmentSignature or Heap holds: a claim needs one, and both have the same offsets in every version."""
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
        Evidence(SEGMENT_LIST, Weight.LINKED): _links_back(view, heap + lists[0]),
        Evidence(LARGE_BLOCK_LIST, Weight.LINKED): _links_back(view, heap + lists[1]),
        Evidence("plausible counters", Weight.PLAUSIBLE): _counters_fit(view, layout, heap, fields),
    }
    signatures = sum(holds for one, holds in seen.items() if one.weight is Weight.SIGNATURE)
    if signatures < 2 or (signatures == 2 and not (is_listed or _links_back(view, heap + lists[0]))):
        return None
    is_exact = layout.name == view.layout.name and view.is_layout_exact
    return claim_of(heap, seen, layout, is_layout_exact=is_exact)


def _entries_fit(fields: dict[str, int], heap: int) -> bool:
    """True when FirstEntry and LastValidEntry lie in the heap's own segment."""
    end = heap + fields["NumberOfPages"] * PAGE
    return heap < fields["FirstEntry"] <= end and heap < fields["LastValidEntry"] <= end


def _links_back(view: View, head: int) -> bool:
    """True when Blink of the first node of the list leads to `head`."""
    first = view.space.try_pointer(head)
    return first is not None and view.space.try_pointer(first + view.pointer_bytes) == head


def _counters_fit(view: View, layout: Layout, heap: int, fields: dict[str, int]) -> bool:
    """True where Windows' counters are possible. Layouts of 14393 and 17763 differ only in the tail of _HEAP (§2.1)."""
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


def _counters(reader: HeapReader) -> WindowsCounters:
    place = reader.address + reader.layout["_HEAP"].offset("Counters")
    counters = reader.view.struct("_HEAP_COUNTERS", place, reader.layout) or {}
    free_granules = reader.fields.get("TotalFreeSize")
    return WindowsCounters(
        free_bytes=None if free_granules is None else free_granules * reader.view.granularity,
        reserved_bytes=counters.get("TotalMemoryReserved"),
        committed_bytes=counters.get("TotalMemoryCommitted"),
        large_uncommitted_bytes=counters.get("TotalMemoryLargeUCR"),
        virtual_bytes=counters.get("TotalSizeInVirtualBlocks"),
        segments=counters.get("TotalSegments"),
        uncommitted_ranges=counters.get("TotalUCRs"),
        lock_contention=counters.get("LockCollisions"),
    )


def _extents(reader: HeapReader, listed: list[Extent]) -> tuple[Extent, ...]:
    """The listed extents, and the reservation of the _LFH_HEAP.

    From 9600 on it has a reservation of its own (§2.8); on 7 it is a large block or lies inside a segment.
    """
    front_end = reader.fields.get("FrontEndHeap", 0)
    own = reader.process.regions.allocation(front_end) if front_end else None
    if own is not None and own.start == front_end and not any(extent.span & own for extent in listed):
        listed.append(Extent(own, ExtentKind.FRONT_END))
    return tuple(listed)
