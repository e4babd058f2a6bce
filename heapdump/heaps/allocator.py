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
    """A value in its valid range; other data often have such a value as well."""

    LINKED = 2
    """A list that links back, or a pointer to a structure that names the heap."""

    SIGNATURE = 4
    """A 32-bit constant, or the heap's own address, where the format has it."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """One fact that holds at an address and speaks for a heap of a kind.

    Attributes:
        text: the fact, for a person.
        weight: its weight in the score of the claim.
    """

    text: str
    weight: Weight


@dataclass(frozen=True, slots=True)
class HeapClaim:
    """Evidence that a heap of one kind lies at an address.

    Attributes:
        address: of the heap's header.
        evidence: facts that hold.
        doubts: names of facts that a heap of the kind has and that do not hold here.
        layout: the struct layout under which the facts hold; None for kinds without one.
        is_layout_exact: True where the layout is that of this very build.
        linked: addresses of other heaps that a list of this heap names.
    """

    address: int
    evidence: tuple[Evidence, ...]
    doubts: tuple[str, ...] = ()
    layout: Layout | None = None
    is_layout_exact: bool = False
    linked: tuple[int, ...] = ()

    @property
    def score(self) -> int:
        """Sum of the weights of the evidence, 0 or more; of several claims on an address the highest score wins."""
        return sum(one.weight for one in self.evidence)

    @property
    def trust(self) -> Trust:
        """EXACT where the layout of this very build holds without doubts; else DERIVED."""
        return Trust.EXACT if self.is_layout_exact and not self.doubts else Trust.DERIVED


def claim_of(address: int, facts: dict[Evidence, bool], layout: Layout, *, is_layout_exact: bool) -> HeapClaim:
    """The claim whose evidence are the facts with value True, and whose doubts are the others."""
    evidence = tuple(fact for fact, holds in facts.items() if holds)
    doubts = tuple(fact.text for fact, holds in facts.items() if not holds)
    return HeapClaim(address, evidence, doubts, layout, is_layout_exact)


class DiscoveryContext:
    """The state that allocators share during the discovery of the heaps of one view.

    It records the list nodes in use. A node belongs to one list only, and a node of another list ends a walk. So lists
    of many damaged heaps that lead into each other cost no more than one list.
    """

    def __init__(self, process: Process, view: View) -> None:
        """No list node is in use yet."""
        self.process = process
        self.view = view
        self._taken: set[int] = set()

    def walk_list(self, head: int, accepts: Callable[[int], bool]) -> LinkedList:
        """Walks a doubly linked list (`linked_list.walk_list`), and marks its nodes as in use.

        A node that is in use already is not accepted.
        """
        linked = walk_list(self.view.space, head, lambda node: node not in self._taken and accepts(node))
        self.take(linked.nodes)
        return linked

    def take(self, nodes: Iterable[int]) -> None:
        """Marks nodes as in use."""
        self._taken.update(nodes)

    def is_taken(self, node: int) -> bool:
        """True for a node that is in use."""
        return node in self._taken

    @cached_property
    def ntdll_words(self) -> NDArray[np.uint64]:
        """The words of ntdll's memory (`heaps.ntdll_words`), read once."""
        return ntdll_words(self.process, self.view)

    @cached_property
    def segment_headers(self) -> dict[int, list[int]]:
        """Address of an NT heap → starts of reservations that begin with the header of one of its segments.

        One scan of all reservations, for heaps whose list of segments is broken.
        """
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
    """The interface of one package of heaps/, whose `__init__.py` exposes an instance as ALLOCATOR.

    No code outside the package knows more about the kind. Bad data raise nothing: they become findings and gaps.
    """

    kind: HeapKind
    """The JSON word of the kind, and its key in ALLOCATORS."""

    block_kinds: tuple[BlockKind, ...]
    """The kinds of blocks that its walk adds, in the order in which reports list them."""

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """The claim on an address; None where it is no heap of this kind. `is_listed`: the process names it as a heap.

        Reads at most two pages for each layout that it tries.
        """

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        """Addresses where a heap of this kind may begin although no heap list names it.

        Each is offered to the `claim` of every allocator. Called once for each view.
        """

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The record of the claimed heap. `index`: its place among all heaps of the process."""

    def walk(self, job: AllocatorJob) -> None:
        """Adds a row for every block of the job's heaps to the job, and findings, gaps and facts to its logs."""

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        """The self-checks of a walked heap: its own counters beside the counts of the walk."""

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        """The reader of the allocation stacks of the heap's rows; None where this kind records none."""

    def check(self, job: CheckJob) -> bool:
        """Examines a walked heap for damage that the walk cannot see. False where this kind has no check."""


def is_missing(process: Process, address: int) -> bool:
    """True where the dump lacks the byte at an address, but the process may have had it.

    That is so where the memory map calls it committed, and everywhere without a complete map. A pointer to such memory
    is no damage.
    """
    if process.space.try_read(address, 1) is not None:
        return False
    regions = process.regions
    i = regions.index_at(address)
    return not regions.is_complete_map or (i is not None and bool(regions.state[i] == State.MEM_COMMIT))


def is_partly_missing(process: Process, address: int, size: int) -> bool:
    """True where the dump lacks a byte of [address, address + size) that the process may have had."""
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
