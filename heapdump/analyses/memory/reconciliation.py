"""Committed memory explained to the byte: every committed byte under exactly one item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.memory.usage import UsageMap
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind, HeapKind, Place
from heapdump.blocks.walk import Walk
from heapdump.memory.regions import Kind, State

_SEGMENTS, _PAGE_HEAPS = "heap segments", "page heaps"
_ORDER = (
    _SEGMENTS, "heap segments, uncommitted by the heap's own list", "heap large blocks", "heap front ends",
    "heap large block metadata", "heap range descriptors", "segment heaps (own reservation)", _PAGE_HEAPS, "stacks",
    "TEBs and PEBs", "images", "stack trace database", "other system data", "mapped files and sections", "unknown private memory",
    "unknown memory",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """One line of the reconciliation; `share` of the committed bytes."""

    item: str
    bytes: int
    share: float


def reconcile(usage: UsageMap, heaps: Sequence[Heap], walk: Walk) -> tuple[Item, ...]:
    """The items sum to the committed bytes of the map; what heaps hold in their segments is divided by the walk."""
    table = usage.table
    labels = [claim.item or _plain_item(claim.usage) for claim in table.claims]
    by_claim: Sequence[int] = [_ORDER.index(label) for label in labels]
    item = np.array([*by_claim, -1], np.int64)[table.claim]
    nobody = item < 0
    item[nobody & (table.type == Kind.MEM_MAPPED)] = _ORDER.index("mapped files and sections")
    item[nobody & (table.type == Kind.MEM_PRIVATE)] = _ORDER.index("unknown private memory")
    item[item < 0] = _ORDER.index("unknown memory")
    committed = table.state == State.MEM_COMMIT
    total = int(table.size[committed].sum())
    sizes = [(name, int(table.size[committed & (item == i)].sum())) for i, name in enumerate(_ORDER)]
    divided = [part for name, size in sizes for part in _parts(name, size, heaps, walk)]
    return tuple(Item(name, size, size / total) for name, size in divided if size)


def _parts(name: str, size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[str, int]]:
    """An item, divided where the walk says what lies in it."""
    if name == _SEGMENTS:
        yield from _divided(size, heaps, walk)
    elif name == _PAGE_HEAPS:
        yield from _page_heaps(size, heaps, walk)
    else:
        yield name, size


def _page_heaps(size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[str, int]]:
    """What page heaps commit for blocks with pages of their own: requested bytes, and what that costs."""
    full = [kind for h in heaps if h.index in walk.counts for kind in walk.counts[h.index].of(BlockKind.PAGE)]
    busy = sum(kind.busy_bytes for kind in full)
    if busy > size:
        yield _PAGE_HEAPS, size
        return
    yield f"{_PAGE_HEAPS}: busy blocks", busy
    yield f"{_PAGE_HEAPS}: freed blocks, guard pages and overhead", size - busy


def _divided(size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[str, int]]:
    """The committed bytes of heap segments by what lies in them; undivided where map and heaps contradict each other.

    Free blocks of 8 and later contain pages that Windows gave back and no list names: what the segments' lists call
    committed and the map does not is taken from the free blocks.
    """
    mine = [h for h in heaps if h.index in walk.counts and h.segments and h.kind != HeapKind.PAGE]
    counts = [walk.counts[heap.index] for heap in mine]
    inside = [kind for count in counts for kind in (*count.kinds, *count.hosted) if kind.kind.place is not Place.OWN]
    busy = sum(kind.busy_bytes for kind in inside)
    free = sum(kind.free_bytes for kind in inside) - sum(count.uncommitted_free_bytes for count in counts)
    walked = sum(count.segment_bytes for count in counts)
    listed = sum(heap.committed_bytes or 0 for heap in mine)
    there = free - max(0, listed - size)
    overhead = walked - busy - free
    rest = size - busy - overhead - there
    if min(there, overhead, rest) < 0:
        yield _SEGMENTS, size
        return
    yield f"{_SEGMENTS}: busy blocks", busy
    yield f"{_SEGMENTS}: free blocks", there
    yield f"{_SEGMENTS}: overhead", overhead
    yield f"{_SEGMENTS}: not walked", rest


def _plain_item(usage: str) -> str:
    plain = usage.removesuffix("32").removesuffix("64")
    names = {
        "Stack": "stacks",
        "TEB": "TEBs and PEBs",
        "PEB": "TEBs and PEBs",
        "Image": "images",
        "Other": "other system data",
    }
    return names[plain]
