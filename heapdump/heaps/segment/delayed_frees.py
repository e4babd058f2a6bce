"""Freed VS chunks on a delay-free list; their headers still say busy (docs/reference/heap-structures.md §6.4).

17763.379 and later have one such list in the VS context, 26100 one in each affinity slot. No recorded heap had a chunk
on a list. So a node counts only where it is the user data of a busy chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust
from heapdump.heaps.segment.affinity_slots import affinity_slots
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.kernels.row import BUSY, CLASS_MASK, TRUST_MASK, UNIT
from heapdump.memory import limits
from heapdump.trust import Trust
from heapdump.wording import plural

_FREE_TAGS = (CLASS_MASK | TRUST_MASK) & ~BUSY
"""Bits of `tags` that a row keeps when it becomes free."""


@dataclass(frozen=True, slots=True)
class DelayedFrees:
    """The chunks on the delay-free lists of a heap.

    Attributes:
        addresses: (n,) uint64 user addresses, ascending.
        is_cut: True where a part of a list is not in the dump.
    """

    addresses: NDArray[np.uint64]
    is_cut: bool


def delayed_frees(walk: SegmentWalk) -> DelayedFrees:
    """The chunks on all delay-free lists of a heap.

    A list whose length contradicts its depth is a finding, and its nodes are left out. Nodes that the dump lacks are
    a gap.
    """
    found, missing = dict[int, None](), 0
    for head in _delay_free_lists(walk):
        depth, nodes = _depth(walk, head), dict[int, None]()
        node: int | None = _first_node(walk, head)
        while node and node not in nodes and node not in found and len(nodes) <= min(depth, limits.MAX_LIST_NODES):
            nodes[node] = None
            node = walk.view.space.try_pointer(node)
        if node is None or (len(nodes) == depth and not node):  # None: the rest of the list is not in the dump
            found |= nodes
            missing += depth - len(nodes) if node is None else 0
            continue
        walk.count_headers(1, 0)
        walk.report(
            DamagedBytes("vs_chunk", head, 2 * walk.pointer_bytes, f"{depth:,} nodes", "others"),
            f"{walk.name}: the list at {head:#x} of chunks that wait to be freed does not have the {depth:,} nodes "
            "that it counts",
        )
    if missing:
        walk.add_gap(
            f"{walk.name}: {plural(missing, 'node')} of the lists of chunks that wait to be freed are not in the dump: "
            "these chunks count as busy"
        )
    return DelayedFrees(np.array(sorted(found), np.uint64), missing > 0)


def free_delayed(walk: SegmentWalk, first: int, delayed: DelayedFrees) -> None:
    """Makes the busy VS rows from `first` on free that are delayed; the other ones guesses where some are not known."""
    if not len(delayed.addresses):
        return
    table = walk.columns.since(first)
    granule, is_busy = np.uint64(walk.granule), (table.kind == BlockKind.VS) & table.is_busy
    is_delayed = is_busy & np.isin(table.entry + granule, delayed.addresses)
    if delayed.is_cut:
        lower_trust(table.tags, is_busy & ~is_delayed, Trust.GUESS)
    table.tags[is_delayed] &= np.uint16(_FREE_TAGS)
    table.unused[is_delayed], table.header8[is_delayed] = granule, granule // np.uint64(UNIT)


def _depth(walk: SegmentWalk, head: int) -> int:
    """Depth of an SLIST_HEADER, the number of nodes: bytes 0-1 on x64, bytes 4-5 on x86 (winnt.h)."""
    return walk.view.space.try_integer(head if walk.pointer_bytes == 8 else head + 4, 2) or 0


def _first_node(walk: SegmentWalk, head: int) -> int:
    """The first node of an SLIST_HEADER, 0 for none: on x64 its second word without bits 0-3, on x86 its first word."""
    if walk.pointer_bytes == 4:
        return walk.view.space.try_integer(head, 4) or 0
    return (walk.view.space.try_integer(head + 8, 8) or 0) & ~0xF


def _delay_free_lists(walk: SegmentWalk) -> Iterator[int]:
    """Addresses of the SLIST_HEADERs of a heap's delay-free lists; none before 17763.379."""
    layout, heap = walk.layout["_SEGMENT_HEAP"], walk.heap.address
    if "VsContext" not in layout or "_HEAP_VS_CONTEXT" not in walk.layout:
        return
    at, context = heap + layout.offset("VsContext"), walk.layout["_HEAP_VS_CONTEXT"]
    if "DelayFreeContext" in context:
        yield at + context.offset("DelayFreeContext")
    if "_HEAP_VS_AFFINITY_SLOT" in walk.layout:
        delay_free = walk.layout["_HEAP_VS_AFFINITY_SLOT"].offset("DelayFreeContext")
        yield from (slot + delay_free for slot in affinity_slots(walk.view, walk.layout, at))
