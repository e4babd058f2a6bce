"""The segment heap (Windows 10 and later): claim, contexts, segments, large blocks, its own reservation.

Its blocks are walked by `segment_walk.py`. Structures: heap-structures.md §6, offsets from `layouts/`.

Decision: the build only orders the layouts that are tried. Servicing changed them inside one build number (17763, 26100),
so the one with most witnesses on the heap itself is used, and what lies inside subsegments is chosen again when they are
read.
"""

from __future__ import annotations

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, ExtentKind, Heap, Segment, Trust, WindowsCounters
from heapdump.blocks.kinds import HeapKind
from heapdump.heaps.allocator import PAGE, DiscoveryContext, Evidence, HeapClaim, Weight, role_of
from heapdump.heaps.segment.header import SIGNATURE, contexts, is_usable, own_span, read_segments, witnesses
from heapdump.heaps.segment.large_blocks import read_large_blocks
from heapdump.heaps.unwalked import own_reservation
from heapdump.layouts import Layout
from heapdump.memory.regions import State
from heapdump.process.model import Process, View
from heapdump.spans import Span

_CLASS_BITS = 0xF000
_MiB = 1 << 20
_PROOFS = {"metadata bounds that hold it", "segment lists that link back"}
"""Witnesses of which one is needed for an address that no heap list names; the others hold on zeros too."""


