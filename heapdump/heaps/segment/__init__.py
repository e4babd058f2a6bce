"""The segment heap of Windows 10 and later: page ranges, VS and LFH subsegments, large blocks (heap-structures.md §6)."""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim
from heapdump.heaps.candidates import reservations_with
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.segment import discovery
from heapdump.heaps.segment.header import SIGNATURE
from heapdump.process.model import Process, View


class SegmentAllocator:
    """Segment heaps."""

    kind = HeapKind.SEGMENT
    block_kinds = (BlockKind.PAGES, BlockKind.LFH, BlockKind.VS, BlockKind.LARGE)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The layout with the highest score on the heap itself."""
        return discovery.claim(view, address, is_listed=is_listed)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Reservations that begin with a heap's header."""
        return reservations_with(process, view, (SIGNATURE,))

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """Own reservation, segments, large blocks, Windows' counters."""
        return discovery.describe(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Heap by heap."""
        from heapdump.heaps.segment.keys import Keys, SegmentHeapJob
        from heapdump.heaps.segment.walk import walk_segment_heap

        keys = {view.arch: Keys(job.process, view) for view in job.process.views}
        for one in job.each():
            walk_segment_heap(SegmentHeapJob(**vars(one), keys=keys[one.heap.view]))

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """Committed bytes, segments, and committed bytes of large blocks."""
        from heapdump.heaps.segment.self_checks import self_checks

        return self_checks(process, heap, count)

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """Addresses behind user data."""
        from heapdump.heaps.segment.traces import read_stack_numbers

        return read_stack_numbers(view, heap, walk)

    def check(self, job: CheckJob) -> bool:
        """Segments and large blocks against Windows' counters."""
        from heapdump.heaps.segment.check import check_segment_heap

        check_segment_heap(job)
        return True


ALLOCATOR = SegmentAllocator()
