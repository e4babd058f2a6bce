"""`info`: what is in the file, and what it can answer."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.commands.common.capture import capture_lines
from heapdump.commands.common.counters import counter_lines, counters_record, system_record
from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, StyledLine, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.memory.capabilities import Capability
    from heapdump.dump.directory import Stream
    from heapdump.snapshot import Snapshot

STREAMS: tuple[Column[Stream], ...] = (
    Column("Stream", lambda s: str(s.number) if s.number < 0x8000 else f"{s.number:#x}", "stream number in the directory", right=True),
    Column("What", lambda s: s.name, "MINIDUMP_STREAM_TYPE in words; vendors' streams as hex", style="bold"),
    size_column("Size", lambda s: s.size, "DataSize of the directory entry"),
    Column("Offset", lambda s: f"{s.offset:#x}", "where it starts in the file", right=True, rank=1),
    Column("", lambda s: "cut" if s.present < s.size else "", "cut = ends at the end of the file", style="red"),
)  # fmt: skip

_OPERATIONS = {1: "open", 2: "close", 3: "bad reference"}
"""eAvrfHandleOperation → the word."""

_ANSWER_STYLES = {"yes": "green", "partly": "yellow", "no": "red"}


@dump_command("info")
def command(request: Request) -> int:
    """What is in the dump file, and what it can answer.

    \b
    heapdump info crash.dmp
    """
    from heapdump.analyses.memory.capabilities import capabilities

    request.refuse_sorting("info")
    with request.open() as snapshot:
        questions = capabilities(snapshot.process, snapshot.heaps)
        answer = Answer(
            "info",
            data=lambda: _data(snapshot, questions),
            records=lambda: (_question(question) for question in questions),
            page=lambda: _page(snapshot, questions),
            notes=(*snapshot.gaps, *snapshot.dump.remarks),
        )
        return request.emit(snapshot, answer)


def _question(question: Capability) -> Record:
    capture = question.capture
    return {
        "id": question.topic,
        "question": question.title,
        "answer": question.answer,
        "reason": question.reason,
        "advice": question.advice or None,
        "capture": capture.command if capture else None,
        "estimated_bytes": capture.estimated_bytes if capture else None,
    }


def _data(snapshot: Snapshot, questions: Sequence[Capability]) -> Record:
    header, streams = snapshot.dump.directory.header, snapshot.dump.directory.streams
    process = snapshot.process
    return {
        "header": {
            "timestamp": header.timestamp or None,
            "flags": hex(header.flags),
            "flag_names": list(header.flag_words),
            "memory_bytes": process.space.total_bytes,
            "memory_ranges": len(process.space.mapped.starts),
            "missing_bytes": process.missing_bytes,
        },
        "streams": [
            {"number": s.number, "name": s.name, "bytes": s.size, "offset": s.offset, "present": s.present}
            for s in streams
        ],
        "questions": [_question(question) for question in questions],
        "counters": counters_record(process),
        "system_memory": system_record(process),
        "handle_operations": [
            {
                "handle": hex(one.handle),
                "process": one.process,
                "thread": one.thread,
                "operation": _OPERATIONS.get(one.operation, str(one.operation)),
                "frames": [hex(address) for address in one.frames],
            }
            for one in snapshot.dump.handle_operations
        ],
        "comments": list(snapshot.dump.comments),
        "unloaded_modules": [
            {"name": m.name, "address": hex(m.span.start), "size": m.span.size} for m in process.unloaded
        ],
    }


def _question_lines(question: Capability) -> list[StyledLine]:
    """Answer and question, the reason, and how to capture a dump that answers it."""
    answer = (f"{question.answer:<8}", _ANSWER_STYLES[question.answer])
    margin = (" " * 8, "")
    lines: list[StyledLine] = [[answer, (question.title, "")], [margin, (question.reason, "dim")]]
    return lines + [[margin, *line] for line in (capture_lines([question]) if question.answer != "yes" else ())]


def _page(snapshot: Snapshot, questions: Sequence[Capability]) -> Iterator[PageItem]:
    header, process = snapshot.dump.directory.header, snapshot.process
    ranges = text.plural(len(process.space.mapped.starts), "range")
    when = f"{datetime.datetime.fromtimestamp(header.timestamp, datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
    lines: list[list[tuple[str, str]]] = [
        [(str(snapshot.dump.path), "bold"), (f"  {text.size(snapshot.dump.file_bytes)}", "")],
        [(f"written {when if header.timestamp else 'at an unknown time'}, with {', '.join(header.flag_words)}", "")],
        [(f"{process.arch}, {process.windows.name}, build known from {process.windows.witness}", "")],
        [(f"{text.size(process.space.total_bytes)} of memory in {ranges}", "")],
        *([(line, "")] for line in counter_lines(process)),
    ]
    operations = snapshot.dump.handle_operations
    if operations:
        lines.append([(f"{text.plural(len(operations), 'handle operation')}, recorded by Application Verifier", "")])
    lines += [[("comment: ", "bold"), (comment, "")] for comment in snapshot.dump.comments]
    yield Lines(lines)
    yield Table(STREAMS, snapshot.dump.directory.streams, empty="the directory is empty")
    yield Lines([line for question in questions for line in _question_lines(question)])
    remarks = (*snapshot.gaps, *snapshot.dump.remarks)
    if remarks:
        yield Lines([[("Noticed:", "bold")], *([("  " + words, "")] for words in remarks)])
