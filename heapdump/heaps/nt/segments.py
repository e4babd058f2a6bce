"""Segments and uncommitted ranges of NT heaps from Vista on."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE, SEGMENT_SIGNATURE, DiscoveryContext, is_missing
from heapdump.heaps.linked_list import LinkedList
from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.spans import Span, merged
from heapdump.wording import plural

MAX_SEGMENT_BYTES = 1 << 40


def read_segments(
    context: DiscoveryContext, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[tuple[Segment, ...], bool]:
    """(segments by list order, the heap's own first; whether all of them and of their ranges are known)."""
    view = context.view
    offset = layout["_HEAP_SEGMENT"].offset("SegmentListEntry")
    head = heap + layout["_HEAP"].offset("SegmentList")
    spans = cache(lambda address: segment_span(view, layout, heap, address))
    ring = context.ring(head, lambda node: spans(node - offset) is not None)
    ring_findings(context.process, "segment", heap, ring, "segment list", findings, notes)
    addresses = dict.fromkeys(node - offset for node in ring.nodes)
    if not ring.is_closed:
        addresses.update(dict.fromkeys(context.segment_headers.get(heap, ())))
    ordered = sorted(addresses, key=lambda address: address != heap)
    if heap not in addresses:
        ordered.insert(0, heap)
    good = _without_overlaps(heap, {address: spans(address) for address in ordered}, findings, notes)
    segments = tuple(_segment(context, layout, heap, address, span, findings, notes) for address, span in good)
    whole = ring.is_closed and len(good) == len(ordered) and all(s.has_all_ranges for s in segments)
    return segments, whole


def address_limit(view: View) -> int:
    """Addresses of user mode lie below; signed 64-bit arithmetic holds for all of them."""
    return 1 << min(8 * view.pointer_bytes, 63)


def _without_overlaps(
    heap: int, spans: dict[int, Span | None], findings: list[Finding], notes: list[str]
) -> list[tuple[int, Span]]:
    """(address, span) of each segment that is one; one that lies over another is damage and is left out."""
    out: list[tuple[int, Span]] = []
    starts: list[tuple[int, int]] = []
    for address, span in spans.items():
        if span is None:
            continue
        i = bisect_left(starts, (span.start, span.end))
        if any(other[0] < span.end and span.start < other[1] for other in starts[max(0, i - 1) : i + 1]):
            message = f"segment {address:#x} of heap {heap:#x} overlaps another segment and was left out"
            findings.append(
                Finding("segment", "error", heap, address, 1, message, "memory of its own", f"{span.start:#x}")
            )
            notes.append(message)
            continue
        starts.insert(i, (span.start, span.end))
        out.append((address, span))
    return out


def segment_span(view: View, layout: Layout, heap: int, address: int) -> Span | None:
    """[base, reserve end) of the segment whose header lies at the address; None where it is none of this heap's."""
    fields = view.struct("_HEAP_SEGMENT", address, layout)
    if fields is None:
        return None
    signed, named = fields["SegmentSignature"] == SEGMENT_SIGNATURE, fields["Heap"] == heap
    # the heap's own header was verified as a heap already: one of the two may be damaged there
    if not (signed or named) if address == heap else not (signed and named):
        return None
    base, size = fields["BaseAddress"], fields["NumberOfPages"] * PAGE
    if not (base <= address < base + size <= base + MAX_SEGMENT_BYTES) or base % PAGE:
        return None
    if base + size > address_limit(view):
        return None
    return Span(base, base + size)


def _segment(
    context: DiscoveryContext,
    layout: Layout,
    heap: int,
    address: int,
    span: Span,
    findings: list[Finding],
    notes: list[str],
) -> Segment:
    view, descriptor = context.view, layout["_HEAP_UCR_DESCRIPTOR"]
    fields = view.struct("_HEAP_SEGMENT", address, layout) or {}
    stated = fields.get("NumberOfUnCommittedPages", 0) * PAGE

    @cache
    def read(node: int) -> Span | None:
        """The uncommitted range of a list node, None where it is none of this segment's."""
        ucr = view.struct("_HEAP_UCR_DESCRIPTOR", node - descriptor.offset("SegmentEntry"), layout)
        if ucr is None or ucr["Address"] % PAGE or ucr["Size"] % PAGE:
            return None
        found = Span(ucr["Address"], ucr["Address"] + ucr["Size"])
        return found if span.covers(found) else None

    head = address + layout["_HEAP_SEGMENT"].offset("UCRSegmentList")
    ring = context.ring(head, lambda node: read(node) is not None)
    what = f"list of uncommitted ranges of segment {address:#x}"
    ring_findings(context.process, "ucr", heap, ring, what, findings, notes)
    listed = sorted(found for node in ring.nodes if (found := read(node)) is not None and found.size)
    ranges = merged(listed)
    total = sum(part.size for part in ranges)
    whole = ring.is_closed and total == stated and total == sum(part.size for part in listed)
    if ring.is_closed and not whole:
        message = f"the {what} of heap {heap:#x} holds {plural(total, 'byte')}, the segment says {stated:,}"
        findings.append(Finding("ucr", "error", heap, head, view.pointer_bytes, message, f"{stated}", f"{total}"))
        notes.append(message)
    return Segment(address, span, tuple(ranges), stated, whole)


def ring_findings(
    process: Process,
    kind: FindingKind,
    heap: int,
    ring: LinkedList,
    what: str,
    findings: list[Finding],
    notes: list[str],
) -> None:
    """One finding for each break of a ring that is damage, and a note when nodes may be missing.

    A ring that ends where the dump lacks memory is not damaged.
    """
    for broken in ring.breaks:
        if broken.found is None or is_missing(process, broken.found):
            continue
        expected = "a node of the list" if broken.expected is None else f"{broken.expected:#x}"
        found = f"{broken.found:#x}"
        message = f"the {what} of heap {heap:#x} is broken: the link at {broken.address:#x} is {found}"
        findings.append(Finding(kind, "error", heap, broken.address, broken.length, message, expected, found))
    if not ring.is_closed:
        places = ", ".join(f"{b.address:#x}" for b in ring.breaks[:4])
        notes.append(
            f"the {what} of heap {heap:#x} is broken at {places}: {len(ring.nodes)} reached from its two ends, "
            "more may be missing between"
        )