def claim(view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
    """Needs the signature and one more: named by a heap list, or bounds of its metadata that hold it.

    The layout is the one with most witnesses; it is given where its bounds and its contexts hold.
    """
    if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != SIGNATURE:
        return None
    listed = (Evidence("named by the heap list", Weight.LINKED),) if is_listed else ()
    best, seen = _best_layout(view, address)
    held = [name for name, good in seen.items() if good]
    if not is_listed and not _PROOFS & {*held}:
        return None
    doubts = tuple(name for name, good in seen.items() if not good)
    is_exact = best is not None and best.name == view.layout.name and view.is_layout_exact and not _is_inferred(best)
    signature = Evidence("signature DDEEDDEE", Weight.SIGNATURE)
    evidence = (signature, *listed, *(Evidence(name, Weight.PLAUSIBLE) for name in held))
    return HeapClaim(address, evidence, doubts, best, is_exact)


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """Own reservation, segments, large blocks, Windows' counters; without a layout the own reservation alone."""
    if claim.layout is None:
        doubts = ", ".join(claim.doubts)
        note = (
            f"heap {claim.address:#x} is a segment heap of which no known layout holds (expected {doubts}): only its "
            "own reservation is counted as Heap, its blocks are not walked"
        )
        spans = (
            own_span(context.view, layout, claim.address) for layout in context.view.layouts if _says_where(layout)
        )
        known = next((span for span in spans if span is not None), None)
        return own_reservation(context, claim, index, HeapKind.SEGMENT, ExtentKind.SEGMENT_HEAP, note, known)
    return _describe(context, claim, claim.layout, index)


def _best_layout(view: View, heap: int) -> tuple[Layout | None, dict[str, bool]]:
    """(the layout with most witnesses, the likelier of equal ones; its witnesses). None where it cannot be relied on."""
    tried = [(layout, witnesses(view, layout, heap)) for layout in view.layouts if _says_where(layout)]
    best, seen = max(tried, key=lambda pair: sum(pair[1].values()), default=(None, {"a layout": False}))
    return (best if best is not None and is_usable(view, best, heap) else None), seen


def _says_where(layout: Layout) -> bool:
    """True for a layout that says where the segments of a segment heap are."""
    if "_SEGMENT_HEAP" not in layout:
        return False
    struct = layout["_SEGMENT_HEAP"]
    return "SegContexts" in struct or "SegmentListHead" in struct


def _is_inferred(layout: Layout) -> bool:
    return layout["_SEGMENT_HEAP"].confidence.startswith("secondary (inferred")


def _describe(context: DiscoveryContext, claim: HeapClaim, layout: Layout, index: int) -> Heap:
    process, view, heap = context.process, context.view, claim.address
    findings: list[Finding] = []
    notes = [f"heap {heap:#x}: expected {doubt}" for doubt in claim.doubts]
    found, all_segments = read_segments(context, layout, heap, findings, notes)
    blocks, all_blocks = read_large_blocks(context, layout, heap, findings, notes)
    segments = tuple(_segment(process, Span(node, node + part.segment_bytes), part.unit) for part, node in found)
    own = _own(process, view, layout, heap, segments)
    fields = view.struct("_SEGMENT_HEAP", heap, layout) or {}
    stated = _stated(view, layout, heap, fields)
    extents = [Extent(own, ExtentKind.STRUCTURES)]
    extents += [Extent(s.span, ExtentKind.SEGMENT, i) for i, s in enumerate(segments)]
    metadata = _metadata(process, [b.metadata or 0 for b in blocks or ()])
    extents += [Extent(span, ExtentKind.LARGE_METADATA) for span in metadata]
    extents += [Extent(block.span, ExtentKind.LARGE_BLOCK) for block in blocks or ()]
    has_map = process.regions.is_complete_map
    committed = process.regions.committed_bytes(own) + sum(s.committed_bytes for s in segments)
    return Heap(
        address=heap,
        index=index,
        kind=HeapKind.SEGMENT,
        role=role_of(view, heap, fields.get("GlobalFlags", 0) & _CLASS_BITS),
        view=view.arch,
        flags=None,
        segments=segments,
        large_blocks=blocks,
        extents=tuple(sorted(extents, key=lambda extent: extent.span)),
        reserved_bytes=own.size + sum(s.span.size for s in segments),
        committed_bytes=committed if has_map else stated.committed_bytes,
        counters=stated,
        front_end="lfh",
        lookaside_bytes=0,
        stack_traces=bool(fields["Interceptor"]) if "Interceptor" in fields else None,
        trust=claim.trust if all_segments else Trust.DERIVED,
        layout=layout.name,
        findings=tuple(findings),
        notes=tuple(notes),
        is_fully_walked=all_segments and all_blocks,
    )


def _own(process: Process, view: View, layout: Layout, heap: int, segments: tuple[Segment, ...]) -> Span:
    """The heap's own structures: by its own bounds, else by the memory map, up to the next segment or reservation."""
    whole = own_span(view, layout, heap) or process.regions.allocation(heap) or Span(heap, heap + PAGE)
    behind = (segment.address for segment in segments if segment.address > heap)
    return Span(heap, min([max(whole.end, heap + PAGE), *behind]))


def _segment(process: Process, span: Span, unit: int) -> Segment:
    regions, uncommitted, at = process.regions, [], span.start
    i = regions.index_at(span.start)
    row = 0 if i is None else i
    while row < len(regions) and int(regions.start[row]) < span.end:
        if regions.state[row] == State.MEM_COMMIT and int(regions.end[row]) > at:
            if int(regions.start[row]) > at:
                uncommitted.append(Span(at, int(regions.start[row])))
            at = int(regions.end[row])
        row += 1
    if at < span.end:
        uncommitted.append(Span(at, span.end))
    total = sum(part.size for part in uncommitted)
    return Segment(span.start, span, tuple(uncommitted), total, has_all_ranges=True, unit_bytes=unit)


def _stated(view: View, layout: Layout, heap: int, fields: dict[str, int]) -> WindowsCounters:
    """Windows' own counts of pages: they cover the segments and the heap's own reservation (recorded heaps)."""
    struct = layout["_SEGMENT_HEAP"]
    if "MemStats" in struct:
        counts = view.struct("_HEAP_RUNTIME_MEMORY_STATS", heap + struct.offset("MemStats"), layout) or {}
    else:
        counts = fields

    def size(name: str, source: dict[str, int]) -> int | None:
        """A count of pages in bytes; None where this build has none."""
        return source[name] * PAGE if name in source else None

    return WindowsCounters(
        reserved_bytes=size("TotalReservedPages", counts),
        committed_bytes=size("TotalCommittedPages", counts),
        virtual_bytes=size("LargeCommittedPages", fields),
        segments=sum(part.segments for part in contexts(view, layout, heap) or ()),
    )


def _metadata(process: Process, nodes: list[int]) -> list[Span]:
    """The MiBs of ntdll's own heap that hold the metadata of large blocks; as far as they are one reservation."""
    found = set()
    for node in nodes:
        whole = process.regions.allocation(node)
        if whole is not None and (part := whole & Span(node // _MiB * _MiB, (node // _MiB + 1) * _MiB)):
            found.add(part)
    return sorted(found)
