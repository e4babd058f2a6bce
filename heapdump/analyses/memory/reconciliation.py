"""The reconciliation: committed memory explained to the byte, every committed byte under exactly one item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.items import NAMED_ITEMS, Item
from heapdump.analyses.memory.usage import UsageMap
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind, Place
from heapdump.blocks.walk import Walk
from heapdump.memory.regions import Kind, State


@dataclass(frozen=True, slots=True)
class ItemBytes:
    """The committed bytes under one item.

    Attributes:
        item: line of the reconciliation.
        bytes: committed bytes under it.
        share: part of all committed bytes, 0 to 1; None without a complete memory map.
        owner: name of an owner that was recognised by evidence; "" under other items.
    """

    item: Item
    bytes: int
    share: float | None
    owner: str = ""

    @property
    def words(self) -> str:
        """The line for a person, and the value of `item` in JSON."""
        return f"{self.owner} (presumed)" if self.item is Item.NAMED_GUESS else self.owner or self.item.words


def reconcile(usage: UsageMap, heaps: Sequence[Heap], walk: Walk) -> tuple[ItemBytes, ...]:
    """The items that have bytes, in the order of `Item`; their sum is the committed bytes of the memory map.

    Without a memory map: the bytes in the dump, without shares.

    The walk divides the bytes of heap segments and of page heaps into blocks and overhead. A recognised owner has a
    line of its own.
    """
    table = usage.table
    order = list(Item)
    unclaimed = -1
    number = np.array([*(order.index(Item(claim.item)) for claim in table.claims), unclaimed], np.int64)[table.claim]
    is_unclaimed = number == unclaimed
    number[is_unclaimed] = order.index(Item.UNKNOWN)
    number[is_unclaimed & (table.type == Kind.MEM_MAPPED)] = order.index(Item.MAPPED)
    number[is_unclaimed & (table.type == Kind.MEM_PRIVATE)] = order.index(Item.UNKNOWN_PRIVATE)
    committed = table.state == State.MEM_COMMIT
    total = int(table.size[committed].sum()) if table.is_complete_map else 0
    sizes = ((item, int(table.size[committed & (number == i)].sum())) for i, item in enumerate(order))
    named = {item: tuple(_named(usage, committed & (number == order.index(item)))) for item in NAMED_ITEMS}
    divided = (
        (item, owner, part)
        for container, size in sizes
        for item, owner, part in named.get(container) or _divided(container, size, heaps, walk)
    )
    return tuple(ItemBytes(item, size, size / total if total else None, owner) for item, owner, size in divided if size)


def _named(usage: UsageMap, rows: NDArray[np.bool_]) -> Iterator[tuple[Item, str, int]]:
    """(item, owner, bytes) for each owner of these rows, most bytes first."""
    table, sizes = usage.table, dict[tuple[Item, str], int]()
    for i in np.flatnonzero(rows).tolist():
        claim = table.claims[int(table.claim[i])]
        key = Item(claim.item), claim.owner
        sizes[key] = sizes.get(key, 0) + int(table.end[i] - table.start[i])
    yield from ((*key, size) for key, size in sorted(sizes.items(), key=lambda pair: (-pair[1], pair[0][1])))


def _divided(item: Item, size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[Item, str, int]]:
    """An item, divided where the walk knows the blocks in it."""
    dividers = {Item.SEGMENTS: _segments, Item.PAGE_HEAPS: _page_heaps, Item.ASAN: _asan}
    divided = dividers[item](size, heaps, walk) if item in dividers else ((item, size),)
    yield from ((part, "", bytes_) for part, bytes_ in divided)


def _page_heaps(size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[Item, int]]:
    """The committed bytes of page heaps: requested bytes of blocks with pages of their own, and the rest."""
    full = [kind for h in heaps if h.index in walk.counts for kind in walk.counts[h.index].of(BlockKind.PAGE)]
    busy = sum(kind.busy_bytes for kind in full)
    if busy > size:
        yield Item.PAGE_HEAPS, size
        return
    yield Item.PAGE_HEAPS_BUSY, busy
    yield Item.PAGE_HEAPS_OVERHEAD, size - busy


def _asan(size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[Item, int]]:
    """The committed bytes of AddressSanitizer's allocations: allocated chunks, freed chunks, the rest."""
    by_kind = [
        kind for h in heaps if h.kind == "asan" and h.index in walk.counts for kind in walk.counts[h.index].kinds
    ]
    busy, freed = sum(kind.busy_bytes for kind in by_kind), sum(kind.free_bytes for kind in by_kind)
    if busy + freed > size:
        yield Item.ASAN, size
        return
    yield Item.ASAN_BUSY, busy
    yield Item.ASAN_FREED, freed
    yield Item.ASAN_OVERHEAD, size - busy - freed


def _segments(size: int, heaps: Sequence[Heap], walk: Walk) -> Iterator[tuple[Item, int]]:
    """The committed bytes of heap segments: busy blocks, free blocks, overhead, the rest.

    Undivided where the memory map and the heaps contradict each other. Free blocks of 8 and later contain pages that
    Windows gave back and no list names. The difference between the committed bytes of the segments' lists and those of
    the map is therefore subtracted from the free blocks.
    """
    in_segments = [h for h in heaps if h.index in walk.counts and h.segments and h.kind != HeapKind.PAGE]
    counts = [walk.counts[heap.index] for heap in in_segments]
    blocks = [kind for count in counts for kind in (*count.kinds, *count.hosted) if kind.kind.place is not Place.OWN]
    busy = sum(kind.busy_bytes for kind in blocks)
    free = sum(kind.free_bytes for kind in blocks) - sum(count.uncommitted_free_bytes for count in counts)
    walked = sum(count.segment_bytes for count in counts)
    listed = sum(heap.committed_bytes or 0 for heap in in_segments)
    committed_free = free - max(0, listed - size)
    overhead = walked - busy - free
    rest = size - busy - overhead - committed_free
    if min(committed_free, overhead, rest) < 0:
        yield Item.SEGMENTS, size
        return
    yield Item.SEGMENTS_BUSY, busy
    yield Item.SEGMENTS_FREE, committed_free
    yield Item.SEGMENTS_OVERHEAD, overhead
    yield Item.SEGMENTS_NOT_WALKED, rest
