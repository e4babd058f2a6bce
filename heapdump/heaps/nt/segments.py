"""Segments and uncommitted ranges of NT heaps of Vista and later (docs/reference/heap-structures.md §2.2, §2.5)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from functools import cache

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE, SEGMENT_SIGNATURE, is_partly_missing
from heapdump.heaps.integers import address_limit
from heapdump.heaps.linked_list import LinkedList
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.heaps.nt.segment_repair import damaged_segment, report_segment
from heapdump.heaps.nt.uncommitted_ranges import mapped_ranges, report_ranges
from heapdump.memory.regions import State
from heapdump.spans import Span, merged
from heapdump.wording import plural

MAX_SEGMENT_BYTES = 1 << 40


def read_segments(reader: HeapReader) -> tuple[tuple[Segment, ...], bool]:
    """(segments in list order, the heap's own first; True when no segment and no range of one can be missing)."""
    layout, heap = reader.layout, reader.address
    offset = layout["_HEAP_SEGMENT"].offset("SegmentListEntry")
    head = heap + layout["_HEAP"].offset("SegmentList")
    spans = cache(lambda address: _best_span(reader, address))
    linked = reader.discovery.walk_list(head, lambda node: spans(node - offset) is not None)
    reader.add_link_damage("segment", linked, "segment list", (offset, layout["_HEAP_SEGMENT"].size))
    addresses = dict.fromkeys(node - offset for node in linked.nodes)
    if not linked.is_closed:
        addresses.update(dict.fromkeys(reader.discovery.segment_headers.get(heap, ())))
    ordered = sorted(addresses, key=lambda address: address != heap)
    if heap not in addresses:
        ordered.insert(0, heap)
    apart = _without_overlaps(reader, {address: spans(address) for address in ordered})
    segments = tuple(_segment(reader, address, span) for address, span in apart)
    for address, span in apart:
        report_segment(reader, address, span)
    segments += _without_header(reader, linked, segments)
    has_all = linked.is_closed and len(apart) == len(ordered) and all(s.has_all_ranges for s in segments)
    return segments, has_all


def mapped_segment(reader: HeapReader, address: int) -> Segment | None:
    """A segment whose header is not in the dump: the reservation that begins at the address, by the memory map.

    Only the last uncommitted range is taken from the map; earlier uncommitted memory may lie inside free entries.
    """
    regions = reader.process.regions
    span = regions.allocation(address) if regions.is_complete_map else None
    if span is None or span.start != address or span.size > MAX_SEGMENT_BYTES:
        return None
    tail = _uncommitted_tail(reader, span)
    uncommitted = span.size - regions.committed_bytes(span)
    return Segment(address, span, () if tail is None else (tail,), uncommitted, has_all_ranges=False)


def _uncommitted_tail(reader: HeapReader, span: Span) -> Span | None:
    """The span behind the last committed page of a reservation, by the memory map; None where it ends committed."""
    regions = reader.process.regions
    end, i = span.end, regions.index_at(span.end - 1)
    while i is not None and i >= 0 and end > span.start and regions.state[i] != State.MEM_COMMIT:
        end = max(span.start, int(regions.start[i]))
        i -= 1
    return Span(end, span.end) if end < span.end else None


def _without_header(reader: HeapReader, linked: LinkedList, known: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments that a broken link leads to and whose headers are not in the dump."""
    places = (broken.found for broken in linked.breaks if broken.found is not None)
    return segments_at(reader, places, known)


def segments_at(reader: HeapReader, nodes: Iterable[int], known: tuple[Segment, ...]) -> tuple[Segment, ...]:
    """The segments of these list nodes whose headers are not in the dump; none that overlaps a known segment."""
    struct, found = reader.layout["_HEAP_SEGMENT"], list(known)
    for address in sorted({node - struct.offset("SegmentListEntry") for node in nodes}):
        is_missing = is_partly_missing(reader.process, address, struct.size)
        one = mapped_segment(reader, address) if is_missing else None
        if one is not None and not any(one.span & other.span for other in found):
            found.append(one)
    return tuple(found[len(known) :])


def segments_by_headers(reader: HeapReader) -> Iterator[Segment]:
    """The later segments of the heap by `DiscoveryContext.segment_headers`, whatever the list says."""
    for address in sorted(reader.discovery.segment_headers.get(reader.address, ())):
        span = _segment_span(reader, address) if address != reader.address else None
        if span is not None:
            yield _segment(reader, address, span)


def _without_overlaps(reader: HeapReader, spans: dict[int, Span | None]) -> list[tuple[int, Span]]:
    """(address, span) of each segment. Of two that overlap, the second is reported and left out."""
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
            reader.add_damage(damage, message)
            continue
        starts.insert(i, (span.start, span.end))
        out.append((address, span))
    return out


def _best_span(reader: HeapReader, address: int) -> Span | None:
    """The span of a segment; where its header contradicts itself about the end, the memory map decides."""
    span = _segment_span(reader, address)
    place = address + reader.layout["_HEAP_SEGMENT"].offset("LastValidEntry")
    if span is not None and reader.view.space.try_pointer(place) in (None, span.end):
        return span
    return damaged_segment(reader, address) or span


def _segment_span(reader: HeapReader, address: int) -> Span | None:
    """[base, end of the reservation) of the segment of the heap whose header lies at an address; None for none."""
    view = reader.view
    fields = view.struct("_HEAP_SEGMENT", address, reader.layout)
    if fields is None:
        return None
    has_signature, names_heap = fields["SegmentSignature"] == SEGMENT_SIGNATURE, fields["Heap"] == reader.address
    # in the heap's own segment one of the two may be damaged: the claim has verified the header
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

    Their bytes must be those that the segment counts: NumberOfUnCommittedPages * 4096. Else the memory map corrects
    them (`mapped_ranges`), or some may be missing; both are an error.
    """
    layout, heap = reader.layout, reader.address
    fields = reader.view.struct("_HEAP_SEGMENT", address, layout) or {}
    counted_bytes = fields.get("NumberOfUnCommittedPages", 0) * PAGE
    head = address + layout["_HEAP_SEGMENT"].offset("UCRSegmentList")
    range_at = cache(lambda node: _uncommitted_range(reader, span, node))
    linked = reader.discovery.walk_list(head, lambda node: range_at(node) is not None)
    name = f"list of uncommitted ranges of segment {address:#x}"
    descriptor = layout["_HEAP_UCR_DESCRIPTOR"]
    reader.add_link_damage("ucr", linked, name, (descriptor.offset("SegmentEntry"), descriptor.size))
    listed = sorted(found for node in linked.nodes if (found := range_at(node)) is not None and found.size)
    ranges = merged(listed)
    total = sum(one.size for one in ranges)
    has_all = linked.is_closed and total == counted_bytes and total == sum(one.size for one in listed)
    mapped = mapped_ranges(reader.process.regions, span, ranges, counted_bytes) if fields and linked.is_closed else None
    if mapped is not None:
        counter = address + layout["_HEAP_SEGMENT"].offset("NumberOfUnCommittedPages")
        report_ranges(reader, name, (head, counter), ranges, mapped)
        return Segment(address, span, tuple(mapped), counted_bytes, has_all_ranges=True)
    if fields and linked.is_closed and not has_all:
        message = f"the {name} of heap {heap:#x} holds {plural(total, 'byte')}, the segment says {counted_bytes:,}"
        pointer = reader.view.pointer_bytes
        reader.add_damage(
            Finding("ucr", "error", heap, head, pointer, message, f"{counted_bytes}", f"{total}"), message
        )
    return Segment(address, span, tuple(ranges), counted_bytes, has_all)


def _uncommitted_range(reader: HeapReader, segment: Span, node: int) -> Span | None:
    """The range of a _HEAP_UCR_DESCRIPTOR by its SegmentEntry; None where it does not lie in the segment."""
    descriptor = node - reader.layout["_HEAP_UCR_DESCRIPTOR"].offset("SegmentEntry")
    fields = reader.view.struct("_HEAP_UCR_DESCRIPTOR", descriptor, reader.layout)
    if fields is None or fields["Address"] % PAGE or fields["Size"] % PAGE:
        return None
    found = Span(fields["Address"], fields["Address"] + fields["Size"])
    return found if segment.covers(found) else None
