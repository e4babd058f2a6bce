"""The segment heap (Windows 10 and later): recognised, named, its own reservation counted."""

from __future__ import annotations

from heapdump.blocks.records import Heap, HeapKind
from heapdump.heaps.base import Claim, Context
from heapdump.heaps.whole import own_reservation
from heapdump.process.model import View
from heapdump.spans import Span

SIGNATURE = 0xDDEEDDEE


class SegmentHeapWalker:
    """Segment heaps; their inside is not walked."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> Claim | None:
        """Needs the signature and one more: named by a heap list, or bounds of its metadata that hold it."""
        if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != SIGNATURE:
            return None
        witnesses = ["signature DDEEDDEE"]
        if is_listed:
            witnesses.append("named by the heap list")
        layout = next((lo for lo in view.layouts if "_SEGMENT_HEAP" in lo and _bounds(view, address, lo.name)), None)
        if layout is not None:
            witnesses.append("metadata bounds that hold it")
        if len(witnesses) < 2:
            return None
        exact = layout is not None and layout.name == view.layout.name and view.is_layout_exact
        doubts = () if layout is not None else ("metadata bounds that hold it",)
        return Claim(address, tuple(witnesses), doubts, layout, exact)

    def describe(self, context: Context, claim: Claim, index: int) -> Heap:
        """The heap's own reservation; its segments and large allocations are counted as <unknown> memory."""
        note = (
            f"heap {claim.address:#x} is a segment heap: only its own reservation is counted as Heap, "
            "its segments and large allocations are not walked"
        )
        known = _bounds(context.view, claim.address, claim.layout.name) if claim.layout else None
        return own_reservation(context, claim, index, HeapKind.SEGMENT, "segment heap", note, known)


def _bounds(view: View, heap: int, layout_name: str) -> Span | None:
    """[heap, ReservedLimit) where the metadata allocator's three pointers are in order behind the heap."""
    layout = next(lo for lo in view.layouts if lo.name == layout_name)
    fields = view.struct("_SEGMENT_HEAP", heap, layout)
    if fields is None or "ReservedLimit" not in fields:
        return None
    base, uncommitted, limit = fields["AllocatedBase"], fields["UncommittedBase"], fields["ReservedLimit"]
    if not heap < base <= uncommitted <= limit or limit - heap > 1 << 30:
        return None
    return Span(heap, limit)


WALKER = SegmentHeapWalker()
