"""The self-checks of a segment heap: Windows' counters against its walk (docs/reference/heap-structures.md §6.1)."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import Check, CheckKind, HeapCount
from heapdump.process.model import Process


def self_checks(process: Process, heap: Heap, count: HeapCount) -> Iterator[Check]:
    """Compares committed bytes, number of segments, and committed bytes of large allocations.

    Committed bytes are compared with the memory map. On 17763 and 19041 Windows' counter omits pages that were added to
    the heap's own structures (recorded). LargeCommittedPages is exact in every recorded heap. The last two are not
    compared where the dump lacks a part of the lists: what is absent is no evidence.
    """
    if process.regions.is_complete_map and heap.committed_bytes is not None:
        yield Check(CheckKind.MAPPED_BYTES, heap.committed_bytes, count.segment_bytes)
    elif process.regions.is_complete_map:
        yield Check(CheckKind.SEGMENT_BYTES, heap.counters.committed_bytes, count.segment_bytes)
    if not heap.is_fully_walked and not heap.findings:
        return
    yield Check(CheckKind.SEGMENTS, heap.counters.segments, len(heap.segments))
    if heap.large_blocks is not None:
        yield Check(CheckKind.LARGE_BYTES, heap.counters.virtual_bytes, heap.large_committed_bytes or 0)
