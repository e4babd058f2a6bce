"""Segments and uncommitted ranges of NT heaps of XP and Server 2003 (docs/reference/heap-structures.md §2.2, §2.5)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE, SEGMENT_SIGNATURE, is_partly_missing
from heapdump.heaps.integers import address_limit
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.heaps.nt.entry_key import ENOUGH_PAIRS
from heapdump.heaps.nt.segment_repair import damaged_segment, report_segment
from heapdump.heaps.nt.segments import MAX_SEGMENT_BYTES, mapped_segment
from heapdump.heaps.nt.uncommitted_ranges import mapped_ranges, report_ranges
from heapdump.layouts import Layout
from heapdump.memory import limits
from heapdump.process.model import View
from heapdump.spans import Span, merged

_READ_BYTES = 0x40000
"""Bytes at the beginning of a reservation that are searched for entries."""


def segment_pointers(view: View, layout: Layout, heap: int) -> Iterator[tuple[int, int]]:
    """(address of the element, address of the segment) for each element of _HEAP.Segments[64] that is not 0."""
    field = layout["_HEAP"].fields["Segments"]
    for i in range(field.count):
        place = heap + field.offset + i * view.pointer_bytes
        if segment := view.space.try_pointer(place):
            yield place, segment


def segment_fields(view: View, layout: Layout, heap: int, segment: int) -> dict[str, int] | None:
    """The members of a _HEAP_SEGMENT by name; None where no segment of this heap lies at the address."""
    fields = view.struct("_HEAP_SEGMENT", segment, layout) if segment else None
    if fields is None or fields["Signature"] != SEGMENT_SIGNATURE or fields["Heap"] != heap:
        return None
    base, size = fields["BaseAddress"], fields["NumberOfPages"] * PAGE
    fits = base % PAGE == 0 and base <= segment < base + size and size <= MAX_SEGMENT_BYTES
    return fields if fits and base + size < address_limit(view) else None


def read_pre_vista_segments(reader: HeapReader) -> tuple[tuple[Segment, ...], bool]:
    """(segments in the order of Segments[64]; True when no segment and no range of one can be missing)."""
    view, layout, heap = reader.view, reader.layout, reader.address
    out: list[Segment] = []
    by_number, has_all = _segments_by_number(reader)
    for number, segment in by_number.items():
        fields, span = segment_fields(view, layout, heap, segment), None
        if fields is None or fields["LastValidEntry"] != fields["BaseAddress"] + fields["NumberOfPages"] * PAGE:
            span = damaged_segment(reader, segment)
        if span is not None:
            fields = view.struct("_HEAP_SEGMENT", segment, layout)
        if fields is None:
            has_all = False
            out.extend(_without_header(reader, segment, number, out))
            continue
        base = fields["BaseAddress"]
        span = span or Span(base, base + fields["NumberOfPages"] * PAGE)
        if any(span & other.span for other in out):
            has_all = False
            message = f"segment {segment:#x} of heap {heap:#x} overlaps another segment and was left out"
            damage = Finding("segment", "error", heap, segment, 1, message, "memory of its own", f"{base:#x}")
            reader.add_damage(damage, message)
            continue
        uncommitted = fields["NumberOfUnCommittedPages"] * PAGE
        ranges, has_all_ranges = _counted_ranges(reader, segment, span, fields["UnCommittedRanges"], uncommitted)
        has_all = has_all and has_all_ranges
        out.append(Segment(segment, span, ranges, uncommitted, has_all_ranges, number=number))
        report_segment(reader, segment, span)
    return tuple(out), has_all


def _segments_by_number(reader: HeapReader) -> tuple[dict[int, int], bool]:
    """(number → address of each segment, ascending; False where one may be missing).

    By Segments[64], and where an element is damaged by the headers of segments.

    A header names its heap, and the entry that holds it the number of its segment. Each damaged element is a finding.
    """
    view, heap, field = reader.view, reader.address, reader.layout["_HEAP"].fields["Segments"]
    found = {
        (place - heap - field.offset) // view.pointer_bytes: segment
        for place, segment in segment_pointers(view, reader.layout, heap)
    }
    wrong = _repeated(reader, found)
    for number in wrong:
        del found[number]
    headers = [*reader.discovery.segment_headers.get(heap, ()), *_own_header(reader, found.get(0, 0))]
    for address in headers:
        fields = segment_fields(view, reader.layout, heap, address) if address not in found.values() else None
        number = 0 if fields is None else _number(reader, address, fields)
        is_taken = number in found and _may_be_segment(reader, found[number])
        if fields is not None and number < field.count and not is_taken:
            _report_pointer(reader, number, wrong.pop(number, found.get(number, 0)), address)
            found[number] = address
    for number, address in wrong.items():
        _report_pointer(reader, number, address, 0)
    return dict(sorted(found.items())), not wrong


def _repeated(reader: HeapReader, found: Mapping[int, int]) -> dict[int, int]:
    """The elements that lead to a segment which, by its own number, belongs to another one that leads there as well."""
    out = {}
    for number, address in found.items():
        fields = segment_fields(reader.view, reader.layout, reader.address, address)
        own = number if fields is None else _number(reader, address, fields)
        if own != number and found.get(own) == address:
            out[number] = address
    return out


def _report_pointer(reader: HeapReader, number: int, pointed_to: int, address: int) -> None:
    """An error at an element of Segments[64]; `address`: of its segment, 0 where there is none: a note then."""
    pointer = reader.view.pointer_bytes
    place = reader.address + reader.layout["_HEAP"].offset("Segments") + number * pointer
    message = f"the pointer at {place:#x} of heap {reader.address:#x} does not lead to its segment"
    expected = f"{address:#x}" if address else "a segment of its own"
    reader.findings.append(
        Finding("segment", "error", reader.address, place, pointer, message, expected, f"{pointed_to:#x}")
    )
    if not address:
        reader.notes.append(message)


def _own_header(reader: HeapReader, pointed_to: int) -> Iterator[int]:
    """The header of the segment that begins with the heap, in its first page, where `pointed_to` is none."""
    view, heap, struct = reader.view, reader.address, reader.layout["_HEAP"]
    if segment_fields(view, reader.layout, heap, pointed_to) is not None or _may_be_segment(reader, pointed_to):
        return
    for address in range(heap + -(-struct.size // view.granularity) * view.granularity, heap + PAGE, view.granularity):
        fields = segment_fields(view, reader.layout, heap, address)
        if fields is not None and fields["BaseAddress"] == heap:
            yield address


def _number(reader: HeapReader, address: int, fields: dict[str, int]) -> int:
    """The number of the segment whose header lies there: that of its first entry; 0 of the heap's own."""
    at = address + reader.view.granularity - 1  # SegmentIndex
    return 0 if fields["BaseAddress"] == reader.address else reader.view.space.try_integer(at, 1) or 0


