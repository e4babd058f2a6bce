"""The page heap (`gflags +hpa`, Application Verifier): docs/reference/heap-structures.md §5.

A *full* block has pages of its own and ends, or begins, at a guard page; a *light* block lies inside a block of an
ordinary heap. `discovery` finds the heap; `nodes` and `node_lists` read its records of full blocks; `light` finds light
blocks among the rows of the ordinary heap; `walk` makes rows of both; `damage` and `check` compare stamps and fills;
`traces` reads recorded stacks.
"""

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
    """Page heaps, see `allocator.Allocator`."""

    kind = HeapKind.PAGE
    block_kinds = (BlockKind.PAGE, BlockKind.LIGHT)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim: the page at the address has the fill of a handle, the next page the signature of a root."""
        return discovery.claim(view, address)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Reservations that begin with the filled page of a handle."""
        return reservations_with(process, view, (discovery.FILL,))

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The record of the claimed heap: root, reservations, the ordinary heap behind it."""
        return discovery.describe(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Walks heap by heap."""
        from heapdump.heaps.page.walk import walk_page_heap

        for one in job.each():
            walk_page_heap(one)

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """No checks: the walk itself compares the number of busy blocks."""
        return ()

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """The reader of the addresses of stack records in block information and nodes."""
        from heapdump.heaps.page.traces import page_traces

        return page_traces(view, heap, walk.table)

    def check(self, job: CheckJob) -> bool:
        """Checks stamps and fills around every block."""
        from heapdump.heaps.page.check import check_page_heap

        check_page_heap(job)
        return True


ALLOCATOR = PageAllocator()
