"""The protocol of an allocator: it claims addresses on evidence, describes its heaps, walks and checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap, Trust
from heapdump.heaps.linked_list import LinkedList, walk_list
from heapdump.heaps.ntdll_words import ntdll_words
from heapdump.layouts import Layout
from heapdump.memory.regions import State
from heapdump.process.model import Process, View

if TYPE_CHECKING:
    from heapdump.blocks.kind import BlockKind, HeapKind
    from heapdump.blocks.walk import Check, HeapCount, Walk
    from heapdump.heaps.jobs import AllocatorJob, CheckJob, TraceReader

PAGE = 0x1000
SEGMENT_SIGNATURE = 0xFFEEFFEE
HEAP_SIGNATURE = 0xEEFFEEFF


class Weight(IntEnum):
    """The weight of one piece of evidence in the score of a claim."""

    PLAUSIBLE = 1
    """A value that lies in the range it must have; other data often do as well."""

    LINKED = 2
    """A list that links back, or a pointer that leads to a place which names the heap."""

    SIGNATURE = 4
    """A constant of 32 bits, or the heap's own address, at its place."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact seen at an address that a heap of the kind has; `text` names it."""

    text: str
    weight: Weight


@dataclass(frozen=True, slots=True)
class HeapClaim:
    """Evidence that a heap of one kind lies at `address`.

    `doubts`: names of facts that such a heap should have and this address does not; `layout`: the one that verified,
    None where none is used. `linked`: addresses of other heaps that this heap's own list names.
    """

    address: int
    evidence: tuple[Evidence, ...]
    doubts: tuple[str, ...] = ()
    layout: Layout | None = None
    is_layout_exact: bool = False
    linked: tuple[int, ...] = ()

    @property
    def score(self) -> int:
        """Sum of the weights of the evidence; of several claims on an address the highest score wins, 0 the weakest."""
        return sum(one.weight for one in self.evidence)

    @property
    def trust(self) -> Trust:
        """EXACT when this build's own layout verified without doubts."""
        return Trust.EXACT if self.is_layout_exact and not self.doubts else Trust.DERIVED


def claim_of(address: int, facts: dict[Evidence, bool], layout: Layout, *, is_layout_exact: bool) -> HeapClaim:
    """The claim with the facts that hold as evidence and the others as doubts."""
    evidence = tuple(fact for fact, holds in facts.items() if holds)
    doubts = tuple(fact.text for fact, holds in facts.items() if not holds)
    return HeapClaim(address, evidence, doubts, layout, is_layout_exact)


class DiscoveryContext:
    """The state that allocators share while the heaps of one view are found: a scan for segments, and nodes in use.

    A list node belongs to one heap: a node that another list holds already ends a walk, so that many heaps whose
    lists lead into each other cost no more than one.
    """

    def __init__(self, process: Process, view: View) -> None:
        """One for each view and discovery."""
        self.process = process
        self.view = view
        self._taken: set[int] = set()

    def walk_list(self, head: int, accepts: Callable[[int], bool]) -> LinkedList:
        """Walks a doubly linked list (`linked_list.walk_list`). A node that another list holds is no node of this one."""
        linked = walk_list(self.view.space, head, lambda node: node not in self._taken and accepts(node))
        self.take(linked.nodes)
        return linked

    def take(self, nodes: Iterable[int]) -> None:
        """No other list holds these nodes."""
        self._taken.update(nodes)

    def is_taken(self, node: int) -> bool:
        """True for a node that a list holds."""
        return node in self._taken

    @cached_property
    def ntdll_words(self) -> NDArray[np.uint64]:
        """See `heaps.ntdll_words`; read once."""
        return ntdll_words(self.process, self.view)

    @cached_property
    def segment_headers(self) -> dict[int, list[int]]:
        """Heap → reservations that begin with a segment header naming it; one scan, for lists that are broken."""
        found: dict[int, list[int]] = {}
        struct = self.view.layout["_HEAP_SEGMENT"]
        signature = struct.offset("SegmentSignature" if "SegmentSignature" in struct else "Signature")
        for first, _ in self.process.regions.allocation_rows():
            start = int(self.process.regions.start[first])
            if self.view.space.try_integer(start + signature, 4) == SEGMENT_SIGNATURE:
                heap = self.view.space.try_pointer(start + struct.offset("Heap"))
                found.setdefault(heap or 0, []).append(start)
        return found


class Allocator(Protocol):
    """The front door of one package of heaps/: its `__init__.py` exposes one as ALLOCATOR.

    Nothing outside the package knows more of the kind than this. Bad data never raises: it becomes findings and gaps.
    """

    kind: HeapKind
    """The word of the kind in records; the key in ALLOCATORS."""

    block_kinds: tuple[BlockKind, ...]
    """Kinds of blocks that its walk adds, in the order of reports."""

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim on an address, or None. `is_listed`: the process names it as a heap.

        Reads at most two pages for each layout that is tried.
        """

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Addresses that no heap list names and where a heap of this kind may begin; each is offered to `claim`.

        Called once for each view.
        """

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The heap behind a claim: header, extents, Windows' counters."""

    def walk(self, job: AllocatorJob) -> None:
        """Adds every block of the job's heaps to the job."""

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """Windows' counters beside what the walk of the heap counted."""

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """Reads which allocation stack rows of the heap have; None where this kind records none."""

    def check(self, job: CheckJob) -> bool:
        """Examines a walked heap for damage that a walk does not meet. False: this kind brings no check."""


def is_missing(process: Process, address: int) -> bool:
    """True where a dump lacks memory that the process had: committed by the map, or there is no whole map to tell.

    A pointer to such memory is no damage; one to memory that never was is.
    """
    if process.space.try_read(address, 1) is not None:
        return False
    regions = process.regions
    i = regions.index_at(address)
    return not regions.is_complete_map or (i is not None and bool(regions.state[i] == State.MEM_COMMIT))


def is_partly_missing(process: Process, address: int, size: int) -> bool:
    """True where a dump lacks some bytes, of `size` at `address`, that the process had."""
    if process.space.try_read(address, size) is not None:
        return False
    return any(is_missing(process, at) for at in range(address, address + size))


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
