"""Incidents in a line each, for pages that say more than what broke."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.frames import frames_of
from heapdump.commands.common.incident_report import incident_name
from heapdump.commands.common.verdict import verdict_style, verdict_words
from heapdump.render import text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.damage.incidents import Incident
    from heapdump.analyses.damage.verdict import Verdict
    from heapdump.commands.common.request import Request
    from heapdump.render.view import StyledLine
    from heapdump.snapshot import Snapshot

_MOST = 3


def known_incidents(snapshot: Snapshot) -> Sequence[Incident]:
    """The incidents by the findings of the walk and by Windows' reports, without a long check."""
    from heapdump.analyses.damage.incidents import find_incidents
    from heapdump.analyses.damage.verdict import damage_of_walk, is_quickly_checked

    if is_quickly_checked(snapshot.walk):
        return snapshot.incidents
    walked = damage_of_walk(snapshot.heaps, snapshot.walk)
    return find_incidents(snapshot.report_context, snapshot.crash, walked, (), snapshot.stacks.numbers)


def is_exception_alone(incident: Incident) -> bool:
    """True for a fast fail, a stack overflow and the like: the line of the exception says all of it."""
    return all(
        one.finding.kind == "exception" and not one.finding.heap and one.block is None for one in incident.findings
    )


def broken_lines(
    request: Request, snapshot: Snapshot, incidents: Sequence[Incident], verdict: Verdict, unseen: str = ""
) -> Iterator[StyledLine]:
    """What broke: damage and what Windows reported, the verdict where no damage was found, then warnings.

    A heap that a thread is changing has warnings and is sound. `unseen`: words behind the verdict.
    """
    grave = [one for one in incidents if one.is_error or one.leading.report is not None]
    least = "at least " if verdict.is_cut else ""
    yield from _incident_lines(request, snapshot, grave, least)
    if not any(one.is_error and one.leading.report is None for one in grave):
        yield [(verdict_words(verdict, is_more=bool(grave)) + unseen, verdict_style(verdict))]
    yield from _incident_lines(request, snapshot, [one for one in incidents if one not in grave], least)


def _incident_lines(
    request: Request, snapshot: Snapshot, incidents: Sequence[Incident], least: str
) -> Iterator[StyledLine]:
    """The gravest three, with who allocated the block at fault, and the number of the others.

    `least`: words in front of that number.
    """
    for one in incidents[:_MOST]:
        style = "red" if one.is_error else ""
        title = f"{incident_name(one)} at {one.address:#x}: " if one.bug else ""
        yield [(title, f"{style} bold"), (one.sentence, style)]
        if one.is_error and (allocated := _allocated(request, snapshot, one)):
            yield [(f"  {allocated}", "")]
    if len(incidents) > _MOST:
        yield [(f"{least}{text.plural(len(incidents) - _MOST, 'more incident')}", "")]


def _allocated(request: Request, snapshot: Snapshot, incident: Incident) -> str:
    """`allocated by app.exe!Load+0x14 ← Parse`, of the block at fault; "" where no stack was recorded."""
    from heapdump.analyses.allocated.stack_keys import passes_on, stack_key

    block = incident.culprit or incident.block or incident.leading.candidate
    frames = frames_of(request, snapshot, block) if block is not None else []
    verb = "freed by" if block is not None and block.state == "free" else "allocated by"
    return f"{verb} {stack_key(frames, passes_on(()))}" if frames else ""
