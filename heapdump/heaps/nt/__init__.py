"""The NT heap, from XP to 11: back end, front ends, large blocks (heap-structures.md §2, §3)."""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import HEAP_SIGNATURE, SEGMENT_SIGNATURE, DiscoveryContext, HeapClaim
from heapdump.heaps.candidates import reservations_with
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.nt import modern, pre_vista
from heapdump.process.model import Process, View


class NtAllocator:
    """NT heaps of every version: those of Vista and later (`modern`), and those before (`pre_vista`)."""

    kind = HeapKind.NT
    block_kinds = (BlockKind.BACKEND, BlockKind.LFH, BlockKind.VIRTUAL, BlockKind.LOOKASIDE)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The better one of both versions."""
        claims = (modern.claim(view, address, is_listed=is_listed), pre_vista.claim(view, address))
        return max((claim for claim in claims if claim is not None), key=lambda claim: claim.score, default=None)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Reservations that begin with a heap's header; later segments of a heap are none."""
        words = (SEGMENT_SIGNATURE, HEAP_SIGNATURE)
        found = reservations_with(process, view, words)
        return (address for address in found if not modern.is_later_segment(view, address))

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """Header, segments, large blocks, Windows' counters."""
        is_modern = claim.layout is not None and modern.is_modern(claim.layout)
        return (modern.describe if is_modern else pre_vista.describe)(context, claim, index)

    def walk(self, job: AllocatorJob) -> None:
        """All heaps together; see `walk`."""
        from heapdump.heaps.nt.walk import walk_nt_heaps

        walk_nt_heaps(job)

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """Free, committed and large bytes, segments."""
        from heapdump.heaps.nt.self_checks import self_checks

        return self_checks(process, heap, count)

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """Numbers in front of, or behind, user data."""
        from heapdump.heaps.nt.traces import nt_traces

        return nt_traces(view, heap, walk.table)

    def check(self, job: CheckJob) -> bool:
        """Header bytes that sizes do not need, fills, free lists, lookaside lists."""
        from heapdump.heaps.nt.check import check_nt_heap

        check_nt_heap(job)
        return True


ALLOCATOR = NtAllocator()
