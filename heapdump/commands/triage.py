"""`triage`: one page for whoever has just got the dump."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from heapdump.commands.common.gaps import report_gaps, shown_damage, shown_unchecked, unchecked_lines, walk_gaps
from heapdump.commands.common.graph_overview import graph_overview, group_rows
from heapdump.commands.common.pointees import pointees_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.triage_page import page_of
from heapdump.commands.common.triage_record import triage_record
from heapdump.commands.common.unnamed_words import largest_memory
from heapdump.render.view import Answer, Record

if TYPE_CHECKING:
    from heapdump.analyses.locks import Hang
    from heapdump.analyses.triage.crash import CrashSection
    from heapdump.analyses.triage.page import Triage
    from heapdump.process.model import View
    from heapdump.process.stacks.frames import StackFrame
    from heapdump.process.symbols.namer import Namer
    from heapdump.snapshot import Snapshot

_CHEAP = 64 << 20
"""Bytes that are swept for pointers without being asked to."""


@dump_command("triage")
def command(request: Request) -> int:
    """One page: crash, hang or damage, and where the memory is.

    The first page on a new dump: the crash or the hang, the heap, the memory, who holds it, what this dump cannot tell,
    and the commands to go on with.

    \b
    heapdump triage crash.dmp
    """
    request.refuse_sorting("triage")
    with request.open() as snapshot:
        page = _triage(request, snapshot)
        unnamed = largest_memory(request, snapshot, page.memory.items)
        answer = Answer(
            "triage",
            data=lambda: triage_record(request, snapshot, page, unnamed),
            records=lambda: _records(triage_record(request, snapshot, page, unnamed)),
            page=lambda: page_of(request, snapshot, page, unnamed),
            gaps=(
                *walk_gaps(snapshot),
                *snapshot.damage.gaps,
                *report_gaps(snapshot),
                *unchecked_lines(snapshot.heaps, snapshot.damage.unchecked),
            ),
            shown=(
                *shown_damage(snapshot),
                *shown_unchecked(snapshot, snapshot.damage.unchecked),
                *(note for one in page.cannot for note in one.says),
            ),
        )
        return request.emit(snapshot, answer)


def _triage(request: Request, snapshot: Snapshot) -> Triage:
    from heapdump.analyses.locks import worst_hang
    from heapdump.analyses.memory.capabilities import capabilities
    from heapdump.analyses.memory.summary import summarize
    from heapdump.analyses.triage.page import TriageFacts, triage

    process, heaps = snapshot.process, snapshot.heaps
    hang = worst_hang(process, snapshot.locks)
    return triage(
        TriageFacts(
            process=process,
            heaps=heaps,
            summary=summarize(snapshot.usage, heaps, snapshot.walk),
            crash=_crash(request, snapshot),
            hang=hang,
            hang_frames=_owner_frames(request, snapshot, hang),
            verdict=snapshot.verdict(heaps, thorough=True),
            incidents=snapshot.incidents,
            gaps=len({*walk_gaps(snapshot), *snapshot.damage.gaps, *report_gaps(snapshot)}),
            leaks=group_rows(request, snapshot, None),
            graph=graph_overview(request, snapshot, _CHEAP),
            capabilities=capabilities(process, heaps),
            runtimes=snapshot.runtimes,
        )
    )


def _crash(request: Request, snapshot: Snapshot) -> CrashSection | None:
    from heapdump.analyses.by_hand.code import Code
    from heapdump.analyses.triage.crash import crash_section

    namer = snapshot.namer(request.image_path, request.symbol_path)
    frames = snapshot.crashed_frames(request.image_path, request.symbol_path)

    def code(view: View) -> Code:
        """Reads the code of a view."""
        return Code(snapshot.process, view, namer)

    found = crash_section(snapshot.process, frames, code, pointees_of(snapshot, namer).at)
    stop = snapshot.report_context.stop
    if found is not None and stop is not None:
        found = replace(found, words=stop.sentence)
    return found or _of_failure(snapshot, namer)


def _of_failure(snapshot: Snapshot, namer: Namer) -> CrashSection | None:
    """The crash of a dump without exception in which ntdll noted a heap failure."""
    from heapdump.analyses.threads import frames_of_thread
    from heapdump.analyses.triage.crash import failed_section

    failure = snapshot.report_context.failure
    if failure is None:
        return None
    thread = failure.thread_id
    frames = frames_of_thread(snapshot.process, thread, namer) if thread is not None else []
    return failed_section(failure, frames)


def _owner_frames(request: Request, snapshot: Snapshot, hang: Hang | None) -> list[StackFrame]:
    """The frames of the thread that owns the lock of the hang; none where it has ended."""
    from heapdump.analyses.threads import frames_of_thread

    if hang is None or hang.lock.section.owner is None:
        return []
    namer = snapshot.namer(request.image_path, request.symbol_path)
    return frames_of_thread(snapshot.process, hang.lock.section.owner, namer)


def _records(data: Record) -> Iterator[Record]:
    """A flat record for each statement: `section`, `name`, `bytes`, `text`."""
    for section in ("crash", "hang"):
        if data[section]:
            yield _flat(section, text=data[section]["text"])
    yield _flat("heap", text=data["heap"]["verdict"])
    for one in data["heap"]["incidents"]:
        yield _flat("heap", one["bug"] or one["severity"], None, one["text"])
    for item in data["memory"]["items"]:
        yield _flat("memory", item["item"], item["bytes"])
    for holder in data["who"]:
        yield _flat("who", holder["kind"], holder["bytes"], holder["text"])
    for question in data["cannot"]:
        yield _flat("cannot", question["question"], None, question["reason"])
    for command_line in data["next"]:
        yield _flat("next", text=command_line)


def _flat(section: str, name: str | None = None, size: int | None = None, text: str | None = None) -> Record:
    return {"section": section, "name": name, "bytes": size, "text": text}
