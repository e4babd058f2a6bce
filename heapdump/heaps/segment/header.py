"""Reads the header of a segment heap under one layout: its own reservation and its lists of page segments.

Structures: docs/reference/heap-structures.md §6.1 and §6.2; offsets: `layouts/`. Up to Windows 10 1703 (15063) the heap
has one list of segments. Later it has two contexts with a list each, one for each unit size.
"""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.signature import decoded_signatures
from heapdump.layouts import Layout
from heapdump.process.model import View
from heapdump.spans import Span

SIGNATURE = 0xDDEEDDEE
"""_SEGMENT_HEAP.Signature."""

DESCRIPTORS = 256
"""Number of range descriptors, and of units, of a page segment."""

_UNIT_SHIFTS = range(12, 21)
_MOST_PAGES_SHIFT = 8
"""The greatest PagesPerUnitShift: units of 1 MiB, as the greatest UnitShift."""

_LARGE_UNIT = 0x10000
_MOST_OWN_BYTES = 1 << 30
_COMPARED_SEGMENTS = 2
"""The most segments of each list whose signatures are compared."""


@dataclass(frozen=True, slots=True)
class SegContext:
    """One list of page segments.

    Attributes:
        anchor: address that the signatures of its segments are encoded with: of the context; up to 15063 of the heap.
        list_head: address of the head of the list.
        unit_bytes: bytes of a unit of its segments.
        segment_count: number of segments by the heap's counter.
        is_consistent: False where one member contradicts two others.
    """

    anchor: int
    list_head: int
    unit_bytes: int
    segment_count: int
    is_consistent: bool = True

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment: 256 units. The address of a segment is a multiple of these bytes."""
        return DESCRIPTORS * self.unit_bytes


def own_span(view: View, layout: Layout, heap: int) -> Span | None:
    """The reservation of the heap's own structures; None where the pointers to its parts are not ascending.

    On 26100 the heap is a part of a larger reservation; it ends at ReservedRegionEnd.
    """
    fields = view.struct("_SEGMENT_HEAP", heap, layout)
    if fields is None or "ReservedLimit" not in fields:
        return None
    base, uncommitted, limit = fields["AllocatedBase"], fields["UncommittedBase"], fields["ReservedLimit"]
    if not heap < base <= uncommitted <= limit or limit - heap > _MOST_OWN_BYTES:
        return None
    end = fields.get("ReservedRegionEnd", 0)
    return Span(heap, end if limit <= end <= heap + _MOST_OWN_BYTES and end % PAGE == 0 else limit)


def contexts(view: View, layout: Layout, heap: int) -> tuple[SegContext, ...] | None:
    """The lists of segments that the heap uses; None where no context holds under the layout.

    Where only one of two contexts holds, the other is replaced by the one that `assumed_contexts` gives.
    """
    struct = layout["_SEGMENT_HEAP"]
    if "SegContexts" not in struct:
        fields = view.struct("_SEGMENT_HEAP", heap, layout)
        head = heap + struct.offset("SegmentListHead")
        return None if fields is None else (SegContext(heap, head, PAGE, fields["SegmentCount"]),)
    places = _context_places(layout, heap)
    found = [_context(view, layout, heap, place) for place in places]
    if not any(found):
        return None
    both = [one or assumed for one, assumed in zip(found, assumed_contexts(layout, heap), strict=True)]
    # the second context of 19041 x86 has right values but a list head of zeros: the heap does not use it
    return tuple(one for one in both if one.segment_count or view.space.try_pointer(one.list_head))


def counted_segments(view: View, layout: Layout, heap: int) -> int | None:
    """The number of segments by the counters of all contexts; None where the dump lacks one of them."""
    lists = contexts(view, layout, heap)
    if lists is None:
        return None
    if "SegContexts" in layout["_SEGMENT_HEAP"]:
        places = _context_places(layout, heap)
        if any(view.struct("_HEAP_SEG_CONTEXT", place, layout) is None for place in places):
            return None
    return sum(context.segment_count for context in lists)


def assumed_contexts(layout: Layout, heap: int) -> tuple[SegContext, ...]:
    """The lists of segments of a heap at this address by the layout alone. The header is not read.

    `segment_count` is 0. In every recorded heap the units of the first context are pages, those of the second 64 KiB.
    """
    if "SegContexts" not in layout["_SEGMENT_HEAP"]:
        head = heap + layout["_SEGMENT_HEAP"].offset("SegmentListHead")
        return (SegContext(heap, head, PAGE, 0, is_consistent=False),)
    head = layout["_HEAP_SEG_CONTEXT"].offset("SegmentListHead")
    pairs = zip(_context_places(layout, heap), (PAGE, _LARGE_UNIT), strict=False)
    return tuple(SegContext(place, place + head, unit, 0, is_consistent=False) for place, unit in pairs)


def _context_places(layout: Layout, heap: int) -> list[int]:
    """The addresses of the contexts of a heap."""
    struct, size = layout["_SEGMENT_HEAP"], layout["_HEAP_SEG_CONTEXT"].size
    return [heap + struct.offset("SegContexts") + i * size for i in range(struct.fields["SegContexts"].count)]


def _context(view: View, layout: Layout, heap: int, address: int) -> SegContext | None:
    """The context at an address; None unless two of Heap, SegmentMask and UnitShift hold.

    Heap must be the heap; the other two must give the unit that is used. Where they give different units,
    PagesPerUnitShift decides; where it gives neither, the mask does.
    """
    fields = view.struct("_HEAP_SEG_CONTEXT", address, layout)
    if fields is None:
        return None
    units = {(1 << 8 * view.pointer_bytes) - (DESCRIPTORS << shift): 1 << shift for shift in _UNIT_SHIFTS}
    by_mask = units.get(fields["SegmentMask"])
    by_shift = 1 << fields["UnitShift"] if fields["UnitShift"] in _UNIT_SHIFTS else None
    by_pages = PAGE << fields["PagesPerUnitShift"] if fields["PagesPerUnitShift"] <= _MOST_PAGES_SHIFT else None
    unit = by_shift if by_shift is not None and by_shift == by_pages else by_mask or by_shift
    names_heap = fields["Heap"] == heap
    if unit is None or (by_mask == unit) + (by_shift == unit) + names_heap < 2:
        return None
    is_consistent = by_mask == by_shift == by_pages and names_heap and 0 < fields["FirstDescriptorIndex"] < DESCRIPTORS
    head = address + layout["_HEAP_SEG_CONTEXT"].offset("SegmentListHead")
    return SegContext(address, head, unit, fields["SegmentCount"], is_consistent)


def header_facts(view: View, layout: Layout, heap: int) -> dict[str, bool]:
    """Name of a fact about segment heaps of this layout → whether it holds at the address."""
    lists = contexts(view, layout, heap)
    tree = heap + layout["_SEGMENT_HEAP"].offset("LargeAllocMetadata")
    root, least = view.space.try_pointer(tree), view.space.try_pointer(tree + view.pointer_bytes)
    return {
        "metadata bounds that hold it": own_span(view, layout, heap) is not None,
        "segment contexts that name it": lists is not None and all(one.is_consistent for one in lists),
        "segment lists that link back": lists is not None and all(all(_links_back(view, one)) for one in lists),
        "segments whose signatures agree": lists is not None and _signatures_agree(view, layout, lists),
        "a tree of large blocks": root is not None and (not root or least != 0),
    }


def is_usable(view: View, layout: Layout, heap: int) -> bool:
    """True where segments can be read under this layout: a context holds, or one end of the only list links back.

    Where the dump lacks both ends of that list, the bounds of the heap must hold it.
    """
    lists = contexts(view, layout, heap)
    if lists is None or "SegContexts" in layout["_SEGMENT_HEAP"]:
        return lists is not None
    return all(any(_links_back(view, one)) or _lacks_ends(view, layout, one) for one in lists)


def _lacks_ends(view: View, layout: Layout, context: SegContext) -> bool:
    """True where both ends of the list of a heap without contexts are possible segments that the dump lacks."""
    if own_span(view, layout, context.anchor) is None:
        return False
    for place in (context.list_head, context.list_head + view.pointer_bytes):
        end = view.space.try_pointer(place)
        if not end or end % context.segment_bytes or view.space.try_pointer(end) is not None:
            return False
    return True


def _links_back(view: View, context: SegContext) -> tuple[bool, bool]:
    """(True where the first segment of a list links to its head, True where the last one does)."""
    head, pointer = context.list_head, view.pointer_bytes
    first, last = view.space.try_pointer(head), view.space.try_pointer(head + pointer)
    return (
        first is not None and view.space.try_pointer(first + pointer) == head,
        last is not None and view.space.try_pointer(last) == head,
    )


def _signatures_agree(view: View, layout: Layout, lists: tuple[SegContext, ...]) -> bool:
    """True when the signatures of the first segments of all lists give one HeapKey under the same encoding."""
    rows = []
    for context in lists:
        segment = view.space.try_pointer(context.list_head) or 0
        for _ in range(_COMPARED_SEGMENTS):
            if segment == context.list_head:
                break
            if not segment or segment % context.segment_bytes:
                return False
            rows.append(decoded_signatures(view, layout, context.anchor, segment))
            segment = view.space.try_pointer(segment) or 0
    return all(rows) and (len(rows) < 2 or any(len(set(column)) == 1 for column in zip(*rows, strict=True)))
