"""Segments and uncommitted ranges of NT heaps of Vista and later (docs/reference/heap-structures.md §2.2, §2.5)."""

from __future__ import annotations

from bisect import bisect_left
from functools import cache

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE, SEGMENT_SIGNATURE
from heapdump.heaps.integers import address_limit
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.spans import Span, merged
from heapdump.wording import plural

MAX_SEGMENT_BYTES = 1 << 40


def read_segments(reader: HeapReader) -> tuple[tuple[Segment, ...], bool]:
    """(segments in list order, the heap's own first; True when no segment and no range of one can be missing)."""
    layout, heap = reader.layout, reader.address
    offset = layout["_HEAP_SEGMENT"].offset("SegmentListEntry")
    head = heap + layout["_HEAP"].offset("SegmentList")
    spans = cache(lambda address: _segment_span(reader, address))
    linked = reader.discovery.ring(head, lambda node: spans(node - offset) is not None)
    reader.link_damage("segment", linked, "segment list", (offset, layout["_HEAP_SEGMENT"].size))
    addresses = dict.fromkeys(node - offset for node in linked.nodes)
    if not linked.is_closed:
        addresses.update(dict.fromkeys(reader.discovery.segment_headers.get(heap, ())))
    ordered = sorted(addresses, key=lambda address: address != heap)
    if heap not in addresses:
        ordered.insert(0, heap)
    apart = _without_overlaps(reader, {address: spans(address) for address in ordered})
    segments = tuple(_segment(reader, address, span) for address, span in apart)
    has_all = linked.is_closed and len(apart) == len(ordered) and all(s.has_all_ranges for s in segments)
    return segments, has_all


def _without_overlaps(reader: HeapReader, spans: dict[int, Span | None]) -> list[tuple[int, Span]]:
    """(address, span) of each segment; of two that overlap the second is damage and left out."""
    heap = reader.address
    out: list[tuple[int, Span]] = []
    starts: list[tuple[int, int]] = []
    for address, span in spans.items():
        if span is None:
            continue
        i = bisect_left(starts, (span.start, span.end))
        if any(other[0] < span.end and span.start < other[1] for other in starts[max(0, i - 1) : i + 1]):
            message = f"segment {address:#x} of heap {heap:#x} overlaps another segment and was left out"
            damage = Finding("segment", "error", heap, address, 1, message, "memory of its own", f"{span.start:#x}")
            reader.damage(damage, message)
            continue
        starts.insert(i, (span.start, span.end))
        out.append((address, span))
    return out


def _segment_span(reader: HeapReader, address: int) -> Span | None:
    """[base, end of the reservation) of the segment whose header lies there; None where the heap has none there."""
    view = reader.view
    fields = view.struct("_HEAP_SEGMENT", address, reader.layout)
    if fields is None:
        return None
    has_signature, names_heap = fields["SegmentSignature"] == SEGMENT_SIGNATURE, fields["Heap"] == reader.address
    # the claim has verified the heap's own header: one of the two may be damaged there
    if not (has_signature or names_heap) if address == reader.address else not (has_signature and names_heap):
        return None
    base, size = fields["BaseAddress"], fields["NumberOfPages"] * PAGE
    if not (base <= address < base + size <= base + MAX_SEGMENT_BYTES) or base % PAGE:
        return None
    if base + size > address_limit(view):
        return None
    return Span(base, base + size)


def _segment(reader: HeapReader, address: int, span: Span) -> Segment:
    """The segment with its uncommitted ranges.

    Their bytes must be those that the segment counts: NumberOfUnCommittedPages * 4096.
    """
    layout, heap = reader.layout, reader.address
    fields = reader.view.struct("_HEAP_SEGMENT", address, layout) or {}
    counted_bytes = fields.get("NumberOfUnCommittedPages", 0) * PAGE
    head = address + layout["_HEAP_SEGMENT"].offset("UCRSegmentList")
    range_at = cache(lambda node: _uncommitted_range(reader, span, node))
    linked = reader.discovery.ring(head, lambda node: range_at(node) is not None)
    name = f"list of uncommitted ranges of segment {address:#x}"
    descriptor = layout["_HEAP_UCR_DESCRIPTOR"]
    reader.link_damage("ucr", linked, name, (descriptor.offset("SegmentEntry"), descriptor.size))
    listed = sorted(found for node in linked.nodes if (found := range_at(node)) is not None and found.size)
    ranges = merged(listed)
    total = sum(one.size for one in ranges)
    has_all = linked.is_closed and total == counted_bytes and total == sum(one.size for one in listed)
    if fields and linked.is_closed and not has_all:
        message = f"the {name} of heap {heap:#x} holds {plural(total, 'byte')}, the segment says {counted_bytes:,}"
        pointer = reader.view.pointer_bytes
        reader.damage(Finding("ucr", "error", heap, head, pointer, message, f"{counted_bytes}", f"{total}"), message)
    return Segment(address, span, tuple(ranges), counted_bytes, has_all)


def _uncommitted_range(reader: HeapReader, segment: Span, node: int) -> Span | None:
    """The range of a _HEAP_UCR_DESCRIPTOR by its SegmentEntry; None where it does not lie in the segment."""
    descriptor = node - reader.layout["_HEAP_UCR_DESCRIPTOR"].offset("SegmentEntry")
    fields = reader.view.struct("_HEAP_UCR_DESCRIPTOR", descriptor, reader.layout)
    if fields is None or fields["Address"] % PAGE or fields["Size"] % PAGE:
        return None
    found = Span(fields["Address"], fields["Address"] + fields["Size"])
    return found if segment.covers(found) else None
