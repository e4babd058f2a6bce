"""`triage`: one page for whoever has just got the dump."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.gaps import unchecked_lines, walk_gaps
from heapdump.commands.common.graph_overview import graph_overview, group_rows
from heapdump.commands.common.process import process_lines
from heapdump.commands.common.request import Request, dump_command
from heapdump.render.view import Answer, Lines, PageItem, Record

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.allocated.leaks import Leaks
    from heapdump.analyses.triage import Section, Statement
    from heapdump.snapshot import Snapshot

_CHEAP = 64 << 20
"""Bytes that are swept for pointers without being asked to."""

_STYLES = {"bad": "red", "good": "green", "plain": ""}


@dump_command("triage")
def command(request: Request) -> int:
    """One page: what happened, is the heap damaged, where is the memory.

    For whoever has just got the dump. Each statement comes with the command that proves it.

    \b
    heapdump triage crash.dmp
    """
    request.refuse_sorting("triage")
    with request.open() as snapshot:
        sections = _sections(request, snapshot)
        answer = Answer(
            "triage",
            data=lambda: {"sections": [_section(section) for section in sections]},
            records=lambda: (
                {"section": section.title, **_statement(said)} for section in sections for said in section.statements
            ),
            page=lambda: _page(snapshot, sections),
            gaps=(
                *walk_gaps(snapshot),
                *snapshot.damage.gaps,
                *unchecked_lines(snapshot.heaps, snapshot.damage.unchecked),
            ),
        )
        return request.emit(snapshot, answer)


def _sections(request: Request, snapshot: Snapshot) -> tuple[Section, ...]:
    from heapdump.analyses.headlines import HeadlineFacts, headlines
    from heapdump.analyses.memory.capabilities import capabilities
    from heapdump.analyses.memory.summary import summarize
    from heapdump.analyses.triage import TriageFacts, triage

    process, heaps = snapshot.process, snapshot.heaps
    summary = summarize(snapshot.usage, heaps, snapshot.walk)
    found = headlines(HeadlineFacts(process, heaps, snapshot.walk, summary, snapshot.crash))
    questions = capabilities(process, heaps, snapshot.dump.directory.header.flags)
    gaps = len({*walk_gaps(snapshot), *snapshot.damage.gaps})
    leaks, graph = _leaks(request, snapshot), graph_overview(request, snapshot, _CHEAP)
    return triage(
        TriageFacts(
            process=process,
            heaps=heaps,
            summary=summary,
            headlines=found,
            findings=snapshot.explained_findings,
            unchecked=snapshot.damage.unchecked,
            gaps=gaps,
            leaks=leaks,
            graph=graph,
            capabilities=questions,
        )
    )


def _leaks(request: Request, snapshot: Snapshot) -> Leaks:
    from heapdump.analyses.blocks.select import Filter, select

    return group_rows(request, snapshot, select(snapshot.walk.table, snapshot.heaps, Filter()))


def _section(section: Section) -> Record:
    return {"question": section.title, "statements": [_statement(said) for said in section.statements]}


def _statement(said: Statement) -> Record:
    return {"text": said.text, "command": f"heapdump {' '.join(said.command)}" if said.command else None}


def _page(snapshot: Snapshot, sections: tuple[Section, ...]) -> Iterator[PageItem]:
    yield Lines(list(process_lines(snapshot)))
    for section in sections:
        lines = [[(section.title, "bold")]]
        for said in section.statements:
            command_words = f" → heapdump {' '.join(said.command)}" if said.command else ""
            lines.append([("• " + said.text, _STYLES[said.weight]), (command_words, "cyan")])
        yield Lines(lines)
