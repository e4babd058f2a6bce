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
from heapdump.analyses.memory.capabilities import Question
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
    """A sentence, and the arguments of the command that proves it; none where nothing more is to be seen."""

    text: str
    command: tuple[str, ...] = ()
    weight: Weight = "plain"


@dataclass(frozen=True, slots=True)
class Section:
    """A question and its statements."""

    title: str
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class Known:
    """What the page is made of. `unchecked`: heaps that were not checked; `unexamined`: parts of others that could not be.

    `held`: what the pointer graph says, None where it was not made.
    """

    process: Process
    heaps: Sequence[Heap]
    summary: Summary
    headlines: Sequence[Headline]
    findings: Sequence[ExplainedFinding]
    unchecked: Sequence[UncheckedHeap]
    unexamined: int
    leaks: Leaks
    held: GraphOverview | None
    questions: Sequence[Question]


def triage(known: Known) -> tuple[Section, ...]:
    """The page, always with the same five questions."""
    return (
        Section("What happened?", tuple(_happened(known))),
        Section("Is the heap damaged?", tuple(_damaged(known))),
        Section("Where is the memory?", tuple(_memory(known))),
        Section("Who holds it?", tuple(_holders(known))),
        Section("What can this dump not tell?", tuple(_missing(known))),
    )


def _happened(known: Known) -> Iterator[Statement]:
    for finding in (explained.finding for explained in known.findings if explained.finding.is_report):
        weight: Weight = "bad" if finding.is_error else "plain"
        yield Statement(finding.message, ("check", "--kind", finding.kind), weight)
    raised = known.process.exception
    if raised is None:
        yield Statement("no exception: the dump was taken of a running process", ("threads", "--frames"))


def _damaged(known: Known) -> Iterator[Statement]:
    damage = [explained for explained in known.findings if not explained.finding.is_report]
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
        yield _no_damage(known)


def _no_damage(known: Known) -> Statement:
    if not known.heaps:
        return Statement("nothing could be examined: this dump holds no heap's memory", ("info",))
    if len(known.unchecked) == len(known.heaps):
        return Statement("no heap could be checked", ("check",))
    # a heap that was not verified or not walked is a part that could not be examined already
    parts = known.unexamined + sum(one.why is WhyUnchecked.NO_CHECK for one in known.unchecked)
    if parts:
        sentence = f"no damage in what this dump holds; {plural(parts, 'part')} could not be examined"
        return Statement(sentence, ("check",))
    return Statement("no damage found in any heap", ("check",), "good")


def _memory(known: Known) -> Iterator[Statement]:
    committed = known.summary.committed_bytes
    items = sorted(known.summary.reconciliation, key=lambda item: -item.bytes)
    for item in [item for item in items if item.share >= _SHARE][:_MOST_MEMORY]:
        yield Statement(
            f"{short_size(item.bytes)} ({item.share:.0%} of {short_size(committed)} committed): {item.item}",
            ("summary",),
        )
    told = tuple(explained.finding.message for explained in known.findings)
    for headline in known.headlines:
        if headline.command[0] not in ("block", "summary", "retained") and not headline.sentence.startswith(told):
            yield Statement(headline.sentence, headline.command)
    if not items:
        yield Statement("not known: the dump has no memory map", ("info",))


def _holders(known: Known) -> Iterator[Statement]:
    command = ("leaks", "--group-by", known.leaks.by)
    sentences = top_groups(known.leaks, known.heaps)
    for sentence in sentences:
        yield Statement(sentence, command)
    if not sentences and known.leaks.blocks:
        groups = plural(len(known.leaks.groups), "group")
        yield Statement(f"{plural(known.leaks.blocks, 'busy block')} in {groups}, none of which stands out", command)
    elif not sentences:
        yield Statement("no block of the program is in this dump", ("info",))
    if known.leaks.blocks:
        yield from _held(known.held)


def _held(held: GraphOverview | None) -> Iterator[Statement]:
    if held is None:
        yield Statement(
            "which blocks nobody holds any more was not looked at: that means to read all of the heaps",
            ("leaks", "--unreachable"),
        )
        yield Statement("which few blocks keep the others alive was not looked at either", ("retained",))
        return
    weight: Weight = "bad" if held.leaked.blocks and held.is_complete else "plain"
    yield Statement(held.sentence, ("leaks", "--unreachable"), weight)
    for suspect in [one for one in held.suspects if one.share >= _BIG_SHARE][:_MOST_SUSPECTS]:
        yield Statement(
            suspect.sentence, ("retained",) if suspect.address is None else ("retained", f"{suspect.address:#x}")
        )


def _missing(known: Known) -> Iterator[Statement]:
    open_questions = [question for question in known.questions if question.answer != "yes"]
    for question in open_questions:
        advice = f"; {question.advice}" if question.advice else ""
        yield Statement(
            f"{question.question.partition(' (')[0]} {question.answer}: {question.reason}{advice}", ("info",)
        )
    if not open_questions:
        yield Statement("nothing that heapdump is asked", ("info",), "good")
