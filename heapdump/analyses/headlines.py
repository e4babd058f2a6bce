"""Headlines: the few sentences above an answer, on what stands out, each with the command that shows more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from heapdump.analyses.memory.summary import Summary
from heapdump.analyses.memory.usage import UNKNOWN
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.walk import Walk
from heapdump.process.model import Process
from heapdump.wording import plural, short_size

if TYPE_CHECKING:
    from heapdump.analyses.damage.crash import Crash
    from heapdump.analyses.graph.overview import GraphOverview

MOST = 5
_BIG_SHARE = 0.25
_BIG_BYTES = 1 << 20
_TIGHT_BYTES = 64 << 20
"""Bytes of the largest free run below which a 32-bit address space is short."""


class HeadlineKind(StrEnum):
    """The subject of a headline."""

    CRASH = "crash"
    DAMAGE = "damage"
    PAGE_HEAP = "page_heap"
    LARGE_BLOCKS = "large_blocks"
    BIG_HEAP = "big_heap"
    UNKNOWN_MEMORY = "unknown_memory"
    ADDRESS_SPACE = "address_space"
    FREE_MEMORY = "free_memory"
    LEAK_SUSPECT = "leak_suspect"

    @property
    def is_damage(self) -> bool:
        """True for a headline on what broke."""
        return self in (HeadlineKind.CRASH, HeadlineKind.DAMAGE)

    @property
    def is_about_memory(self) -> bool:
        """True for a headline on where the memory is; False for damage and for who holds it."""
        return not self.is_damage and self is not HeadlineKind.LEAK_SUSPECT


@dataclass(frozen=True, slots=True)
class Headline:
    """A sentence on what stands out. `command`: arguments of the command that shows more."""

    kind: HeadlineKind
    sentence: str
    command: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class HeadlineFacts:
    """The facts that headlines are made of.

    `crash`: None where no block explains a crash. `graph`: overview of the pointer graph, None where it was not made.
    """

    process: Process
    heaps: Sequence[Heap]
    walk: Walk
    summary: Summary
    crash: Crash | None
    graph: GraphOverview | None = None


def headlines(facts: HeadlineFacts) -> tuple[Headline, ...]:
    """At most five headlines, the gravest first."""
    found = (
        *_crash(facts.crash), *_damage(facts.heaps), *_page_heaps(facts.heaps, facts.walk),
        *_large_blocks(facts.heaps, facts.summary), *_big_heap(facts.heaps, facts.summary),
        *_unknown_memory(facts.summary), *_address_space(facts.process, facts.summary), *_free_in_heap(facts.heaps),
        *_leak_suspects(facts.graph),
    )  # fmt: skip
    return found[:MOST]


def _crash(crash: Crash | None) -> Iterator[Headline]:
    if crash is not None:
        sentence = f"{crash.bug} ({crash.code:#x}): {crash.sentence}"
        yield Headline(HeadlineKind.CRASH, sentence, ("block", f"{crash.block.address:#x}"))


def _damage(heaps: Sequence[Heap]) -> Iterator[Headline]:
    findings = [finding for heap in heaps for finding in heap.findings]
    if findings:
        more = f" ({len(findings) - 1} more)" if len(findings) > 1 else ""
        yield Headline(HeadlineKind.DAMAGE, findings[0].message + more, ("heaps",))


def _page_heaps(heaps: Sequence[Heap], walk: Walk) -> Iterator[Headline]:
    walked = [heap for heap in heaps if heap.kind == HeapKind.PAGE and heap.index in walk.counts]
    committed = sum(heap.committed_bytes or 0 for heap in walked)
    if committed >= _BIG_BYTES:
        busy = sum(walk.counts[heap.index].busy_bytes for heap in walked)
        cost = f"commit {short_size(committed)} for {short_size(busy)} requested"
        sentence = f"page heap is on: its {plural(len(walked), 'heap')} {cost}"
        yield Headline(HeadlineKind.PAGE_HEAP, sentence, ("page-heap",))


def _large_blocks(heaps: Sequence[Heap], summary: Summary) -> Iterator[Headline]:
    for heap in sorted(heaps, key=lambda h: -(h.large_committed_bytes or 0))[:1]:
        large = heap.large_committed_bytes or 0
        total = large + (heap.committed_bytes or 0)
        is_big = not summary.is_whole_process or large >= _BIG_SHARE * summary.committed_bytes
        if large >= _BIG_BYTES and is_big:
            share = f"{short_size(large)} of the {short_size(total)} of heap {heap.address:#x}"
            sentence = f"{share} is in {plural(len(heap.large_blocks or ()), 'large block')}"
            yield Headline(HeadlineKind.LARGE_BLOCKS, sentence, ("virt-blocks", "--heap", f"{heap.address:#x}"))


def _big_heap(heaps: Sequence[Heap], summary: Summary) -> Iterator[Headline]:
    for heap in sorted((h for h in heaps if h.segments), key=lambda h: -(h.committed_bytes or 0))[:1]:
        committed = heap.committed_bytes or 0
        is_big = not summary.is_whole_process or committed >= _BIG_SHARE * summary.committed_bytes
        if committed >= _BIG_BYTES and is_big:
            size = f"heap {heap.address:#x} has {short_size(committed)} committed in segments"
            share = min(1.0, committed / summary.committed_bytes) if summary.is_whole_process else None
            of_all = "" if share is None else f", {share:.0%} of all committed memory"
            yield Headline(HeadlineKind.BIG_HEAP, size + of_all, ("heaps",))


def _unknown_memory(summary: Summary) -> Iterator[Headline]:
    for line in summary.reconciliation:
        if not line.item.is_known and line.bytes >= _BIG_BYTES and line.share is not None and line.share >= _BIG_SHARE:
            size = f"{short_size(line.bytes)} ({line.share:.0%})"
            sentence = f"{size} of committed memory belongs to no heap, stack or image"
            command = ("regions", "--usage", UNKNOWN, "--state", "commit")
            yield Headline(HeadlineKind.UNKNOWN_MEMORY, sentence, command)


def _address_space(process: Process, summary: Summary) -> Iterator[Headline]:
    free = summary.largest_allocatable
    if free is not None and any(view.arch == "x86" for view in process.views) and free.bytes < _TIGHT_BYTES:
        sentence = f"the largest free block of this 32-bit address space is {short_size(free.bytes)}"
        command = ("regions", "--state", "free", "--sort", "size")
        yield Headline(HeadlineKind.ADDRESS_SPACE, sentence, command)


def _free_in_heap(heaps: Sequence[Heap]) -> Iterator[Headline]:
    for heap in sorted(heaps, key=lambda h: -(h.free_bytes or 0))[:1]:
        free, committed = heap.free_bytes or 0, heap.committed_bytes or 0
        if free >= _BIG_BYTES and free > committed / 2:
            share = f"{short_size(free)} of the {short_size(committed)} committed in heap {heap.address:#x}"
            yield Headline(HeadlineKind.FREE_MEMORY, f"{share} is free: fragmentation", ("heaps", "--explain"))


def _leak_suspects(graph: GraphOverview | None) -> Iterator[Headline]:
    for suspect in graph.suspects if graph else ():
        if suspect.bytes >= _BIG_BYTES and suspect.share >= _BIG_SHARE:
            command = ("retained",) if suspect.address is None else ("retained", f"{suspect.address:#x}")
            yield Headline(HeadlineKind.LEAK_SUSPECT, suspect.sentence, command)
