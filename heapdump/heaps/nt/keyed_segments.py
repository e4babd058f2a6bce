"""Finds segments that nothing names any more, by the key of their heap (Vista and later).

The header of such a segment is damaged or not in the dump, and so are the structures that lead to it. Its entries are
encoded with the key of its heap, and SegmentOffset of each leads to the beginning of its reservation
(docs/reference/heap-structures.md §2.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import SEGMENT_SIGNATURE
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.heaps.nt.entry_key import ENOUGH_PAIRS, linked_headers
from heapdump.heaps.nt.header_key import HeaderKey
from heapdump.heaps.nt.segments import mapped_segment
from heapdump.memory.regions import Kind
from heapdump.spans import Span

_ALIGNMENT = 0x10000
READ_BYTES = 0x40000
"""Bytes at the beginning of a reservation that are searched for entries."""

MOST_BYTES = 256 << 20
"""The most bytes that are searched for one heap."""


def segments_with_key(reader: HeapReader, key: HeaderKey, known: Sequence[Segment]) -> Iterator[Segment]:
    """Segments that are not `known`, ascending, by the memory map: their entries hold under the key of the heap.

    None where headers are not encoded. Reservations that begin with the header of a heap or of a segment are left out.
    """
    granule, read = reader.view.granularity, 0
    for start in private_reservations(reader, known) if key.mask else ():
        found = mapped_segment(reader, start)
        if found is None or read >= MOST_BYTES:
            continue
        span = Span(start, min(found.span.end, start + READ_BYTES))
        read += span.size
        words, _ = reader.view.space.mapped.words64(span)
        words = words[granule // 8 - 1 :: granule // 8]
        offset = np.arange(len(words)) * granule >> 16
        is_of_segment = words >> 48 & 0xFF == offset + 1 & 0xFF
        if linked_headers(words, key.key, is_of_segment) >= ENOUGH_PAIRS:
            yield found


def private_reservations(reader: HeapReader, known: Sequence[Segment]) -> Iterator[int]:
    """Starts of private reservations that may be later segments without a header."""
    regions, view = reader.process.regions, reader.view
    spans, heaps = [segment.span for segment in known], set(view.heap_addresses)
    struct = reader.layout["_HEAP_SEGMENT"]
    signature = struct.offset("SegmentSignature" if "SegmentSignature" in struct else "Signature")
    for first, _ in regions.allocation_rows() if regions.is_complete_map else ():
        start = int(regions.start[first])
        if start % _ALIGNMENT or start in heaps or regions.type[first] != Kind.MEM_PRIVATE:
            continue
        if any(start in span for span in spans):
            continue
        if view.space.try_integer(start + signature, 4) != SEGMENT_SIGNATURE:
            yield start
