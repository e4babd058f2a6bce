"""Finds page segments whose first page the dump lacks, by the links of the subsegments in them.

Subsegments stand on lists of their heap. So each links to others of the same list, or to the head in the heap's own
structures (docs/reference/heap-structures.md §6.4, §6.5). The links of VS subsegments are encoded from 16299 on, with
the address of the subsegment.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.header import DESCRIPTORS, SegContext, own_span
from heapdump.heaps.segment.segment_search import ListedSegment
from heapdump.heaps.segment.vs_subsegments import vs_ends
from heapdump.memory.mapped import MappedMemory
from heapdump.spans import Span

_MiB = 1 << 20
_MOST_PLACES = 1 << 12


@dataclass(frozen=True, slots=True)
class _CutSegment:
    """A place whose first page is missing.

    Attributes:
        context: the list that fits its size.
        span: the segment that may be there.
        links: (n,) uint64 addresses that its subsegments link to.
    """

    context: SegContext
    span: Span
    links: NDArray[np.uint64]


def segments_by_subsegments(
    discovery: SegmentDiscovery, lists: Sequence[SegContext], known: Sequence[ListedSegment]
) -> list[ListedSegment]:
    """The segments of the heap whose first page is missing and whose subsegments link to the heap, ascending.

    They link to its own structures, or to one of its segments, `known` or found.
    """
    own, found = _own(discovery), list[ListedSegment]()
    new = [own, *(Span(node, node + context.segment_bytes) for context, node in known)]
    candidates = list(_candidates(discovery, lists, own, new))
    while new:
        linked = [one for one in candidates if any(_lead_to(one.links, span).any() for span in new)]
        candidates = [one for one in candidates if one not in linked]
        new = [one.span for one in linked]
        found += [(one.context, one.span.start) for one in linked]
    return sorted(found, key=lambda segment: segment[1])


def _own(discovery: SegmentDiscovery) -> Span:
    """The heap's own structures, by its header or else by the memory map; less than 1 MiB."""
    heap = discovery.heap
    own = own_span(discovery.view, discovery.layout, heap) or discovery.process.regions.allocation(heap)
    return Span(heap, min(heap + _MiB, max(own.end if own is not None else 0, heap + PAGE)))


def _lead_to(links: NDArray[np.uint64], span: Span) -> NDArray[np.bool_]:
    """True for links into a span; (n,)."""
    inside: NDArray[np.bool_] = (links >= np.uint64(span.start)) & (links < np.uint64(span.end))
    return inside


def _candidates(
    discovery: SegmentDiscovery, lists: Sequence[SegContext], own: Span, taken: Sequence[Span]
) -> Iterator[_CutSegment]:
    """The places with subsegments, outside the spans `taken`."""
    *smaller, largest = sorted(lists, key=lambda one: one.segment_bytes)
    for place in _cut_places(discovery.view.space.mapped):
        for context in (*smaller, largest):
            span = Span(place, place + context.segment_bytes)
            if place % context.segment_bytes or any(span.start < one.end and one.start < span.end for one in taken):
                continue
            starts, links = _subsegments(discovery, span, context, own)
            may_be_larger = context != largest and not place % largest.segment_bytes
            if len(starts) and not (may_be_larger and not (starts % np.uint64(largest.unit_bytes)).any()):
                yield _CutSegment(context, span, links)
                break


def _cut_places(mapped: MappedMemory) -> list[int]:
    """Multiples of 1 MiB that are not in the dump, while later bytes of the same 1 MiB are; ascending."""
    starts, ends, _ = mapped.edges
    places, before = dict[int, None](), 0
    for start, end in zip(starts, ends, strict=True):
        place = start // _MiB * _MiB
        if place >= before and place < start:
            places[place] = None
        before = end
    return list(places)[:_MOST_PLACES]


def _subsegments(
    discovery: SegmentDiscovery, span: Span, context: SegContext, own: Span
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """((n,) uint64 starts of what may be subsegments in a segment, (m,) addresses that they link to).

    Each begins with links to other subsegments, which begin pages, or into the heap's own structures `own`.
    """
    view, pointer = discovery.view, discovery.view.pointer_bytes
    start = np.arange(1, DESCRIPTORS, dtype=np.uint64) * np.uint64(context.unit_bytes) + np.uint64(span.start)
    words = [view.space.mapped.gather(start + np.uint64(side), pointer) for side in (0, pointer)]
    is_present = words[0][1] & words[1][1]
    plain = np.stack([words[0][0], words[1][0]])
    is_vs = np.zeros(len(start), bool)
    for end in vs_ends(view.space.mapped, view.granularity, discovery.structs("_HEAP_VS_SUBSEGMENT"), start):
        is_vs |= is_present & (end > start.astype(np.int64)) & (end <= span.end)
    found, links = np.zeros(len(start), bool), []
    for each, which in ((plain, is_present), (plain ^ start, is_vs)):
        may_link = (each > 0) & ((each % np.uint64(PAGE) == 0) | _lead_to(each, own))
        which = which & may_link.all(axis=0)
        found |= which
        links.append(each[:, which].reshape(-1))
    return start[found], np.concatenate(links)
