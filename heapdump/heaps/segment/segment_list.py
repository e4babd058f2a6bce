"""Reads the page segments of a segment heap from its lists, and decides which list members can be trusted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from heapdump.heaps.integers import address_limit
from heapdump.heaps.link_damage import link_damage
from heapdump.heaps.segment.context import SegmentDiscovery
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import SIGNATURE, SegContext, assumed_contexts, contexts
from heapdump.heaps.segment.segment_search import ListedSegment, has_descriptors, links_of, search_segments
from heapdump.heaps.segment.signature import decoded_signatures, possible_heap_keys
from heapdump.heaps.segment.subsegment_links import segments_by_subsegments
from heapdump.process.model import View

_MOST_OTHER_HEAPS = 8
"""The most other heaps of the process that are read for the key."""


def read_segments(discovery: SegmentDiscovery) -> tuple[list[ListedSegment], bool]:
    """(segments in list order, then those that only a search finds; True where none is missing)."""
    view, found, gaps = discovery.view, list[ListedSegment](), list[str]()
    are_closed, is_broken = True, False
    lists = contexts(view, discovery.layout, discovery.heap)
    if lists is None:
        lists = assumed_contexts(discovery.layout, discovery.heap)
    for context in lists:
        if not context.is_consistent:
            _report_context(discovery, context)
        linked = discovery.shared.walk_list(context.list_head, partial(_may_be_segment, view, context))
        findings, link_gaps = link_damage(discovery.process, "segment", discovery.heap, linked, "list of segments")
        discovery.findings.extend(findings)
        gaps.extend(link_gaps)
        are_closed &= linked.is_closed
        is_broken |= bool(findings)
        found += [(context, node) for node in linked.nodes]
    trusted = _with_usual_signature(discovery, found, are_closed=are_closed)
    segments = trusted
    if not (are_closed and _are_all(lists, trusted)):
        segments = _with_unlisted_segments(discovery, lists, trusted, is_damage=are_closed or is_broken)
    is_complete = are_closed or _are_all(lists, segments)
    discovery.notes.extend(() if is_complete else gaps)
    return _without_overlaps(discovery, segments), is_complete


def _are_all(lists: Sequence[SegContext], found: Sequence[ListedSegment]) -> bool:
    """True where `found` has exactly as many segments as the heap counts, and at least one."""
    return bool(found) and len(found) == sum(context.segment_count for context in lists)


def _with_unlisted_segments(
    discovery: SegmentDiscovery, lists: Sequence[SegContext], trusted: list[ListedSegment], *, is_damage: bool
) -> list[ListedSegment]:
    """`trusted`, and the segments of the heap that a search finds and that are on none of its lists.

    `is_damage`: True where the lists run only through memory in the dump; then each added segment is a finding.
    """
    view, layout = discovery.view, discovery.layout
    known = [decoded_signatures(view, layout, context.anchor, node) for context, node in trusted]
    if not trusted:
        known += _other_signatures(discovery, [])
    nodes = {node for _, node in trusted}
    unlisted = [one for one in search_segments(view, layout, lists, known) if one[1] not in nodes]
    for context, node in unlisted if is_damage else ():
        message = f"segment {node:#x} of heap {discovery.heap:#x} is on no list of the heap"
        length, head = 2 * view.pointer_bytes, f"linked from {context.list_head:#x} on"
        discovery.report(DamagedBytes("segment", node, length, head, "not linked"), message)
    found = [*trusted, *unlisted]
    return [*found, *segments_by_subsegments(discovery, lists, found)]


def _may_be_segment(view: View, context: SegContext, node: int) -> bool:
    """True for a list node that can be a segment: its address is a multiple of the segment size and is in the dump."""
    fits = node % context.segment_bytes == 0 and node + context.segment_bytes <= address_limit(view)
    return fits and view.space.try_pointer(node) is not None


def _report_context(discovery: SegmentDiscovery, context: SegContext) -> None:
    if "_HEAP_SEG_CONTEXT" not in discovery.layout or context.anchor == discovery.heap:
        return
    size = discovery.layout["_HEAP_SEG_CONTEXT"].size
    if discovery.view.space.try_read(context.anchor, size) is None:
        return
    damaged = DamagedBytes("segment", context.anchor, size, "its heap, its mask and its shift", "others")
    discovery.report(
        damaged, f"the context at {context.anchor:#x} of the segments of heap {discovery.heap:#x} is damaged"
    )


def _with_usual_signature(
    discovery: SegmentDiscovery, found: list[ListedSegment], *, are_closed: bool
) -> list[ListedSegment]:
    """The trusted segments; adds a finding for each whose decoded signature differs from the usual one.

    Such a segment is kept only where all lists are closed, or where it has page descriptors and the head of the list or
    another segment links to it. The usual signature is that of most segments; where they disagree, other heaps of the
    process and ntdll's data decide.
    """
    view = discovery.view
    rows = [decoded_signatures(view, discovery.layout, context.anchor, node) for context, node in found]
    read = [row for row in rows if row]
    agree = any(len(set(column)) == 1 for column in zip(*read, strict=True))
    others = [] if agree else [row for row in _other_signatures(discovery, read) if row]
    columns = list(zip(*read, *others, strict=True))
    usual = [max(set(column), key=column.count) for column in columns]
    encoding = max(range(len(columns)), key=lambda i: columns[i].count(usual[i]), default=0)
    place = discovery.layout["_HEAP_PAGE_SEGMENT"].offset("Signature")
    out = []
    for segment, row in zip(found, rows, strict=True):
        is_usual = bool(row) and row[encoding] == usual[encoding]
        if row and not is_usual:
            message = f"the signature of segment {segment[1]:#x} of heap {discovery.heap:#x} is damaged"
            expected, length = "the key of the other segments", view.pointer_bytes
            damaged = DamagedBytes("segment", segment[1] + place, length, expected, f"{row[encoding]:#x}")
            discovery.report(damaged, message, note=message)
        if are_closed or is_usual or _is_linked(discovery, found, segment):
            out.append(segment)
    return out


def _is_linked(discovery: SegmentDiscovery, found: list[ListedSegment], segment: ListedSegment) -> bool:
    """True for a segment with page descriptors to which the head of the list or another segment of it links."""
    context, node = segment
    view, others = discovery.view, [other for list_of, other in found if list_of == context and other != node]
    is_named = any(node in links_of(view, place) for place in (context.list_head, *others))
    return is_named and has_descriptors(view, discovery.layout, node)


def _other_signatures(discovery: SegmentDiscovery, rows: list[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Decoded signatures of the first segments of other heaps, and those of `rows` whose key is in ntdll's data."""
    view, layout = discovery.view, discovery.layout
    place = layout["_SEGMENT_HEAP"].offset("Signature")
    for address in view.heap_addresses[:_MOST_OTHER_HEAPS]:
        is_other = address != discovery.heap and view.space.try_integer(address + place, 4) == SIGNATURE
        for context in (contexts(view, layout, address) if is_other else None) or ():
            node = view.space.try_pointer(context.list_head) or context.list_head
            if node != context.list_head and node % context.segment_bytes == 0:
                yield decoded_signatures(view, layout, context.anchor, node)
    words = discovery.shared.ntdll_words
    for row in rows:
        keys = np.array([key for decoded in row for key in possible_heap_keys(view, decoded)], np.uint64)
        if np.isin(keys, words).any():
            yield row


def _without_overlaps(discovery: SegmentDiscovery, found: list[ListedSegment]) -> list[ListedSegment]:
    """The segments; those that begin inside a segment at a lower address are left out, with a finding for each."""
    accepted, end = set[int](), 0
    for context, node in sorted(found, key=lambda segment: segment[1]):
        if node >= end:
            accepted.add(node)
            end = node + context.segment_bytes
            continue
        message = f"segment {node:#x} of heap {discovery.heap:#x} lies over another one and is left out"
        damaged = DamagedBytes("segment", node, context.segment_bytes, "memory of its own", "another segment")
        discovery.report(damaged, message, note=message)
    return [segment for segment in found if segment[1] in accepted]
