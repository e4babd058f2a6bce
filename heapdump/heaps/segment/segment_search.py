"""Searches memory for page segments to which no list of their heap leads any more.

A segment lies at a multiple of its size. It links to its neighbours in the list; the first and the last one link to the
head in the heap. Its signature is encoded with the address of its context and with the HeapKey of the process
(docs/reference/heap-structures.md §6.3). So a segment names its heap, even where the heap's header is destroyed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from heapdump.heaps.integers import address_limit
from heapdump.heaps.segment.header import DESCRIPTORS, SegContext, assumed_contexts
from heapdump.heaps.segment.signature import decoded_signatures
from heapdump.layouts import Layout
from heapdump.process.model import View

ListedSegment = tuple[SegContext, int]
"""(the list that a segment belongs to, address of the segment)."""

_MiB = 1 << 20
_ALIGNMENT = 0x10000
_TREE_SIGNATURE = 0xCCDDCCDD
_MOST_CANDIDATES = 1 << 20


def search_segments(
    view: View, layout: Layout, lists: Sequence[SegContext], known: Sequence[tuple[int, ...]]
) -> list[ListedSegment]:
    """All segments in the dump that belong to these lists, ascending by address.

    `known`: decoded signatures of segments of the process. Where it is empty, signatures of segments that link to the
    head of one of the lists are used.
    """
    places = [place for place in _possible_places(view) if has_descriptors(view, layout, place)]
    pairs = [(one, place) for one in lists for place in places if place % one.segment_bytes == 0]
    decoded = [decoded_signatures(view, layout, one.anchor, place) for one, place in pairs]
    linked = [one.list_head in links_of(view, place) for one, place in pairs]
    rows = [row for row in known if row] or [row for row, holds in zip(decoded, linked, strict=True) if holds and row]
    columns = list(zip(*rows, strict=True))
    usual = [max(set(column), key=column.count) for column in columns]
    best = max(range(len(columns)), key=lambda i: columns[i].count(usual[i]), default=0)
    fits = [bool(row and usual and row[best] == usual[best]) for row in decoded]
    found = {place: one for (one, place), a, b in zip(pairs, linked, fits, strict=True) if a or b}
    found |= dict(_named_by(view, layout, found))
    return [(found[place], place) for place in sorted(found)]


def _named_by(view: View, layout: Layout, found: Mapping[int, SegContext]) -> Iterator[tuple[int, SegContext]]:
    """The segments whose first page the dump lacks and to which one of these links; address and list of each."""
    for place, one in found.items():
        for link in links_of(view, place):
            fits = link % one.segment_bytes == 0 and link + one.segment_bytes <= address_limit(view)
            if fits and view.space.try_pointer(link) is None and has_descriptors(view, layout, link):
                yield link, one


def count_links(view: View, assumed: Sequence[tuple[Layout, Sequence[SegContext]]]) -> list[int]:
    """Links from segments in the dump to heads of a heap's lists, and from these heads to segments.

    `assumed`: layouts, and the lists under each; a number for each of them.
    """
    list_heads = [{one.list_head: one.segment_bytes for one in lists} for _, lists in assumed]
    named = {head: links_of(view, head) for head in set().union(*list_heads)}
    targets = {link for links in named.values() for link in links}
    counts = [0] * len(assumed)
    for place in _possible_places(view):
        links = links_of(view, place)
        if place not in targets and named.keys().isdisjoint(links):
            continue
        for i, (layout, _) in enumerate(assumed):
            fitting = [head for head, size in list_heads[i].items() if place % size == 0]
            linked = sum((head in links) + (place in named[head]) for head in fitting)
            counts[i] += linked if linked and has_descriptors(view, layout, place) else 0
    return counts


def heaps_without_header(view: View) -> Iterator[int]:
    """Addresses of heaps whose header the dump lacks, by segments that link to a list head in it; maybe repeated.

    A heap lies on a multiple of 64 KiB, so the low half of such a link is the place of the head in one layout.
    """
    layouts = [layout for layout in view.layouts if "_SEGMENT_HEAP" in layout]
    for place in _possible_places(view):
        for link in links_of(view, place):
            if link % _MiB == 0 or link >= address_limit(view) or view.space.try_pointer(link) is not None:
                continue
            for layout in layouts:
                list_heads = [one.list_head for one in assumed_contexts(layout, 0) if place % one.segment_bytes == 0]
                if link % _ALIGNMENT in list_heads and has_descriptors(view, layout, place, are_signed=True):
                    yield link & -_ALIGNMENT


def _possible_places(view: View) -> Iterator[int]:
    """Addresses in the dump that are multiples of 1 MiB, ascending."""
    starts, ends, _ = view.space.mapped.edges
    count = 0
    for start, end in zip(starts, ends, strict=True):
        for place in range(-(-start // _MiB) * _MiB, end, _MiB):
            count += 1
            if count > _MOST_CANDIDATES:
                return
            yield place


def links_of(view: View, place: int) -> tuple[int, ...]:
    """Flink and Blink of the ListEntry at an address; links that are 0 or not in the dump are left out."""
    pointer = view.pointer_bytes
    links = (view.space.try_pointer(place), view.space.try_pointer(place + pointer))
    return tuple(link for link in links if link)


def has_descriptors(view: View, layout: Layout, place: int, *, are_signed: bool = False) -> bool:
    """True where the page descriptors at an address, as far as the dump holds them, are possible ones.

    `are_signed`: one must have the TreeSignature.
    """
    struct = layout["_HEAP_PAGE_RANGE_DESCRIPTOR"]
    at = np.uint64(place) + np.arange(DESCRIPTORS, dtype=np.uint64) * np.uint64(struct.size)
    signatures, _ = view.space.mapped.gather(at + np.uint64(struct.offset("TreeSignature")), 4)
    flags, _ = view.space.mapped.gather(at[1:] + np.uint64(struct.offset("RangeFlags")), 1)
    return bool((signatures == _TREE_SIGNATURE).any()) or (bool(flags.any()) and not are_signed)
