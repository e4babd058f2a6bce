"""Room 6: allocators, one package for each kind of heap.

In comes the process, out come `Heap` records and the block table. Every address on the heap lists, and every candidate
of an allocator, is offered to every allocator; the claim with the highest score wins. An address on a heap list that no
allocator claims becomes a heap of kind `unknown`, with the reason.

A new kind is a package with an `ALLOCATOR` (see `allocator.Allocator`) and a line in `ALLOCATORS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from importlib import import_module

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.walk import Walk
from heapdump.heaps.allocator import Allocator, DiscoveryContext, HeapClaim
from heapdump.heaps.jobs import TraceReader
from heapdump.heaps.unknown import UNKNOWN
from heapdump.process.model import Process, View

ALLOCATORS: dict[HeapKind, str] = {
    HeapKind.NT: "heapdump.heaps.nt",
    HeapKind.SEGMENT: "heapdump.heaps.segment",
    HeapKind.PAGE: "heapdump.heaps.page",
    HeapKind("asan"): "heapdump.heaps.asan",
}
"""Kind → package, in the order of walks: a kind whose blocks lie inside blocks of another comes after that one."""


def allocators() -> dict[HeapKind, Allocator]:
    """The allocator of each kind, in the order of `ALLOCATORS`. Imports the packages, not their walks and checks."""
    return {kind: import_module(name).ALLOCATOR for kind, name in ALLOCATORS.items()}


def allocator_of(heap: Heap) -> Allocator:
    """The allocator of a heap."""
    return UNKNOWN if heap.kind == HeapKind.UNKNOWN else import_module(ALLOCATORS[heap.kind]).ALLOCATOR


def discover(process: Process) -> tuple[Heap, ...]:
    """Every heap of every view, view by view: in the order of the heap list, then the candidates of allocators.

    The index of a heap is its place in this result.
    """
    heaps: list[Heap] = []
    for view in process.views:
        context = DiscoveryContext(process, view)
        offered, waiting = set[int](), deque(_addresses(process, view))
        while waiting:
            address, is_listed = waiting.popleft()
            if address not in offered:
                offered.add(address)
                allocator, claim = best_claim(view, address, is_listed=is_listed)
                heaps.append(allocator.describe(context, claim, len(heaps)))
                waiting.extend((other, True) for other in claim.linked)
    return tuple(heaps)


def best_claim(view: View, address: int, *, is_listed: bool) -> tuple[Allocator, HeapClaim]:
    """The allocator with the highest claim, and that claim; of equal scores the first. UNKNOWN where none claims."""
    pairs = ((one, one.claim(view, address, is_listed=is_listed)) for one in (*allocators().values(), UNKNOWN))
    claims = [(allocator, claim) for allocator, claim in pairs if claim is not None]
    return max(claims, key=lambda pair: pair[1].score)


def _addresses(process: Process, view: View) -> Iterator[tuple[int, bool]]:
    """(address, True where the heap list names it): the heap list first, then all candidates, ascending; each once."""
    listed = dict.fromkeys(view.heap_addresses)
    yield from ((address, True) for address in listed)
    found = {address for allocator in allocators().values() for address in allocator.candidates(process, view)}
    yield from ((address, False) for address in sorted(found - listed.keys()))


def trace_reader(view: View, heap: Heap, walk: Walk) -> TraceReader | None:
    """The reader of the allocation stacks of a heap's rows; None where its kind records none."""
    return allocator_of(heap).trace_reader(view, heap, walk)
