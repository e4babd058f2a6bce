"""Segments and uncommitted ranges of NT heaps from Vista on."""

from __future__ import annotations

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.records import Segment
from heapdump.heaps.base import PAGE
from heapdump.heaps.rings import Ring, walk_ring
from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.spans import Span

_SIGNATURE = 0xFFEEFFEE
_MAX_SEGMENT_BYTES = 1 << 40


def read_segments(
    process: Process, view: View, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[tuple[Segment, ...], bool]:
    """(segments by list order, the heap's own first; whether none can be missing)."""
    offset = layout["_HEAP_SEGMENT"].offset("SegmentListEntry")
    head = heap + layout["_HEAP"].offset("SegmentList")
    ring = walk_ring(view.space, head, lambda node: segment_span(view, layout, heap, node - offset) is not None)
    ring_findings("segment", heap, ring, "segment list", findings, notes)
    addresses = dict.fromkeys(node - offset for node in ring.nodes)
    if not ring.is_closed:
        addresses.update(dict.fromkeys(_scan_for_segments(process, view, layout, heap)))
    ordered = sorted(addresses, key=lambda address: address != heap)
    if heap not in addresses and segment_span(view, layout, heap, heap) is not None:
        ordered.insert(0, heap)
    segments = tuple(_segment(view, layout, heap, address, findings, notes) for address in ordered)
    return segments, ring.is_closed


def segment_span(view: View, layout: Layout, heap: int, address: int) -> Span | None:
    """[base, reserve end) of the segment whose header lies at the address; None where it is none of this heap's."""
    fields = view.struct("_HEAP_SEGMENT", address, layout)
    if fields is None or fields["SegmentSignature"] != _SIGNATURE or fields["Heap"] != heap:
        return None
    base, size = fields["BaseAddress"], fields["NumberOfPages"] * PAGE
    if not (base <= address < base + size <= base + _MAX_SEGMENT_BYTES) or base % PAGE:
        return None
    return Span(base, base + size)


def _scan_for_segments(process: Process, view: View, layout: Layout, heap: int) -> list[int]:
    """Reservations that begin with a segment header of this heap: for a list that is broken."""
    starts = (int(process.regions.start[first]) for first, _ in process.regions.runs())
    return [start for start in starts if segment_span(view, layout, heap, start) is not None]


def _segment(
    view: View, layout: Layout, heap: int, address: int, findings: list[Finding], notes: list[str]
) -> Segment:
    fields = view.struct("_HEAP_SEGMENT", address, layout) or {}
    span = segment_span(view, layout, heap, address) or Span(address, address)
    descriptor = layout["_HEAP_UCR_DESCRIPTOR"]

    def read(node: int) -> Span | None:
        ucr = view.struct("_HEAP_UCR_DESCRIPTOR", node - descriptor.offset("SegmentEntry"), layout)
        if ucr is None or ucr["Address"] % PAGE or ucr["Size"] % PAGE:
            return None
        found = Span(ucr["Address"], ucr["Address"] + ucr["Size"])
        return found if span.covers(found) else None

    ring = walk_ring(view.space, address + layout["_HEAP_SEGMENT"].offset("UCRSegmentList"), lambda n: read(n) is not None)
    ring_findings("ucr", heap, ring, f"list of uncommitted ranges of segment {address:#x}", findings, notes)
    ranges = sorted({found for node in ring.nodes if (found := read(node)) is not None and found.size})
    return Segment(address, span, tuple(ranges), fields.get("NumberOfUnCommittedPages", 0) * PAGE)


def ring_findings(
    kind: FindingKind, heap: int, ring: Ring, what: str, findings: list[Finding], notes: list[str]
) -> None:
    """One finding for each break of a ring, and a note when nodes may be missing."""
    for broken in ring.breaks:
        expected = "a node of the list" if broken.expected is None else f"{broken.expected:#x}"
        found = "no memory" if broken.found is None else f"{broken.found:#x}"
        message = f"the {what} of heap {heap:#x} is broken: the link at {broken.address:#x} is {found}"
        findings.append(Finding(kind, "error", heap, broken.address, 8, message, expected, found))
    if not ring.is_closed:
        places = ", ".join(f"{b.address:#x}" for b in ring.breaks[:4])
        notes.append(
            f"the {what} of heap {heap:#x} is broken at {places}: {len(ring.nodes)} reached from its two ends, "
            "more may be missing between"
        )
