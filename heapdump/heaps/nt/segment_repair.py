"""Finds the span of a segment whose header is damaged, by the members that hold and by the memory map.

A segment begins its reservation and names its heap and its own base. Two members say where it ends: NumberOfPages and
LastValidEntry. Its first entry begins in its first page (all recorded heaps, XP to 11).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import HEAP_SIGNATURE, PAGE, SEGMENT_SIGNATURE
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.layouts import Layout
from heapdump.process.model import View
from heapdump.spans import Span

_ENOUGH = 3
"""Number of members that must hold, of six."""


class _SegmentMember(NamedTuple):
    """A member of a segment's header.

    Attributes:
        name: of the member.
        holds: True where its value is right or possible.
        expected: its right value; None where there is no single one.
        found: its value.
    """

    name: str
    holds: bool
    expected: int | None
    found: int


def damaged_segment(reader: HeapReader, address: int) -> Span | None:
    """[base, end) of the segment whose damaged header lies at an address; None where too few members hold.

    For a heap's own segment, the base is that of its reservation.
    """
    fields = reader.view.struct("_HEAP_SEGMENT", address, reader.layout)
    regions = reader.process.regions
    reserved = regions.allocation(address) if regions.is_complete_map else None
    if fields is None or reserved is None or not reserved.start <= address < reserved.start + PAGE:
        return None
    if fields["Heap"] != reader.address and _is_heap(reader, fields["Heap"]):
        return None
    base = reserved.start
    ends = [end for end in (base + fields["NumberOfPages"] * PAGE, fields["LastValidEntry"]) if _ends(reserved, end)]
    span = Span(base, ends[0] if ends else reserved.end)
    members = list(_members(reader, address, span, fields))
    return span if sum(member.holds for member in members) >= _ENOUGH else None


def report_segment(reader: HeapReader, address: int, span: Span) -> None:
    """Adds an error for each member of the segment's header that does not hold.

    Members that `heap_header` checks are left out.
    """
    fields = reader.view.struct("_HEAP_SEGMENT", address, reader.layout)
    if fields is None:
        return
    struct, heap = reader.layout["_HEAP_SEGMENT"], reader.address
    for member in _members(reader, address, span, fields):
        if member.holds or (address == heap and member.name in (_signature(reader), "Heap")):
            continue
        place, length = address + struct.offset(member.name), 4
        if member.name not in (_signature(reader), "NumberOfPages"):
            length = reader.view.pointer_bytes
        message = f"{member.name} of segment {address:#x} of heap {heap:#x} is damaged"
        expected = "a place in its first page" if member.expected is None else f"{member.expected:#x}"
        finding = Finding("segment", "error", heap, place, length, message, expected, f"{member.found:#x}")
        reader.findings.append(finding)


def _is_heap(reader: HeapReader, address: int) -> bool:
    """True where another heap has its header at the address, by its signature."""
    place = address + reader.layout["_HEAP"].offset("Signature")
    return reader.view.space.try_integer(place, 4) == HEAP_SIGNATURE


def _ends(reserved: Span, end: int) -> bool:
    """True for a possible end of a segment: that of the reservation, or one page before (guard page, 8.1 and later)."""
    return end % PAGE == 0 and reserved.start < end <= reserved.end <= end + PAGE


def header_bytes(view: View, layout: Layout) -> int:
    """Bytes from the header of a segment to its first entry, except in a heap's own segment from Vista on [REC]."""
    return -(-layout["_HEAP_SEGMENT"].size // view.granularity) * view.granularity


def _signature(reader: HeapReader) -> str:
    return "SegmentSignature" if "SegmentSignature" in reader.layout["_HEAP_SEGMENT"] else "Signature"


def _members(reader: HeapReader, address: int, span: Span, fields: dict[str, int]) -> Iterator[_SegmentMember]:
    """The six members that prove a segment and its span."""
    exact = {
        _signature(reader): SEGMENT_SIGNATURE,
        "Heap": reader.address,
        "BaseAddress": span.start,
        "NumberOfPages": span.size // PAGE,
        "LastValidEntry": span.end,
    }
    for name, expected in exact.items():
        yield _SegmentMember(name, fields[name] == expected, expected, fields[name])
    first, behind = fields["FirstEntry"], address + header_bytes(reader.view, reader.layout)
    if address == reader.address:  # the header of the heap, whose size is not known, lies behind that of the segment
        yield _SegmentMember("FirstEntry", address < first <= address + PAGE, None, first)
    else:
        yield _SegmentMember("FirstEntry", first == behind, behind, first)
