"""Lookaside lists, the front end of XP and Server 2003: 128 singly linked lists.

Source: docs/reference/heap-structures.md §3.1. List i links the user data of blocks of i granules. Its head holds the
number of these blocks, the depth. A block on a list is free though its header says busy. Each change of a head is one
interlocked instruction, so a healthy list is consistent at any moment (719 blocks on the lists of all recorded heaps of
2600.5512: sizes, states and depths hold without exception).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.blocks.heap import Segment
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.discovery import FRONT_ENDS
from heapdump.heaps.nt.segment_repair import header_bytes
from heapdump.layouts import Layout
from heapdump.process.model import View

LISTS = 128
_GREATEST_DEPTH = 256

_ENOUGH_LISTS = 8
"""Number of lists that must be in the dump to recognise the block that holds them."""


@dataclass(frozen=True, slots=True)
class LookasideLink:
    """One link of a list.

    Attributes:
        number: number of the list, which is the size of its blocks in granules.
        place: address of the link.
        node: its value: the user address of a block; 0 at the end of the list.
        remaining: number of blocks from this link on, by the depth.
        is_repeated: True where the node was on the list before.
    """

    number: int
    place: int
    node: int
    remaining: int
    is_repeated: bool


def lists_at(view: View, layout: Layout, heap: int, segments: Sequence[Segment]) -> int:
    """The address of the lookaside lists that a heap before Vista uses; 0 for none.

    Where FrontEndHeap and FrontEndHeapType contradict each other, the lists in the first block of the heap are used: XP
    has them there in every recorded heap with lists.
    """
    struct, space = layout["_HEAP"], view.space
    number = space.try_integer(heap + struct.offset("FrontEndHeapType"), 1)
    stated = space.try_pointer(heap + struct.offset("FrontEndHeap")) or 0
    kind = None if number is None else FRONT_ENDS.get(number)
    owner = space.try_pointer(stated + layout["_LFH_HEAP"].offset("Heap"))
    if number is None or (kind == "none" and not stated) or (kind == "lfh" and owner in (heap, None)):
        return 0
    first = _first_block(view, layout, heap, segments)
    if first and first != stated and kind == "lookaside" and not _has_lists(view, layout, first):
        return stated
    if kind == "lookaside" and stated and first in (0, stated):
        return stated
    return first if first and _has_lists(view, layout, first) else 0


def lookaside_bytes(view: View, layout: Layout, lists: int) -> int | None:
    """Bytes of all blocks on lookaside lists, by the depths: sum of depth * i * granule over the lists.

    `lists`: see `lists_at`. None where the lists are not in the dump.
    """
    if not lists:
        return 0
    struct = layout["_HEAP_LOOKASIDE"]
    depth_at = struct.offset("ListHead") + (4 if view.pointer_bytes == 4 else 0)  # SLIST_HEADER (winnt.h)
    total = 0
    for i in range(LISTS):
        depth = view.space.try_integer(lists + i * struct.size + depth_at, 2)
        if depth is None:
            return None
        total += depth * i * view.granularity
    return total


def lookaside_entries(context: HeapContext) -> set[int]:
    """Entries of the blocks on lookaside lists, at most as many of each list as its depth."""
    granule = context.entry_format.granule
    return {link.node - granule for link in lookaside_links(context) if link.remaining > 0 and link.node >= granule}


def lookaside_links(context: HeapContext) -> Iterator[LookasideLink]:
    """The links of all lists, list by list.

    A list is followed up to its end, its depth, a node that it had before, or a link that the dump lacks.
    """
    if not context.entry_format.is_pre_vista:
        return
    lists = lists_of(context)
    if not lists:
        return
    struct = context.layout["_HEAP_LOOKASIDE"]
    for number in range(LISTS):
        yield from _list(context.view, number, lists + number * struct.size + struct.offset("ListHead"))


def _list(view: View, number: int, head: int) -> Iterator[LookasideLink]:
    header = view.space.try_integer(head, 8)
    if header is None:
        return
    if view.pointer_bytes == 4:  # SLIST_HEADER: {u32 next, u16 depth, u16 sequence}
        node, remaining = header & 0xFFFFFFFF, header >> 32 & 0xFFFF
    else:  # 16 bits depth, 9 bits sequence, 39 bits of the address (winnt.h)
        node, remaining = header >> 25 << 4, header & 0xFFFF
    place, seen = head, set[int]()
    while True:
        yield LookasideLink(number, place, node, remaining, node in seen)
        if not node or remaining <= 0 or node in seen:
            return
        seen.add(node)
        following = view.space.try_pointer(node)
        if following is None:
            return
        place, node, remaining = node, following, remaining - 1


def lists_of(context: HeapContext) -> int:
    """See `lists_at`."""
    return lists_at(context.view, context.layout, context.address, context.heap.segments)


def lists_block(context: HeapContext) -> int:
    """The user address of the block that holds the heads of the lists; 0 from Vista on, and where there is none.

    XP keeps that block when the LFH replaces the lists (seen on 2600.5512, lfh): it is the first block of the heap, and
    each of its records still has the greatest depth of a list. So has that of a heap whose header is not in the dump.
    """
    if not context.entry_format.is_pre_vista:
        return 0
    if context.heap.front_end == "lookaside":
        return lists_of(context)
    view, layout = context.view, context.layout
    first = _first_block(view, layout, context.address, context.heap.segments)
    return first if context.heap.front_end in ("lfh", None) and first and _has_lists(view, layout, first) else 0


def _first_block(view: View, layout: Layout, heap: int, segments: Sequence[Segment]) -> int:
    """User address of the first entry of the heap's own segment; 0 where its header is not in the dump.

    If FirstEntry leads to no lists, and lists lie behind the segment's header, where the first entry of every recorded
    segment of XP is, FirstEntry is damaged (`segment_repair`), and that place is used.
    """
    own = next((segment.address for segment in segments if segment.span.start == heap), 0)
    entry = view.space.try_pointer(own + layout["_HEAP_SEGMENT"].offset("FirstEntry")) if own else None
    if entry is None:
        return 0
    behind = own + header_bytes(view, layout)
    if entry != behind and not _has_lists(view, layout, entry + view.granularity):
        entry = behind if _has_lists(view, layout, behind + view.granularity) else entry
    return entry + view.granularity if entry else 0


def _has_lists(view: View, layout: Layout, user: int) -> bool:
    """True where 128 records {list head, depth u16, greatest depth u16 …} of lookaside lists lie at a user address.

    At least _ENOUGH_LISTS records must be in the dump; the others are not compared.
    """
    size, head = layout["_HEAP_LOOKASIDE"].size, 2 * view.pointer_bytes
    depths = [view.space.try_integer(user + i * size + head + 2, 2) for i in range(LISTS)]
    present = [depth for depth in depths if depth is not None]
    return len(present) >= _ENOUGH_LISTS and set(present) == {_GREATEST_DEPTH}
