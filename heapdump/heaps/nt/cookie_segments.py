"""Finds segments of XP (from SP2 on) and Server 2003 that nothing names any more, by the cookie of their heap.

Their header is not in the dump, and neither is that of the heap, which has the pointer to them. Entries have no key
there, but each busy one repeats the heap's cookie: SmallTagIndex = (entry / 8 ^ cookie) & 0xFF
(docs/reference/heap-structures.md §2.3). Entries that lead to each other and agree with the heap's cookie, and with no
other heap's that lacks its header, are a segment of it. Only x86: which bits of the address x64 takes was never
recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.nt.discovery import HeapReader
from heapdump.heaps.nt.entry_key import ENOUGH_PAIRS
from heapdump.heaps.nt.header_word import BUSY_FLAG
from heapdump.heaps.nt.keyed_segments import MOST_BYTES, private_reservations
from heapdump.heaps.nt.pre_vista_segments import segment_pointers
from heapdump.heaps.nt.segments import mapped_segment
from heapdump.spans import Span

_GRANULE = 8
_LAST_FLAG = 0x10
_READ_BYTES = 1 << 22
"""Bytes at the beginning of a segment that are searched for entries: blocks may be large, and every one counts."""


@dataclass(frozen=True, slots=True)
class _Agreed:
    """What the busy entries of a segment agree on: the cookie of the heap, and SegmentIndex."""

    cookie: int
    number: int


def segments_with_cookie(reader: HeapReader, known: Sequence[Segment]) -> Iterator[Segment]:
    """Segments that are not `known`, ascending, by the memory map: their entries have the cookie of the heap.

    None where another heap without its header has the same cookie, and none that another heap points to.
    """
    own = next((chain for one in known if (chain := _chain(reader, one.span)) is not None), None)
    if own is None or own.cookie in _other_cookies(reader):
        return
    named, numbers, read = _named(reader), {segment.number for segment in known}, 0
    for start in private_reservations(reader, known):
        found = mapped_segment(reader, start)
        if found is None or start in named or read >= MOST_BYTES:
            continue
        read += min(found.span.size, _READ_BYTES)
        chain = _chain(reader, found.span)
        if chain is not None and chain.cookie == own.cookie and chain.number not in numbers:
            numbers.add(chain.number)
            yield replace(found, number=chain.number)


def _named(reader: HeapReader) -> set[int]:
    """The segments that the headers of heaps in the dump point to."""
    view = reader.view
    return {segment for heap in view.heap_addresses for _, segment in segment_pointers(view, reader.layout, heap)}


def _other_cookies(reader: HeapReader) -> set[int]:
    """The cookies of the other heaps whose header the dump lacks."""
    out, space = set[int](), reader.view.space
    for heap in reader.view.heap_addresses:
        own = mapped_segment(reader, heap) if heap != reader.address and space.try_pointer(heap) is None else None
        chain = None if own is None else _chain(reader, own.span)
        if chain is not None:
            out.add(chain.cookie)
    return out


def _chain(reader: HeapReader, span: Span) -> _Agreed | None:
    """What the entries at the beginning of a segment agree on; None unless three quarters of enough linked ones agree.

    A busy entry is linked where its size leads to one that names this size, and both have one SegmentIndex. Left-over
    ones in free memory may differ.
    """
    if reader.view.granularity != _GRANULE:
        return None
    words, _ = reader.view.space.mapped.words64(Span(span.start, min(span.end, span.start + _READ_BYTES)))
    size = words & 0xFFFF
    places = np.flatnonzero((size > 0) & (words >> 40 & BUSY_FLAG != 0) & (words >> 40 & _LAST_FLAG == 0))
    places = places[places + size[places] < len(words)]
    behind = words[places + size[places]]
    is_linked = (behind >> 16 & 0xFFFF == size[places]) & (behind >> 56 & 0xFF == words[places] >> 56 & 0xFF)
    places = places[is_linked & (places * _GRANULE >= PAGE)]
    if len(places) < ENOUGH_PAIRS:
        return None
    cookies = (words[places] >> 32 ^ places + span.start // _GRANULE) & 0xFF
    both, counts = np.unique(cookies << 8 | words[places] >> 56 & 0xFF, return_counts=True)
    best = int(counts.argmax())
    is_agreed = counts[best] >= ENOUGH_PAIRS and 4 * counts[best] >= 3 * len(places)
    return _Agreed(*divmod(int(both[best]), 256)) if is_agreed else None
