"""Counts of the program's blocks by kind, over several heaps."""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.walk import KindCount, Walk


def by_kind(heaps: Iterable[Heap], walk: Walk) -> list[KindCount]:
    """The sums of the heaps' counts for each kind of block, in the order of the kinds' codes."""
    sums: dict[BlockKind, list[int]] = {}
    for kind in (kind for heap in heaps if heap.index in walk.counts for kind in walk.counts[heap.index].kinds):
        values = (kind.busy_blocks, kind.busy_bytes, kind.busy_entry_bytes, kind.free_blocks, kind.free_bytes)
        sums[kind.kind] = [a + b for a, b in zip(sums.get(kind.kind, [0] * 5), values, strict=True)]
    return [KindCount(kind, *sums[kind]) for kind in sorted(sums)]
