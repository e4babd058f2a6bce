"""One page for whoever has just got the dump: each statement with the command that proves it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from heapdump.analyses.allocated.leaks import Leaks
from heapdump.analyses.allocated.top_groups import top_groups
from heapdump.analyses.damage.explained import ExplainedFinding
from heapdump.analyses.graph.overview import GraphOverview
from heapdump.analyses.headlines import Headline
from heapdump.analyses.memory.capabilities import Capability
from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.summary import Summary
from heapdump.blocks.damage import UncheckedHeap, WhyUnchecked
from heapdump.blocks.heap import Heap
from heapdump.process.model import Process
from heapdump.wording import plural, short_size

Weight = Literal["bad", "good", "plain"]
_MOST_DAMAGE, _MOST_MEMORY, _MOST_SUSPECTS = 3, 5, 3
_SHARE, _BIG_SHARE = 0.05, 0.25


@dataclass(frozen=True, slots=True)
class Statement:
    """A sentence, and the arguments of the command that proves it; () where no command shows more."""

    text: str
    command: tuple[str, ...] = ()
    weight: Weight = "plain"


@dataclass(frozen=True, slots=True)
class Section:
    """A question and its statements."""

    title: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class TriageFacts:
    """The facts that the page is made of. `findings`: explained, errors first.

    `unchecked`: heaps that were not checked; `gaps`: the number of lines on what could not be walked or examined.
    `graph`: the overview of the pointer graph, None where there is none.
    """

    process: Process
    heaps: Sequence[Heap]
    summary: Summary
    headlines: Sequence[Headline]
    findings: Sequence[ExplainedFinding]
    unchecked: Sequence[UncheckedHeap]
    gaps: int
    leaks: Leaks
    graph: GraphOverview | None
    capabilities: Sequence[Capability]


def triage(facts: TriageFacts) -> tuple[Section, ...]:
    """The page, always with the same five questions."""
    return (
        Section("What happened?", tuple(_happened(facts))),
        Section("Is the heap damaged?", tuple(_damaged(facts))),
        Section("Where is the memory?", tuple(_memory(facts))),
        Section("Who holds it?", tuple(_holders(facts))),
        Section("What can this dump not tell?", tuple(_missing(facts))),
    )


def _happened(facts: TriageFacts) -> Iterator[Statement]:
    for finding in (explained.finding for explained in facts.findings if explained.finding.is_report):
        weight: Weight = "bad" if finding.is_error else "plain"
        yield Statement(finding.message, ("check", "--kind", finding.kind), weight)
    raised = facts.process.exception
    if raised is None:
        yield Statement("no exception: the dump was taken of a running process", ("threads", "--frames"))


def _damaged(facts: TriageFacts) -> Iterator[Statement]:
    damage = [explained for explained in facts.findings if not explained.finding.is_report]
    for explained in damage[:_MOST_DAMAGE]:
        bug, finding = f"{explained.bug}: " if explained.bug else "", explained.finding
        weight: Weight = "bad" if finding.is_error else "plain"
        yield Statement(bug + finding.message, ("check", "--address", f"{finding.address:#x}"), weight)
    if len(damage) > _MOST_DAMAGE:
        is_bad = any(explained.finding.is_error for explained in damage[_MOST_DAMAGE:])
        yield Statement(
            f"{plural(len(damage) - _MOST_DAMAGE, 'more place')} like these", ("check",), "bad" if is_bad else "plain"
        )
    if not damage:
        yield _no_damage(facts)


def _no_damage(facts: TriageFacts) -> Statement:
    if not facts.heaps:
        return Statement("nothing could be examined: this dump holds no heap's memory", ("info",))
    if len(facts.unchecked) == len(facts.heaps):
        return Statement("no heap could be checked", ("check",))
    # of a heap that was not verified or not walked a gap is counted already
    parts = facts.gaps + sum(one.why is WhyUnchecked.NO_CHECK for one in facts.unchecked)
    if parts:
        sentence = f"no damage in what this dump holds; {plural(parts, 'part')} could not be examined"
        return Statement(sentence, ("check",))
    return Statement("no damage found in any heap", ("check",), "good")


def _memory(facts: TriageFacts) -> Iterator[Statement]:
    committed = facts.summary.committed_bytes
    lines = sorted(facts.summary.reconciliation, key=lambda line: -line.bytes)
    for line in [line for line in lines if line.share >= _SHARE][:_MOST_MEMORY]:
        share = f"{line.share:.0%} of {short_size(committed)} committed"
        yield Statement(f"{short_size(line.bytes)} ({share}): {line.item.words}", ("summary",))
    yield from _managed(facts)
    for headline in facts.headlines:
        if headline.kind.is_about_memory:
            yield Statement(headline.sentence, headline.command)
    if not lines:
        yield Statement("not known: the dump has no memory map", ("info",))


def _managed(facts: TriageFacts) -> Iterator[Statement]:
    """Managed or native, where a managed runtime is loaded."""
    lines = facts.summary.reconciliation
    managed = sum(line.bytes for line in lines if line.item.is_managed)
    if managed:
        native = sum(line.bytes for line in lines if line.item.is_native_heap)
        objects = sum(line.bytes for line in lines if line.item is Item.MANAGED_HEAP)
        sentence = f"managed: {short_size(managed)}, of which the GC heap {short_size(objects)}"
        heaps = f"; native heaps: {short_size(native)}" if native else ""
        yield Statement(sentence + heaps, ("managed",))


def _holders(facts: TriageFacts) -> Iterator[Statement]:
    command = ("leaks", "--group-by", facts.leaks.by)
    sentences = top_groups(facts.leaks, facts.heaps)
    for sentence in sentences:
        yield Statement(sentence, command)
    if not sentences and facts.leaks.blocks:
        groups = plural(len(facts.leaks.groups), "group")
        yield Statement(f"{plural(facts.leaks.blocks, 'busy block')} in {groups}, none of which stands out", command)
    elif not sentences:
        yield Statement("no block of the program is in this dump", ("info",))
    if facts.leaks.blocks:
        yield from _graph(facts.graph)


def _graph(graph: GraphOverview | None) -> Iterator[Statement]:
    if graph is None:
        yield Statement(
            "which blocks nobody holds any more was not looked at: that means to read all of the heaps",
            ("leaks", "--unreachable"),
        )
        yield Statement("which few blocks keep the others alive was not looked at either", ("retained",))
        return
    weight: Weight = "bad" if graph.leaked.blocks and graph.is_complete else "plain"
    yield Statement(graph.sentence, ("leaks", "--unreachable"), weight)
    for suspect in [one for one in graph.suspects if one.share >= _BIG_SHARE][:_MOST_SUSPECTS]:
        command = ("retained",) if suspect.address is None else ("retained", f"{suspect.address:#x}")
        yield Statement(suspect.sentence, command)


def _missing(facts: TriageFacts) -> Iterator[Statement]:
    unanswered = [one for one in facts.capabilities if one.answer != "yes"]
    for one in unanswered:
        advice = f"; {one.advice}" if one.advice else ""
        yield Statement(f"{one.question} {one.answer}: {one.reason}{advice}", ("info",))
    if not unanswered:
        yield Statement("nothing that heapdump is asked", ("info",), "good")
