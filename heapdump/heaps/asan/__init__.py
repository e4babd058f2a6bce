"""The heap of AddressSanitizer, which replaces malloc and new in a program built with it (LLVM, MSVC).

Every chunk has a header of 16 bytes before the user data, and *redzones* around it. One *shadow* byte describes 8 bytes
of memory: which of them the program may use. The walk finds chunks by the shadow and confirms them by their headers.
`runtime` finds the runtime, `shadow` reads the shadow, `chunks` decodes headers, `walk` makes rows, `traces` reads
stack ids, `detail` describes one chunk.

Source: docs/reference/heap-structures.md §6.10; recorded with the Windows runtime of LLVM 21.
"""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind, Place
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import DiscoveryContext, Evidence, HeapClaim, Weight
from heapdump.heaps.asan.runtime import runtime_at, runtime_candidates
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.process.model import Process, View

CHUNK = BlockKind.define(9, "asan", Place.OWN)


class AsanAllocator:
    """Heaps of AddressSanitizer, see `allocator.Allocator`. Such a heap has the address of the runtime's module."""

    kind = HeapKind("asan")
    block_kinds = (CHUNK,)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim on a module that exports AddressSanitizer's entry point and the place of the shadow."""
        found = None if is_listed else runtime_at(view, address)
        if found is None:
            return None
        evidence = (
            Evidence("exports __asan_init", Weight.SIGNATURE),
            Evidence("names its shadow", Weight.PLAUSIBLE),
        )
        return HeapClaim(address, evidence, is_layout_exact=True)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Modules that have the runtime's name, and the program itself, which may contain a static runtime."""
        return runtime_candidates(process, view)

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The allocations in which chunks lie, and the shadow."""
        from heapdump.heaps.asan.discovery import describe

        return describe(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """Adds every chunk, allocated or in quarantine."""
        from heapdump.heaps.asan.walk import walk_chunks

        for one in job.each():
            walk_chunks(one)

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """No checks: where the runtime's own counters lie depends on its version and is not known."""
        return ()

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """Reads the ids of allocation stacks from chunk headers."""
        from heapdump.heaps.asan.traces import trace_reader

        return trace_reader(view, walk)

    def check(self, job: CheckJob) -> bool:
        """Checks nothing more: the walk has compared every header with the shadow."""
        return True


ALLOCATOR = AsanAllocator()
