"""Describes NT heaps whose own header is not in the dump, by their later segments and by their entries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap, LargeBlock, Segment, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import (
    HEAP_SIGNATURE,
    PAGE,
    SEGMENT_SIGNATURE,
    DiscoveryContext,
    Evidence,
    HeapClaim,
    Weight,
)
from heapdump.heaps.candidates import has_every_heap_listed
from heapdump.heaps.nt.context import heap_context
from heapdump.heaps.nt.cookie_segments import segments_with_cookie
from heapdump.heaps.nt.discovery import HeapReader, HeapStructures, listed_extents, nt_heap
from heapdump.heaps.nt.entry_format import ENCODE_FLAG_MASK
from heapdump.heaps.nt.entry_key import key_of_entries, key_of_segment
from heapdump.heaps.nt.header_key import HeaderKey
from heapdump.heaps.nt.holes import HeadersBehindHoles
from heapdump.heaps.nt.keyed_segments import segments_with_key
from heapdump.heaps.nt.large_block_list import large_blocks_without_head
from heapdump.heaps.nt.pre_vista_segments import later_segments
from heapdump.heaps.nt.segments import mapped_segment, segments_at, segments_by_headers
from heapdump.heaps.nt.windows import committed_runs, windows
from heapdump.heaps.unknown import UNKNOWN
from heapdump.memory.regions import Kind
from heapdump.process.model import Process, View
from heapdump.spans import Span

NO_HEADER, OVERWRITTEN = ("its header in the dump",), ("its header, which is overwritten",)
"""The doubts of a claim on a heap whose header is not in the dump, and on one of whose header no signature is left."""

_CHAIN = 8
"""Number of headers in a row that prove a heap."""

_RANGES_BEHIND_HEADER = 8
"""Before Vista: descriptors of uncommitted ranges between the heap's header and its lock (recorded heaps of XP)."""

_MOST_BYTES = 1 << 21
_MOST_SEARCHED_BYTES = 512 << 20
"""The most bytes of reservations that are searched for heaps which no list names."""

_ALIGNMENT = 0x10000


def claim_without_header(view: View, address: int) -> HeapClaim:
    """A weak claim on an address of the heap list whose header proves no heap.

    `describe_without_header` decides whether there is a heap.
    """
    listed = Evidence("an address of the heap list", Weight.PLAUSIBLE)
    is_missing = view.struct("_HEAP", address, view.layout) is None
    return HeapClaim(address, (listed,), NO_HEADER if is_missing else OVERWRITTEN, view.layout)


def candidates_without_header(process: Process, view: View) -> Iterator[int]:
    """Starts of reservations whose entries prove a heap though the dump lacks its signature; ascending.

    None where every heap is listed. Reservations without memory in the dump are not searched.
    """
    if has_every_heap_listed(process, view) or not process.regions.is_complete_map:
        return
    context, regions, mapped, read = DiscoveryContext(process, view), process.regions, view.space.mapped, 0
    for first, _ in regions.allocation_rows():
        start = int(regions.start[first])
        if start % _ALIGNMENT or regions.type[first] != Kind.MEM_PRIVATE or read >= _MOST_SEARCHED_BYTES:
            continue
        i = int(np.searchsorted(mapped.ends, np.uint64(start), side="right"))
        is_there = i < len(mapped.starts) and int(mapped.starts[i]) < start + _MOST_BYTES
        if not is_there or view.space.try_integer(start + 2 * view.pointer_bytes, 4) is not None:
            continue
        read += _MOST_BYTES
        claim = claim_without_header(view, start)
        if claim.doubts == NO_HEADER and describe_without_header(context, claim, 0).kind is HeapKind.NT:
            yield start