def _may_be_segment(reader: HeapReader, segment: int) -> bool:
    """True where the header of a segment of the heap lies, damaged in part, or the dump has it in part."""
    if segment_fields(reader.view, reader.layout, reader.address, segment) is not None:
        return True
    is_lost = is_partly_missing(reader.process, segment, reader.layout["_HEAP_SEGMENT"].size)
    return is_lost or damaged_segment(reader, segment) is not None


def later_segments(reader: HeapReader) -> Iterator[Segment]:
    """The later segments whose headers name the heap, by a scan of all reservations."""
    view = reader.view
    for address in sorted(reader.discovery.segment_headers.get(reader.address, ())):
        fields = segment_fields(view, reader.layout, reader.address, address)
        number = view.space.try_integer(address + view.granularity - 1, 1)  # SegmentIndex of its first entry
        if fields is None or not number:
            continue
        span = Span(fields["BaseAddress"], fields["BaseAddress"] + fields["NumberOfPages"] * PAGE)
        ranges, has_all = _uncommitted_ranges(reader, span, fields["UnCommittedRanges"])
        uncommitted = fields["NumberOfUnCommittedPages"] * PAGE
        yield Segment(address, span, ranges, uncommitted, has_all, number=number)


def _without_header(reader: HeapReader, segment: int, number: int, known: list[Segment]) -> Iterator[Segment]:
    """The segment that an element of Segments[64] leads to and whose header is not in the dump, by the memory map.

    Where a header is in the dump, it is damaged, or the element is. Entries with the number of the element tell.
    """
    heap, pointer = reader.address, reader.view.pointer_bytes
    place = heap + reader.layout["_HEAP"].offset("Segments") + number * pointer
    message = f"segment pointer at {place:#x} of heap {heap:#x} leads to no segment of this heap"
    found = mapped_segment(reader, segment)
    if not is_partly_missing(reader.process, segment, reader.layout["_HEAP_SEGMENT"].size):
        if found is None or not _has_entries(reader, found, number) or any(found.span & one.span for one in known):
            reader.add_damage(
                Finding("segment", "error", heap, place, pointer, message, "a segment", f"{segment:#x}"), message
            )
            return
        signature = segment + reader.layout["_HEAP_SEGMENT"].offset("Signature")
        message = f"the header of segment {segment:#x} of heap {heap:#x} is overwritten"
        there = f"{reader.view.space.try_integer(signature, 4) or 0:#x}"
        reader.add_damage(
            Finding("segment", "error", heap, signature, 4, message, f"{SEGMENT_SIGNATURE:#x}", there), message
        )
        yield replace(found, number=number)
        return
    if found is None or any(found.span & other.span for other in known):
        reader.notes.append(message)
        return
    reader.notes.append(f"the header of segment {segment:#x} of heap {heap:#x} is not in the dump")
    yield replace(found, number=number)


