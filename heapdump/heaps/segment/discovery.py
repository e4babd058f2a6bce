"""Claims on segment heaps (Windows 10 and later), and their records.

Structures: docs/reference/heap-structures.md §6; offsets: `layouts/`.

Decision: the build number only orders the layouts that are tried. Updates changed structures within one build number
(17763, 26100), so the layout is used under which most facts hold for the heap itself. Structures inside subsegments get
their versions separately, when they are read.
"""

from __future__ import annotations

from heapdump.blocks.heap import Extent, ExtentKind, Heap, LargeBlock, Segment, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import (
    HEAP_SIGNATURE,
    PAGE,
    SEGMENT_SIGNATURE,
    DiscoveryContext,
    Evidence,
    HeapClaim,
    Weight,
    role_of,
)
from heapdump.heaps.segment.committed import Committed
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import (
    SIGNATURE,
    SegContext,
    assumed_contexts,
    counted_segments,
    header_facts,
    is_usable,
    own_span,
)
from heapdump.heaps.segment.large_allocations import read_large_allocations
from heapdump.heaps.segment.segment_list import read_segments
from heapdump.heaps.segment.segment_search import count_links
from heapdump.heaps.unwalked import Unwalked, own_reservation
from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.spans import Span
from heapdump.trust import Trust

_CLASS_BITS = 0xF000
_MiB = 1 << 20
_WITHOUT_SIGNATURE = 2
"""Number of distinctive facts that a listed address without the signature needs."""

_NO_HEADER = "its header is not in the dump"
_DISTINCTIVE = {"metadata bounds that hold it", "segment lists that link back"}
"""Distinctive facts: an address that no heap list names needs one of them. The other facts also hold for zeros."""


