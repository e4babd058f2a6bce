"""The segment heap of Windows 10 and later (docs/reference/heap-structures.md §6).

A heap has page segments. The units of a segment form page ranges. A range is a block of whole pages, a VS subsegment
with chunks of any size, or an LFH subsegment with blocks of one size. Large allocations lie outside of segments.
"""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim
from heapdump.heaps.candidates import has_every_heap_listed, reservations_with
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.segment import discovery
from heapdump.heaps.segment.header import SIGNATURE
from heapdump.heaps.segment.segment_search import heaps_without_header
from heapdump.process.model import Process, View


class SegmentAllocator:
    """Segment heaps, see `allocator.Allocator`."""

    kind = HeapKind.SEGMENT
    block_kinds = (BlockKind.PAGES, BlockKind.LFH, BlockKind.VS, BlockKind.LARGE)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim under the layout with which most facts hold for the heap itself."""
        return discovery.claim(view, address, is_listed=is_listed)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Starts of committed memory with a segment heap's signature, and heaps that only their segments name.

        On 26100 one reservation holds several heaps.
        """
        yield from reservations_with(process, view, (SIGNATURE,), is_shared=True)
        if not has_every_heap_listed(process, view):
            yield from heaps_without_header(view)

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The record with own structures, segments, large allocations, Windows' counters."""
        return discovery.describe(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Walks heap by heap, those with the most memory in the dump first.

        Keys and padding that one heap shows are used for the later heaps of its view.
        """
        from heapdump.heaps.segment.keys import Keys
        from heapdump.heaps.segment.walk import walk_segment_heap

        keys = {view.arch: Keys(job.process, view) for view in job.process.views}
        for one in sorted(job.each(), key=lambda one: -one.bytes_present):
            walk_segment_heap(one, keys[one.heap.view])

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """Compares committed bytes, segments, and committed bytes of large allocations."""
        from heapdump.heaps.segment.self_checks import self_checks

        return self_checks(process, heap, count)

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """The reader of the addresses of stack records, which stand behind user data."""
        from heapdump.heaps.segment.traces import trace_reader

        return trace_reader(view, heap, walk)

    def check(self, job: CheckJob) -> bool:
        """Compares Windows' counters with the segments and large allocations that were found."""
        from heapdump.heaps.segment.check import check_segment_heap

        check_segment_heap(job)
        return True


ALLOCATOR = SegmentAllocator()
