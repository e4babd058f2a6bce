"""The page heap (DPH): every block ends, or begins, at an inaccessible page; and light blocks (heap-structures.md §5)."""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import DiscoveryContext, HeapClaim
from heapdump.heaps.candidates import reservations_with
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.page import discovery
from heapdump.process.model import Process, View


class PageAllocator:
    """Page heaps."""

    kind = HeapKind.PAGE
    block_kinds = (BlockKind.PAGE, BlockKind.LIGHT)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """Needs the filled page of the handle and the signature of the root behind it."""
        return discovery.claim(view, address)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Reservations that begin with the filled page of a handle."""
        return reservations_with(process, view, (discovery.FILL,))

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """Root, reservations, the ordinary heap behind it."""
        return discovery.describe(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Heap by heap."""
        from heapdump.heaps.page.walk import walk_page_heap

        for one in job.each():
            walk_page_heap(one)

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """None: the walk itself compares the number of busy blocks."""
        return ()

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """Numbers of block information and nodes."""
        from heapdump.heaps.page.traces import page_traces

        return page_traces(view, heap, walk.table)

    def check(self, job: CheckJob) -> bool:
        """Stamps and fills around every block."""
        from heapdump.heaps.page.check import check_page_heap

        check_page_heap(job)
        return True


ALLOCATOR = PageAllocator()
