"""The self-checks of an NT heap: Windows' counters against its walk (docs/reference/heap-structures.md §2.8)."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.heap import ExtentKind, Heap
from heapdump.blocks.walk import Check, CheckKind, HeapCount
from heapdump.process.model import Process


def self_checks(process: Process, heap: Heap, count: HeapCount) -> Iterator[Check]:
    """Compares free bytes, committed bytes, number of segments, and committed bytes of large blocks."""
    counted = heap.counters.free_bytes
    # `Heap.free_bytes` hides a counter above the committed bytes, which is damage
    yield Check(CheckKind.FREE_BYTES, None if counted is None else counted + heap.lookaside_bytes, count.free_bytes)
    if process.regions.is_complete_map:
        # from 9600 on the LFH has a reservation of its own, which this counter includes (every recorded heap)
        own = sum(process.regions.committed_bytes(e.span) for e in heap.extents if e.kind is ExtentKind.FRONT_END)
        yield Check(CheckKind.SEGMENT_BYTES, heap.counters.committed_bytes, count.segment_bytes + own)
    yield Check(CheckKind.SEGMENTS, heap.counters.segments, len(heap.segments))
    if heap.large_blocks is not None:
        # HeapReAlloc does not lower TotalSizeInVirtualBlocks when it shrinks a large block (recorded builds from 7 on)
        walked = heap.large_committed_bytes or 0
        yield Check(CheckKind.LARGE_BYTES, heap.counters.virtual_bytes, walked, may_exceed=True)
