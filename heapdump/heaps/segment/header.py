"""The header of a segment heap under one layout: the reservation of its own structures, its lists of page segments.

In: an address and a layout. Out: contexts, and which facts hold. Structures: docs/reference/heap-structures.md §6.1 and
§6.2, offsets from `layouts/`. Up to Windows 10 1703 (15063) the heap itself holds the one list of segments; later it has
two contexts, one for each size of units.
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
"""Range descriptors of a page segment, which are also its units."""

_UNIT_SHIFTS = range(12, 21)
_LARGE_UNIT = 0x10000
_MOST_OWN_BYTES = 1 << 30
_COMPARED_SEGMENTS = 2
"""Segments of each list whose signatures are compared."""


@dataclass(frozen=True, slots=True)
class SegContext:
    """One list of page segments.

    `anchor`: address that the signatures of its segments are encoded with: the context's, up to 15063 the heap's.
    `list_head`: address of the head of the list. `unit_bytes`: bytes of a unit of its segments. `segment_count`: segments
    by the heap's own count. `is_consistent`: False where one member contradicts two others.
    """

    anchor: int
    list_head: int
    unit_bytes: int
    segment_count: int
    is_consistent: bool = True

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment; its address is a multiple of them."""
        return DESCRIPTORS * self.unit_bytes


def own_span(view: View, layout: Layout, heap: int) -> Span | None:
    """The reservation of the heap's own structures; None where the pointers to its parts are not in ascending order.

    26100 takes the heap out of a larger reservation: there the heap's own part ends at ReservedRegionEnd.
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
    """The lists of segments that the heap uses; None where the layout holds for none of its contexts.

    A context for which it does not hold, beside one for which it does, is as the layout says.
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
    # the second context of 19041 x86 holds true values but an empty list head: the heap does not use it
    return tuple(one for one in both if one.segment_count or view.space.try_pointer(one.list_head))


def assumed_contexts(layout: Layout, heap: int) -> tuple[SegContext, ...]:
    """The lists of segments that a heap at this address has under the layout, whatever its header says; none counts segments.

    In every recorded heap the first context has units of a page, the second one of 64 KiB.
    """
    if "SegContexts" not in layout["_SEGMENT_HEAP"]:
        head = heap + layout["_SEGMENT_HEAP"].offset("SegmentListHead")
        return (SegContext(heap, head, PAGE, 0, is_consistent=False),)
    head = layout["_HEAP_SEG_CONTEXT"].offset("SegmentListHead")
    pairs = zip(_context_places(layout, heap), (PAGE, _LARGE_UNIT), strict=False)
    return tuple(SegContext(place, place + head, unit, 0, is_consistent=False) for place, unit in pairs)


def _context_places(layout: Layout, heap: int) -> list[int]:
    """Addresses of the contexts of a heap."""
    struct, size = layout["_SEGMENT_HEAP"], layout["_HEAP_SEG_CONTEXT"].size
    return [heap + struct.offset("SegContexts") + i * size for i in range(struct.fields["SegContexts"].count)]


def _context(view: View, layout: Layout, heap: int, address: int) -> SegContext | None:
    """The context at an address: of its heap, mask and shift, two must hold."""
    fields = view.struct("_HEAP_SEG_CONTEXT", address, layout)
    if fields is None:
        return None
    units = {(1 << 8 * view.pointer_bytes) - (DESCRIPTORS << shift): 1 << shift for shift in _UNIT_SHIFTS}
    by_mask = units.get(fields["SegmentMask"])
    by_shift = 1 << fields["UnitShift"] if fields["UnitShift"] in _UNIT_SHIFTS else None
    unit, names_heap = by_mask or by_shift, fields["Heap"] == heap
    if unit is None or (by_mask is not None) + (by_shift == unit) + names_heap < 2:
        return None
    is_consistent = by_mask == by_shift and names_heap and 0 < fields["FirstDescriptorIndex"] < DESCRIPTORS
    head = address + layout["_HEAP_SEG_CONTEXT"].offset("SegmentListHead")
    return SegContext(address, head, unit, fields["SegmentCount"], is_consistent)


def header_facts(view: View, layout: Layout, heap: int) -> dict[str, bool]:
    """Facts that hold for a segment heap of this layout → whether they hold at the address."""
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
    """True where the segments can be read under this layout: its contexts hold, or one end of the heap's one list."""
    lists = contexts(view, layout, heap)
    if lists is None or "SegContexts" in layout["_SEGMENT_HEAP"]:
        return lists is not None
    return all(any(_links_back(view, one)) for one in lists)


def _links_back(view: View, context: SegContext) -> tuple[bool, bool]:
    """Whether the first and the last segment of a list link to the list's head."""
    head, pointer = context.list_head, view.pointer_bytes
    first, last = view.space.try_pointer(head), view.space.try_pointer(head + pointer)
    return (
        first is not None and view.space.try_pointer(first + pointer) == head,
        last is not None and view.space.try_pointer(last) == head,
    )


def _signatures_agree(view: View, layout: Layout, lists: tuple[SegContext, ...]) -> bool:
    """True when the first segments of all lists lead to one key, under one of the encodings that builds have."""
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
