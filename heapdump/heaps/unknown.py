"""Addresses on a heap list that no allocator claims: heaps of Wine, stale entries, heaps that are not in the dump."""

from __future__ import annotations

from collections.abc import Iterable

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind, HeapKind
from heapdump.blocks.walk import Check, HeapCount, Walk
from heapdump.heaps.allocator import SEGMENT_SIGNATURE, DiscoveryContext, HeapClaim
from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader
from heapdump.heaps.unwalked import Unwalked, own_reservation
from heapdump.process.model import Process, View


class UnknownHeaps:
    """Claims every address with score 0. Such heaps are neither walked nor checked."""

    kind = HeapKind.UNKNOWN
    block_kinds: tuple[BlockKind, ...] = ()

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim:
        """A claim with score 0 on any address."""
        return HeapClaim(address, (), (_reason(view, address),))

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """No address."""
        return ()

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """A record with the address and the reason; it has no extents."""
        note = f"heap {claim.address:#x} is not verified: {claim.doubts[0]}"
        return own_reservation(context, claim, index, Unwalked(HeapKind.UNKNOWN, note))

    def walk(self, job: AllocatorJob) -> None:
        """Adds nothing."""

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """None."""
        return ()

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """None."""
        return None

    def check(self, job: CheckJob) -> bool:
        """Not checked."""
        return False


def _reason(view: View, address: int) -> str:
    word = view.space.try_integer(address + 2 * view.pointer_bytes, 4)
    if word is None:
        return "its header is not in the dump"
    if word == SEGMENT_SIGNATURE:
        # Wine: the segment signature in Windows' place, nothing else of an NT heap
        return "it has FFEEFFEE in the place of an NT heap's segment signature, but no EEFFEEFF (Wine, or damaged)"
    return f"no heap signature: {word:#x} where an NT, segment or page heap has its own"


UNKNOWN = UnknownHeaps()