def claim(view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
    """The claim; None without the signature, and without a distinctive fact where no heap list names the address.

    A listed address without any heap's signature, or any one without a header in the dump, is claimed on two
    distinctive facts, or on segments that link to it. The claim has a layout where the segments can be read under it.
    """
    word = view.space.try_integer(address + 2 * view.pointer_bytes, 4)
    if word not in (SIGNATURE, None) and (not is_listed or word in (HEAP_SIGNATURE, SEGMENT_SIGNATURE)):
        return None
    if word != SIGNATURE and "_SEGMENT_HEAP" not in view.layout:
        return None  # this Windows has none, whatever an overwritten header looks like
    layout, facts = _best_layout(view, address)
    true_facts = [name for name, holds in facts.items() if holds]
    distinctive = len(_DISTINCTIVE.intersection(true_facts))
    evidence = [Evidence("signature DDEEDDEE", Weight.SIGNATURE)] if word == SIGNATURE else []
    if layout is None or (word != SIGNATURE and distinctive < _WITHOUT_SIGNATURE):
        layout = _linked_layout(view, address) if is_listed or word is None else None
        evidence += [] if layout is None else [Evidence("segments that link to it", Weight.LINKED)]
    if not (is_listed or distinctive or word is None) or not (evidence or layout):
        return None
    evidence += [Evidence("named by the heap list", Weight.LINKED)] if is_listed else []
    evidence += [Evidence(name, Weight.PLAUSIBLE) for name in true_facts]
    failed = [name for name, holds in facts.items() if not holds]
    doubts = failed if word == SIGNATURE else ["signature DDEEDDEE", *failed] if word is not None else [_NO_HEADER]
    return HeapClaim(address, tuple(evidence), tuple(doubts), layout, _is_layout_exact(view, layout))


def _linked_layout(view: View, heap: int) -> Layout | None:
    """The layout under which most segments in the dump link to heads of the heap's lists; None where none links."""
    layouts = [layout for layout in view.layouts if _has_segment_lists(layout)]
    counts = count_links(view, [(layout, assumed_contexts(layout, heap)) for layout in layouts])
    most = max(counts, default=0)
    return layouts[counts.index(most)] if most else None


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of a claimed heap; without a layout only its own reservation."""
    if claim.layout is not None:
        return _heap(SegmentDiscovery(context, claim.layout, claim.address), claim, index)
    doubts = ", ".join(claim.doubts)
    note = (
        f"heap {claim.address:#x} is a segment heap of which no known layout holds (expected {doubts}): only its "
        "own reservation is counted as Heap, its blocks are not walked"
    )
    layouts = (layout for layout in context.view.layouts if _has_segment_lists(layout))
    spans = (own_span(context.view, layout, claim.address) for layout in layouts)
    known = next((span for span in spans if span is not None), None)
    return own_reservation(context, claim, index, Unwalked(HeapKind.SEGMENT, note, ExtentKind.SEGMENT_HEAP, known))


def _best_layout(view: View, heap: int) -> tuple[Layout | None, dict[str, bool]]:
    """(layout under which most facts hold, None where that is not usable; the facts under it → whether they hold).

    Of equal layouts the likelier is taken. Where a part of the header is not in the dump, facts fail for that reason,
    so the layout of this very build is taken.
    """
    own = view.layout
    if view.is_layout_exact and _has_segment_lists(own) and _is_cut(view, own, heap) and is_usable(view, own, heap):
        return own, header_facts(view, own, heap)
    tried = [(layout, header_facts(view, layout, heap)) for layout in view.layouts if _has_segment_lists(layout)]
    best, facts = max(tried, key=lambda pair: sum(pair[1].values()), default=(None, {"a layout": False}))
    return (best if best is not None and is_usable(view, best, heap) else None), facts


def _is_cut(view: View, layout: Layout, heap: int) -> bool:
    """True when the dump lacks a part of the heap's header."""
    return view.space.try_read(heap, layout["_SEGMENT_HEAP"].size) is None


def _has_segment_lists(layout: Layout) -> bool:
    """True for a layout with the members that hold the lists of segments."""
    return "_SEGMENT_HEAP" in layout and any(
        member in layout["_SEGMENT_HEAP"] for member in ("SegContexts", "SegmentListHead")
    )


def _is_layout_exact(view: View, layout: Layout | None) -> bool:
    """True for the layout of this very build that was not inferred from other builds."""
    if layout is None or layout.name != view.layout.name or not view.is_layout_exact:
        return False
    return not layout["_SEGMENT_HEAP"].confidence.startswith("secondary (inferred")


def _heap(discovery: SegmentDiscovery, claim: HeapClaim, index: int) -> Heap:
    process, view, layout, address = discovery.process, discovery.view, discovery.layout, discovery.heap
    if claim.doubts == (_NO_HEADER,):
        discovery.notes.append(f"heap {address:#x}: {_NO_HEADER}: its blocks are told by segments that link to it")
    else:
        discovery.notes.extend(f"heap {address:#x}: expected {doubt}" for doubt in claim.doubts)
    _report_signature(discovery)
    listed, all_segments = read_segments(discovery)
    blocks, all_blocks = read_large_allocations(discovery, {node for _, node in listed})
    committed_memory = Committed(process.regions)
    segments = tuple(_segment(committed_memory, context, node) for context, node in listed)
    own = _own_structures(discovery, segments)
    fields = view.struct("_SEGMENT_HEAP", address, layout) or {}
    counters = _counters(view, layout, address, fields)
    committed = process.regions.committed_bytes(own) + sum(segment.committed_bytes for segment in segments)
    return Heap(
        address=address,
        index=index,
        kind=HeapKind.SEGMENT,
        role=role_of(view, address, fields.get("GlobalFlags", 0) & _CLASS_BITS),
        view=view.arch,
        flags=None,
        segments=segments,
        large_blocks=blocks,
        extents=_extents(process, own, segments, blocks or ()),
        reserved_bytes=own.size + sum(segment.span.size for segment in segments),
        committed_bytes=committed if process.regions.is_complete_map else counters.committed_bytes,
        counters=counters,
        front_end="lfh",
        lookaside_bytes=0,
        stack_traces=bool(fields["Interceptor"]) if "Interceptor" in fields else None,
        trust=claim.trust if all_segments else Trust.DERIVED,
        layout=layout.name,
        findings=tuple(discovery.findings),
        notes=tuple(discovery.notes),
        is_fully_walked=all_segments and all_blocks,
    )


def _report_signature(discovery: SegmentDiscovery) -> None:
    """Adds a finding where the heap's signature is wrong."""
    place = discovery.heap + 2 * discovery.view.pointer_bytes
    found = discovery.view.space.try_integer(place, 4)
    if found not in (None, SIGNATURE):
        damaged = DamagedBytes("segment", place, 4, f"{SIGNATURE:#x}", f"{found:#x}")
        discovery.report(damaged, f"the signature of heap {discovery.heap:#x} is damaged")


def _own_structures(discovery: SegmentDiscovery, segments: tuple[Segment, ...]) -> Span:
    """The span of the heap's own structures, by its header or else by the memory map; up to the next segment."""
    heap = discovery.heap
    span = own_span(discovery.view, discovery.layout, heap) or discovery.process.regions.allocation(heap)
    end = max(span.end if span is not None else 0, heap + PAGE)
    return Span(heap, min([end, *(segment.address for segment in segments if segment.address > heap)]))


def _segment(committed: Committed, context: SegContext, address: int) -> Segment:
    """The record of a segment. Its uncommitted ranges come from the memory map: the heap has no list of them."""
    span = Span(address, address + context.segment_bytes)
    uncommitted, at = [], span.start
    for run in committed.runs(span.start, span.end):
        if run.start > at:
            uncommitted.append(Span(at, run.start))
        at = run.end
    if at < span.end:
        uncommitted.append(Span(at, span.end))
    total = sum(each.size for each in uncommitted)
    return Segment(address, span, tuple(uncommitted), total, has_all_ranges=True, unit_bytes=context.unit_bytes)


def _extents(
    process: Process, own: Span, segments: tuple[Segment, ...], blocks: tuple[LargeBlock, ...]
) -> tuple[Extent, ...]:
    """All memory of the heap, ascending."""
    extents = [Extent(own, ExtentKind.STRUCTURES)]
    extents += [Extent(segment.span, ExtentKind.SEGMENT, i) for i, segment in enumerate(segments)]
    extents += [Extent(span, ExtentKind.LARGE_METADATA) for span in _metadata_spans(process, blocks)]
    extents += [Extent(block.span, ExtentKind.LARGE_BLOCK) for block in blocks]
    return tuple(sorted(extents, key=lambda extent: extent.span))


def _metadata_spans(process: Process, blocks: tuple[LargeBlock, ...]) -> list[Span]:
    """The memory of ntdll's own heap that holds the nodes of these large allocations, ascending.

    Each span is one MiB, cut to its reservation.
    """
    found = set()
    for node in (block.metadata or 0 for block in blocks):
        reservation = process.regions.allocation(node)
        mib = Span(node // _MiB * _MiB, (node // _MiB + 1) * _MiB)
        if reservation is not None and (span := reservation & mib):
            found.add(span)
    return sorted(found)


def _counters(view: View, layout: Layout, heap: int, fields: dict[str, int]) -> WindowsCounters:
    """Windows' counters, in bytes. They include the segments and the heap's own structures (recorded heaps)."""
    struct = layout["_SEGMENT_HEAP"]
    totals = fields
    if "MemStats" in struct:
        totals = view.struct("_HEAP_RUNTIME_MEMORY_STATS", heap + struct.offset("MemStats"), layout) or {}
    return WindowsCounters(
        reserved_bytes=_page_bytes(totals, "TotalReservedPages"),
        committed_bytes=_page_bytes(totals, "TotalCommittedPages"),
        virtual_bytes=_page_bytes(fields, "LargeCommittedPages"),
        segments=counted_segments(view, layout, heap),
    )


def _page_bytes(fields: dict[str, int], name: str) -> int | None:
    """The value of a member that counts pages, in bytes; None where this build has no such member."""
    return fields[name] * PAGE if name in fields else None
