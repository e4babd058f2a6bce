"""The sections of the page for whoever has just got the dump, in the order in which they are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.allocated.stack_keys import is_verifier
from heapdump.analyses.damage.incidents import Incident
from heapdump.analyses.damage.verdict import Verdict
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.analyses.locks import Hang
from heapdump.analyses.memory.capabilities import Capability, Topic
from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.reconciliation import ItemBytes
from heapdump.analyses.memory.summary import Largest, Summary
from heapdump.analyses.memory.usage import UNKNOWN
from heapdump.analyses.triage.crash import CrashSection
from heapdump.analyses.triage.holders import Holder, holders
from heapdump.blocks.damage import WhyUnchecked
from heapdump.blocks.heap import Heap
from heapdump.process.image_header import is_large_address_aware
from heapdump.process.model import Process
from heapdump.process.stacks.frames import StackFrame
from heapdump.runtimes.runtime import Runtime

_MOST_COMMANDS = 4
_BIG_SHARE = 0.25
_CLEAR = 2
"""How many times as much managed memory as native, or the other way round, makes a clear answer."""


@dataclass(frozen=True, slots=True)
class HeapSection:
    """The heaps. `incidents`: errors first; `gaps`: number of parts of heaps that were not examined."""

    verdict: Verdict
    incidents: tuple[Incident, ...]
    gaps: int


@dataclass(frozen=True, slots=True)
class ManagedShare:
    """Managed and native memory side by side, in committed bytes.

    Attributes:
        bytes: of managed runtimes.
        objects: of their object heaps (GC heaps).
        native: of Windows' heaps.
        unknown: of private memory that nothing names.
    """

    bytes: int
    objects: int
    native: int
    unknown: int

    @property
    def answer(self) -> str:
        """Whether the memory is managed or native, in a word or two."""
        if self.unknown > self.bytes + self.native:
            return "most of it is not known"
        if self.bytes >= _CLEAR * self.native:
            return "managed"
        return "native" if self.native >= _CLEAR * self.bytes else "both"


@dataclass(frozen=True, slots=True)
class MemorySection:
    """Where the memory is.

    Attributes:
        committed_bytes: of the memory map; bytes in the dump where `is_whole_process` is False.
        items: of the reconciliation, most bytes first.
        is_whole_process: True where the dump has a complete memory map.
        private_bytes: private bytes as Windows counted them, else by the memory map; None where neither is known.
        is_counted: True where `private_bytes` are Windows' count.
        largest_free: largest free run of a 32-bit address space; None for others and where it is not known.
        is_large_address_aware: True where the program may use more than 2 GiB of that space.
        managed: None without a runtime.
    """

    committed_bytes: int
    items: tuple[ItemBytes, ...]
    is_whole_process: bool
    private_bytes: int | None
    is_counted: bool
    largest_free: Largest | None
    is_large_address_aware: bool | None
    managed: ManagedShare | None


@dataclass(frozen=True, slots=True)
class Triage:
    """The triage page as data.

    Attributes:
        crash: None without an exception and without a recorded failure.
        hang: the worst hang; None without one.
        hang_frames: frames of the thread that owns the lock of the hang.
        heap: verdict and incidents.
        memory: where the memory is.
        holders: what holds most memory, the most important first.
        cannot: questions that this dump does not answer, or answers in part.
        next: arguments of each command to try next.
    """

    crash: CrashSection | None
    hang: Hang | None
    hang_frames: tuple[StackFrame, ...]
    heap: HeapSection
    memory: MemorySection
    holders: tuple[Holder, ...]
    cannot: tuple[Capability, ...]
    next: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class TriageFacts:
    """The facts that the page is made of; members with names of `Triage` mean the same.

    `graph`: overview of the pointer graph, None where it was not made. `gaps`: as in `HeapSection`, with the heaps that
    were not checked.
    """

    process: Process
    heaps: Sequence[Heap]
    summary: Summary
    crash: CrashSection | None
    hang: Hang | None
    hang_frames: Sequence[StackFrame]
    verdict: Verdict
    incidents: Sequence[Incident]
    gaps: int
    leaks: Leaks
    graph: GraphOverview | None
    capabilities: Sequence[Capability]
    runtimes: Sequence[Runtime] = ()


def triage(facts: TriageFacts) -> Triage:
    """The triage page of these facts."""
    memory = _memory(facts)
    has_verifier = any(is_verifier(module.name) for module in facts.process.modules)
    found = holders(facts.leaks, facts.heaps, facts.graph, facts.runtimes, has_verifier=has_verifier)
    return Triage(
        facts.crash,
        facts.hang,
        tuple(facts.hang_frames),
        HeapSection(facts.verdict, tuple(one for one in facts.incidents if one.is_of_heap), _gaps(facts)),
        memory,
        found,
        tuple(one for one in facts.capabilities if _is_missed(one)),
        tuple(dict.fromkeys(_next(facts, memory, found)))[:_MOST_COMMANDS],
    )


def _gaps(facts: TriageFacts) -> int:
    """The gaps without those of heaps that the verdict already calls not checked."""
    return max(0, facts.gaps - sum(one.why is not WhyUnchecked.NO_CHECK for one in facts.verdict.unchecked))


def _is_missed(one: Capability) -> bool:
    """True for a question without a whole answer; that a process had no exception is an answer."""
    return one.answer == "no" or (one.answer == "partly" and one.topic is not Topic.CRASH)


def _memory(facts: TriageFacts) -> MemorySection:
    summary, process = facts.summary, facts.process
    counted = process.counters.private if process.counters else None
    is_narrow = any(view.arch == "x86" for view in process.views)
    return MemorySection(
        summary.committed_bytes,
        tuple(sorted(summary.reconciliation, key=lambda line: -line.bytes)),
        summary.is_whole_process,
        summary.private_bytes if counted is None else counted,
        counted is not None,
        summary.largest_allocatable if is_narrow else None,
        is_large_address_aware(process) if is_narrow else None,
        _managed(summary.reconciliation),
    )


def _managed(lines: Sequence[ItemBytes]) -> ManagedShare | None:
    managed = sum(line.bytes for line in lines if line.item.is_managed)
    objects = sum(line.bytes for line in lines if line.item is Item.MANAGED_HEAP)
    native = sum(line.bytes for line in lines if line.item.is_native_heap)
    unknown = sum(line.bytes for line in lines if line.item in (Item.UNKNOWN_PRIVATE, Item.UNKNOWN))
    return ManagedShare(managed, objects, native, unknown) if managed else None


def _next(facts: TriageFacts, memory: MemorySection, holders: Sequence[Holder]) -> Iterator[tuple[str, ...]]:
    """The commands that show more, those for the gravest news first."""
    if any(incident.is_error for incident in facts.incidents):
        yield ("check",)
    if facts.process.threads:
        yield ("threads", "--frames")
    if memory.managed is not None:
        yield ("managed",)
    if facts.hang is not None:
        yield ("heap", f"{facts.hang.lock.heap.address:#x}")
    for line in memory.items:
        if not line.item.is_known and line.share is not None and line.share >= _BIG_SHARE:
            yield ("regions", "--usage", UNKNOWN, "--state", "commit")
    yield from (holder.command for holder in holders)
    if facts.graph is None and facts.leaks.blocks:
        yield from (("leaks", "--unreachable"), ("retained",))
    yield ("info",)