def describe_without_header(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of the heap where its entries, or large blocks that link to it, prove one; else of an unknown heap."""
    reader = HeapReader.of(context, claim)
    is_pre_vista = "Segments" in reader.layout["_HEAP"]
    segments = tuple(_pre_vista_segments(reader) if is_pre_vista else _segments(reader))
    if not is_pre_vista:
        segments += segments_at(reader, _links(reader, segments), segments)
    else:
        segments += tuple(segments_with_cookie(reader, segments))
    key = None if is_pre_vista else next(_keys(reader, segments), None)
    header_key = None if key is None else HeaderKey(key, ENCODE_FLAG_MASK)
    if header_key is not None:
        segments += tuple(segments_with_key(reader, header_key, segments))
    heap = _heap(reader, claim, index, segments, ())
    if segments and (_has_entries(reader.view, heap) if is_pre_vista else key is not None):
        heap = _heap(reader, claim, index, segments, large_blocks_without_head(reader, header_key))
    elif claim.doubts == NO_HEADER and (large := large_blocks_without_head(reader, None)):
        heap = _heap(reader, claim, index, (), large)
    else:
        unknown = UNKNOWN.claim(context.view, claim.address, is_listed=True)
        return UNKNOWN.describe(context, unknown, index)
    return replace(heap, entry_key=key)


def _heap(
    reader: HeapReader, claim: HeapClaim, index: int, segments: tuple[Segment, ...], large: tuple[LargeBlock, ...]
) -> Heap:
    what = "overwritten" if claim.doubts == OVERWRITTEN else "not in the dump"
    known = f"its blocks are told by their own headers, in {len(segments)} of its segments; large blocks and further"
    known += " segments"
    if not segments:
        known = "some large blocks are told by their links to it; its other blocks, whose key is not known,"
    reader.notes[:] = [f"heap {claim.address:#x}: its header is {what}: {known} may be missing"]
    reader.findings[:] = _overwritten(reader) if claim.doubts == OVERWRITTEN else ()
    extents = tuple(listed_extents(reader.process, segments, large))
    found = HeapStructures(segments, False, large or None, False, extents, WindowsCounters(), None)
    return replace(nt_heap(reader, claim, index, found), front_end=None)


def _overwritten(reader: HeapReader) -> Iterator[Finding]:
    """The finding about a header in the dump without its signature."""
    struct = reader.layout["_HEAP"]
    name, signature = "Signature", HEAP_SIGNATURE
    if "SegmentSignature" in struct:
        name, signature = "SegmentSignature", SEGMENT_SIGNATURE
    place = reader.address + struct.offset(name)
    found = reader.view.space.try_integer(place, 4) or 0
    message = f"the header of heap {reader.address:#x} is overwritten"
    yield Finding("segment", "error", reader.address, place, 4, message, f"{signature:#x}", f"{found:#x}")


def _has_entries(view: View, heap: Heap) -> bool:
    """True where headers in the first window of a segment form a chain; before Vista nothing else proves a heap."""
    context = heap_context(view, heap)
    for segment in heap.segments:
        for window in islice(windows(view.space, context.entry_format, list(committed_runs(segment))), 1):
            part = window.run_parts[0]
            if HeadersBehindHoles(context, window, part, may_begin=True).has_chain(_CHAIN):
                return True
    return False


def _segments(reader: HeapReader) -> Iterator[Segment]:
    """The heap's own segment by the memory map, and the segments whose headers name the heap; Vista and later."""
    own = mapped_segment(reader, reader.address)
    if own is not None:
        yield own
    yield from segments_by_headers(reader)


def _pre_vista_segments(reader: HeapReader) -> Iterator[Segment]:
    """The same as `_segments`, before Vista."""
    own = mapped_segment(reader, reader.address)
    if own is not None:
        yield replace(own, address=_pre_vista_first_segment(reader), number=0)
    yield from later_segments(reader)


def _pre_vista_first_segment(reader: HeapReader) -> int:
    """The address of the entry with the header of the heap's own segment, behind the heap's lock where it has one.

    A heap has no lock where that header, or the head of its entry, is there.
    """
    space, granule, layout = reader.view.space, reader.view.granularity, reader.layout
    behind_ranges = reader.address + layout["_HEAP"].size
    behind_ranges += _RANGES_BEHIND_HEADER * layout["_HEAP_UNCOMMMTTED_RANGE"].size
    lock = layout["_RTL_CRITICAL_SECTION"].size + layout["_RTL_CRITICAL_SECTION_DEBUG"].size
    without, behind_lock = (-(-at // granule) * granule for at in (behind_ranges, behind_ranges + lock))
    size = -(-layout["_HEAP_SEGMENT"].size // granule)
    is_header = space.try_integer(without + granule, 4) == SEGMENT_SIGNATURE  # behind the entry
    return without if is_header or space.try_integer(without + granule - 8, 2) == size else behind_lock


def _links(reader: HeapReader, segments: tuple[Segment, ...]) -> Iterator[int]:
    """The nodes of the segment list that the links of these segments lead to."""
    offset, space = reader.layout["_HEAP_SEGMENT"].offset("SegmentListEntry"), reader.view.space
    for segment in segments:
        for place in (0, space.pointer_bytes):
            node = space.try_pointer(segment.address + offset + place)
            if node:
                yield node


def _keys(reader: HeapReader, segments: tuple[Segment, ...]) -> Iterator[int]:
    """Possible keys, solved from headers; the most certain first."""
    view = reader.view
    for segment in segments:
        if segment.address != reader.address:
            found = key_of_segment(view, segment.address, reader.layout)
            if found is not None:
                yield found
    own = next((segment.span for segment in segments if segment.address == reader.address), None)
    if own is not None:
        words, missing = view.space.mapped.words64(Span(own.start, min(own.end, own.start + _MOST_BYTES)))
        stride, last = view.granularity // 8, max(np.flatnonzero(words), default=0) * 8
        has_holes = any(own.start + PAGE < hole.end < own.start + last for hole in missing)
        found = key_of_entries(np.ascontiguousarray(words[stride - 1 :: stride]), has_holes=has_holes)
        if found is not None:
            yield found
