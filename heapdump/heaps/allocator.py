"""What a walker is: it claims addresses on evidence, and describes the heaps it owns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from heapdump.blocks.heap import Heap, Trust
from heapdump.heaps.linked_list import LinkedList, walk_list
from heapdump.layouts import Layout
from heapdump.memory.regions import State
from heapdump.process.model import Process, View

PAGE = 0x1000
SEGMENT_SIGNATURE = 0xFFEEFFEE
HEAP_SIGNATURE = 0xEEFFEEFF


@dataclass(frozen=True, slots=True)
class HeapClaim:
    """A walker's word that its kind of heap lies at `address`, with the witnesses it saw there.

    `doubts` are witnesses that were looked for and missing; `layout` is the one that verified, None where none is used.
    `linked`: other heaps that this one's own list names.
    """

    address: int
    witnesses: tuple[str, ...]
    doubts: tuple[str, ...] = ()
    layout: Layout | None = None
    is_layout_exact: bool = False
    linked: tuple[int, ...] = ()

    @property
    def trust(self) -> Trust:
        """EXACT when this build's own layout verified without doubts."""
        return Trust.EXACT if self.is_layout_exact and not self.doubts else Trust.DERIVED


class DiscoveryContext:
    """What the walkers of one view share: the process, a scan for lost segments, and which list nodes are taken.

    A list node belongs to one heap: a node that another list holds already ends a walk, so that many heaps whose
    lists lead into each other cost no more than one.
    """

    def __init__(self, process: Process, view: View) -> None:
        """One for each view and discovery."""
        self.process = process
        self.view = view
        self._taken: set[int] = set()

    def ring(self, head: int, accepts: Callable[[int], bool]) -> LinkedList:
        """Walks a ring of nodes that no other list holds; see `rings.walk_list`."""
        ring = walk_list(self.view.space, head, lambda node: node not in self._taken and accepts(node))
        self._taken.update(ring.nodes)
        return ring

    @cached_property
    def segment_headers(self) -> dict[int, list[int]]:
        """Heap → reservations that begin with a segment header naming it; one scan, for lists that are broken."""
        found: dict[int, list[int]] = {}
        struct = self.view.layout["_HEAP_SEGMENT"]
        if "SegmentSignature" not in struct:
            return found
        for first, _ in self.process.regions.runs():
            start = int(self.process.regions.start[first])
            if self.view.space.try_integer(start + struct.offset("SegmentSignature"), 4) == SEGMENT_SIGNATURE:
                heap = self.view.space.try_pointer(start + struct.offset("Heap"))
                found.setdefault(heap or 0, []).append(start)
        return found


class Walker(Protocol):
    """One heap kind."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim on an address, or None. `is_listed`: the process names it as a heap, a witness of its own.

        Reads at most two pages.
        """

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The heap behind a claim: header, extents, what Windows counted. Never raises for bad data."""


def is_missing(process: Process, address: int) -> bool:
    """True where a dump lacks memory that the process had: committed by the map, or there is no whole map to tell.

    A pointer to such memory is no damage; one to memory that never was is.
    """
    if process.space.try_read(address, 1) is not None:
        return False
    regions = process.regions
    i = regions.index_at(address)
    return not regions.is_complete_map or (i is not None and bool(regions.state[i] == State.MEM_COMMIT))


def role_of(view: View, address: int, heap_class: int | None) -> str:
    """`process` for the default heap, else by the class bits of its flags (`_HEAP.Flags` & 0xF000)."""
    if address == view.process_heap:
        return "process"
    return _CLASSES.get(heap_class, "private") if heap_class else "private"


_CLASSES = {
    0x1000: "private", 0x2000: "kernel", 0x3000: "gdi", 0x4000: "user", 0x5000: "console", 0x6000: "user desktop",
    0x7000: "csr shared", 0x8000: "csr port",
}  # fmt: skip
"""HEAP_CLASS_* of ntrtl.h."""
