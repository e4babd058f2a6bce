"""NT heaps whose own header is not in the dump: found by their later segments and by their entries (Vista and later)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from heapdump.blocks.heap import Heap, Segment, WindowsCounters
from heapdump.heaps.allocator import DiscoveryContext, Evidence, HeapClaim, Weight
from heapdump.heaps.nt.discovery import HeapReader, HeapStructures, listed_extents, nt_heap
from heapdump.heaps.nt.entry_key import key_of_entries, key_of_segment
from heapdump.heaps.nt.segments import mapped_segment, segments_at, segments_by_headers
from heapdump.heaps.unknown import UNKNOWN
from heapdump.process.model import View
from heapdump.spans import Span

NO_HEADER = ("its header in the dump",)
"""The doubts of such a claim."""

_MOST_BYTES = 1 << 21


def claim_without_header(view: View, address: int) -> HeapClaim | None:
    """The weakest claim, on an address of the heap list whose header the dump lacks; `describe_without_header` decides."""
    layout = view.layout
    if "SegmentSignature" not in layout["_HEAP"] or view.struct("_HEAP", address, layout) is not None:
        return None
    listed = Evidence("an address of the heap list", Weight.PLAUSIBLE)
    return HeapClaim(address, (listed,), NO_HEADER, layout)


def describe_without_header(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The heap, where its entries tell their key; else an unknown heap."""
    reader = HeapReader.of(context, claim)
    segments = tuple(_segments(reader))
    segments += segments_at(reader, _links(reader, segments), segments)
    key = next(_keys(reader, segments), None)
    if key is None or not segments:
        unknown = UNKNOWN.claim(context.view, claim.address, is_listed=True)
        return UNKNOWN.describe(context, unknown, index)
    reader.notes[:] = [
        f"heap {claim.address:#x}: its header is not in the dump: its blocks are told by their own headers, in "
        f"{len(segments)} of its segments; large blocks and further segments may be missing"
    ]
    extents = tuple(listed_extents(reader.process, segments, None))
    found = HeapStructures(segments, False, None, False, extents, WindowsCounters(), None)
    return replace(nt_heap(reader, claim, index, found), entry_key=key)


def _segments(reader: HeapReader) -> Iterator[Segment]:
    """The heap's own by the memory map, and those whose headers name it."""
    own = mapped_segment(reader, reader.address)
    if own is not None:
        yield own
    yield from segments_by_headers(reader)


def _links(reader: HeapReader, segments: tuple[Segment, ...]) -> Iterator[int]:
    """The nodes of the segment list that these segments name."""
    offset, space = reader.layout["_HEAP_SEGMENT"].offset("SegmentListEntry"), reader.view.space
    for segment in segments:
        for place in (0, space.pointer_bytes):
            node = space.try_pointer(segment.address + offset + place)
            if node:
                yield node


def _keys(reader: HeapReader, segments: tuple[Segment, ...]) -> Iterator[int]:
    """The keys that headers tell, the surest first."""
    view = reader.view
    for segment in segments:
        if segment.address != reader.address:
            found = key_of_segment(view, segment.address, reader.layout)
            if found is not None:
                yield found
    own = next((segment.span for segment in segments if segment.address == reader.address), None)
    if own is not None:
        words, _ = view.space.mapped.words64(Span(own.start, min(own.end, own.start + _MOST_BYTES)))
        stride = view.granularity // 8
        found = key_of_entries(np.ascontiguousarray(words[stride - 1 :: stride]))
        if found is not None:
            yield found
