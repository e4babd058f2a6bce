"""The few sentences on top of everything: what stands out, and the command that shows more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.analyses.damage.crash import Crash
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.analyses.memory.summary import Summary
from heapdump.analyses.memory.usage import UNKNOWN
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import HeapKind
from heapdump.blocks.walk import Walk
from heapdump.process.model import Process
from heapdump.wording import plural, short_size

MOST = 5
_BIG_SHARE = 0.25
_BIG_BYTES = 1 << 20
_TIGHT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Headline:
    """A plain sentence, and the arguments of the command that shows more."""

    sentence: str
    command: tuple[str, ...]

    @property
    def text(self) -> str:
        """`sentence → heapdump command`."""
        return f"{self.sentence} → heapdump {' '.join(_quoted(word) for word in self.command)}"


def headlines(
    process: Process,
    heaps: Sequence[Heap],
    walk: Walk,
    summary: Summary,
    crash: Crash | None,
    held: GraphOverview | None = None,
) -> tuple[Headline, ...]:
    """At most five, the gravest first. `held`: what the pointer graph says, where it was made."""
    every = (
        *_crashed(crash), *_damage(heaps), *_page_heaps(heaps, walk), *_large_blocks(heaps, summary),
        *_big_heap(heaps, summary), *_unknown_memory(summary), *_address_space(process, summary), *_free_in_heap(heaps), *_leak_suspects(held),
    )  # fmt: skip
    return every[:MOST]


def _quoted(word: str) -> str:
    return f"'{word}'" if set(word) & set("<> ") else word


def _damage(heaps: Sequence[Heap]) -> Iterator[Headline]:
    broken = [heap for heap in heaps if heap.findings]
    if broken:
        first = broken[0].findings[0].message
        more = sum(len(heap.findings) for heap in broken) - 1
        yield Headline(first + (f" ({more} more)" if more else ""), ("heaps",))


def _crashed(crash: Crash | None) -> Iterator[Headline]:
    if crash is not None:
        yield Headline(f"{crash.bug} ({crash.code:#x}): {crash.sentence}", ("block", f"{crash.block.address:#x}"))


def _page_heaps(heaps: Sequence[Heap], walk: Walk) -> Iterator[Headline]:
    mine = [heap for heap in heaps if heap.kind == HeapKind.PAGE and heap.index in walk.counts]
    committed = sum(heap.committed_bytes or 0 for heap in mine)
    if committed >= _BIG_BYTES:
        busy = sum(walk.counts[heap.index].busy_bytes for heap in mine)
        sentence = f"page heap is on: its {plural(len(mine), 'heap')} commit {short_size(committed)} for {short_size(busy)} requested"
        yield Headline(sentence, ("page-heap",))


def _large_blocks(heaps: Sequence[Heap], summary: Summary) -> Iterator[Headline]:
    for heap in sorted(heaps, key=lambda h: -(h.large_committed_bytes or 0))[:1]:
        large = heap.large_committed_bytes or 0
        whole = large + (heap.committed_bytes or 0)
        if large >= _BIG_BYTES and large >= _BIG_SHARE * summary.committed_bytes:
            command = ("virt-blocks", "--heap", f"{heap.address:#x}")
            blocks = plural(len(heap.large_blocks or ()), "large block")
            yield Headline(
                f"{short_size(large)} of the {short_size(whole)} of heap {heap.address:#x} is in {blocks}", command
            )


def _big_heap(heaps: Sequence[Heap], summary: Summary) -> Iterator[Headline]:
    for heap in sorted((h for h in heaps if h.segments), key=lambda h: -(h.committed_bytes or 0))[:1]:
        committed = heap.committed_bytes or 0
        if committed >= _BIG_BYTES and committed >= _BIG_SHARE * summary.committed_bytes:
            share = min(1.0, committed / summary.committed_bytes)
            sentence = f"heap {heap.address:#x} has {short_size(committed)} committed in segments, {share:.0%} of all committed memory"
            yield Headline(sentence, ("heaps",))


def _unknown_memory(summary: Summary) -> Iterator[Headline]:
    for item in summary.reconciliation:
        if item.item.startswith("unknown") and item.bytes >= _BIG_BYTES and item.share >= _BIG_SHARE:
            sentence = (
                f"{short_size(item.bytes)} ({item.share:.0%}) of committed memory belongs to no heap, stack or image"
            )
            yield Headline(sentence, ("regions", "--usage", UNKNOWN, "--state", "commit"))


def _address_space(process: Process, summary: Summary) -> Iterator[Headline]:
    free = summary.largest_allocatable
    if free is not None and any(view.arch == "x86" for view in process.views) and free.bytes < _TIGHT_BYTES:
        sentence = f"the largest free block of this 32-bit address space is {short_size(free.bytes)}"
        yield Headline(sentence, ("regions", "--state", "free", "--sort", "size", "--reverse"))


def _free_in_heap(heaps: Sequence[Heap]) -> Iterator[Headline]:
    for heap in sorted(heaps, key=lambda h: -(h.free_bytes or 0))[:1]:
        free, committed = heap.free_bytes or 0, heap.committed_bytes or 0
        if free >= _BIG_BYTES and free > committed / 2:
            sentence = f"{short_size(free)} of the {short_size(committed)} committed in heap {heap.address:#x} is free: fragmentation"
            yield Headline(sentence, ("heaps", "--explain"))


def _leak_suspects(held: GraphOverview | None) -> Iterator[Headline]:
    for suspect in held.suspects if held else ():
        if suspect.bytes >= _BIG_BYTES and suspect.share >= _BIG_SHARE:
            yield Headline(
                suspect.sentence, ("retained",) if suspect.address is None else ("retained", f"{suspect.address:#x}")
            )