def _has_entries(reader: HeapReader, segment: Segment, number: int) -> bool:
    """True where headers with the number of the segment lead to others that name their size."""
    start, granule = segment.span.start, reader.view.granularity
    words, _ = reader.view.space.mapped.words64(Span(start, min(segment.span.end, start + _READ_BYTES)))
    words = words[granule // 8 - 1 :: granule // 8]
    places = np.flatnonzero((words >> 56 & 0xFF == number) & (words & 0xFFFF != 0))
    behind = places + (words[places] & 0xFFFF)
    size, behind = words[places][behind < len(words)] & 0xFFFF, behind[behind < len(words)]
    return int(((words[behind] >> 16 & 0xFFFF == size) & (words[behind] >> 56 & 0xFF == number)).sum()) >= ENOUGH_PAIRS


def _counted_ranges(
    reader: HeapReader, segment: int, span: Span, node: int, counted_bytes: int
) -> tuple[tuple[Span, ...], bool]:
    """(ranges ascending, corrected by the memory map; True where none can be missing).

    `counted_bytes`: NumberOfUnCommittedPages * 4096 of the segment. Ranges of another sum are an error.
    """
    ranges, has_all = _uncommitted_ranges(reader, span, node)
    mapped = mapped_ranges(reader.process.regions, span, ranges, counted_bytes) if has_all else None
    struct = reader.layout["_HEAP_SEGMENT"]
    head, counter = segment + struct.offset("UnCommittedRanges"), segment + struct.offset("NumberOfUnCommittedPages")
    total, name = sum(one.size for one in ranges), f"list of uncommitted ranges of segment {segment:#x}"
    if mapped is not None:
        report_ranges(reader, name, (head, counter), ranges, mapped)
        return tuple(mapped), True
    if has_all and total != counted_bytes:
        message = f"the {name} of heap {reader.address:#x} holds {total:,} bytes, the segment says {counted_bytes:,}"
        length, texts = reader.view.pointer_bytes, (f"{counted_bytes}", f"{total}")
        reader.add_damage(Finding("ucr", "error", reader.address, head, length, message, *texts), message)
        return ranges, False
    return ranges, has_all


def _uncommitted_ranges(reader: HeapReader, segment: Span, node: int) -> tuple[tuple[Span, ...], bool]:
    """(ranges ascending; True when the list from `node` on ends with 0 and its ranges do not overlap)."""
    found: list[Span] = []
    seen: set[int] = set()
    while node and len(seen) < limits.MAX_LIST_NODES:
        fields = reader.view.struct("_HEAP_UNCOMMMTTED_RANGE", node, reader.layout)
        one = Span(fields["Address"], fields["Address"] + fields["Size"]) if fields else Span(0, 0)
        if fields is None or node in seen or not segment.covers(one) or one.start % PAGE or one.end % PAGE:
            message = f"the list of uncommitted ranges of segment {segment.start:#x} breaks at {node:#x}"
            if not is_partly_missing(reader.process, node, reader.layout["_HEAP_UNCOMMMTTED_RANGE"].size):
                expected, start = "a range inside the segment", f"{one.start:#x}"
                reader.findings.append(Finding("ucr", "error", reader.address, node, 1, message, expected, start))
            reader.notes.append(f"{message}: {len(found)} ranges were read")
            return tuple(merged(found)), False
        seen.add(node)
        found.append(one)
        node = fields["Next"]
    ranges = tuple(merged(found))
    return ranges, not node and sum(one.size for one in ranges) == sum(one.size for one in found)
