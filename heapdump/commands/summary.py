"""`summary`: what the process is, and where its memory went."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.commands.common.crash import crash_lines, crash_record
from heapdump.commands.common.gaps import heap_gaps, unchecked_lines
from heapdump.commands.common.graph_overview import graph_overview
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.verdict import verdict_line
from heapdump.commands.regions import usage_style
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.overview import GraphOverview
    from heapdump.analyses.headlines import Headline
    from heapdump.analyses.memory.reconciliation import ItemBytes
    from heapdump.analyses.memory.summary import Largest, Share, Summary
    from heapdump.snapshot import Snapshot

_CHEAP = 4 << 20
"""Bytes that are swept for pointers without being asked to."""


def share_columns(title: str, basis: str) -> tuple[Column[Share], ...]:
    """The columns of `!address -summary`, for one of its tables."""
    return (
        Column(title, lambda s: s.name, basis, style=lambda s: usage_style(s.name)),
        Column("RgnCount", lambda s: text.count(s.regions), "touching ranges with the same attributes", right=True),
        Column("TotalSize", lambda s: f"{s.bytes:#x}", "bytes, hex", right=True, rank=2),
        Column("Size", lambda s: text.size(s.bytes), "the same in units of 1024", right=True),
        Column("Committed", lambda s: text.size(s.committed_bytes), "the committed part", right=True, rank=3),
        Column("%ofBusy", lambda s: text.share(s.busy_share), "of everything that is not free", right=True),
        Column("%ofTotal", lambda s: text.share(s.total_share), "of the whole address space in the map", right=True),
    )


def _plain(columns: tuple[Column[Share], ...]) -> tuple[Column[Share], ...]:
    return tuple(column for column in columns if column.title != "Committed")


USAGE = share_columns("Usage", "by modules, TEBs, PEBs, heap lists (see `regions`)")
TYPE = _plain(share_columns("Type (busy)", "MemoryInfo Type of what is not free"))
STATE = _plain(share_columns("State", "MemoryInfo State"))
PROTECT = _plain(share_columns("Protect (commit)", "MemoryInfo Protect of committed memory"))
LARGEST: tuple[Column[Largest], ...] = (
    Column("Largest region by usage", lambda r: r.usage, "the usage", style=lambda r: usage_style(r.usage)),
    Column("BaseAddr", lambda r: f"{r.address:#x}", "where its largest region starts", right=True),
    Column("RgnSize", lambda r: f"{r.bytes:#x}", "bytes, hex", right=True, rank=1),
    Column("Size", lambda r: text.size(r.bytes), "the same in units of 1024", right=True),
)
RECONCILIATION: tuple[Column[ItemBytes], ...] = (
    Column("Committed memory is", lambda r: r.item.words, "each committed byte counts under exactly one item"),
    Column("Bytes", lambda r: text.count(r.bytes), "bytes", right=True),
    Column("Size", lambda r: text.size(r.bytes), "the same in units of 1024", right=True),
    Column("Share", lambda r: text.share(r.share), "of all committed memory", right=True),
)


@dump_command("summary")
def command(request: Request) -> int:
    """Where the memory of the process went.

    What the process is, then WinDbg's !address -summary tables, committed memory explained to the byte, and what
    stands out.

    \b
    heapdump summary crash.dmp
    heapdump summary crash.dmp --json | jq '.data.reconciliation'
    """
    from heapdump.analyses.headlines import HeadlineFacts, headlines
    from heapdump.analyses.memory.summary import summarize

    request.refuse_sorting("summary")
    with request.open() as snapshot:
        summary = summarize(snapshot.usage, snapshot.heaps, snapshot.walk)
        graph = graph_overview(request, snapshot, _CHEAP)
        facts = HeadlineFacts(snapshot.process, snapshot.heaps, snapshot.walk, summary, snapshot.crash, graph)
        found = headlines(facts)
        answer = Answer(
            "summary",
            data=lambda: _data(request, snapshot, summary, found, graph),
            records=lambda: _records(summary),
            page=lambda: _page(request, snapshot, summary, found, graph),
            gaps=(
                *snapshot.gaps,
                *heap_gaps(snapshot.heaps),
                *snapshot.walk.gaps,
                *unchecked_lines(snapshot.heaps, snapshot.verdict(snapshot.heaps).unchecked),
            ),
        )
        return request.emit(snapshot, answer)


def process_record(snapshot: Snapshot) -> Record:
    """What the process is."""
    process, header = snapshot.process, snapshot.dump.directory.header
    raised, misc = process.exception, process.misc
    return {
        "image": process.image,
        "command_line": process.command_line,
        "pid": process.pid,
        "arch": process.arch,
        "windows": process.windows.name,
        "build": process.windows.build,
        "revision": process.windows.revision,
        "build_witness": process.windows.witness,
        "dump_time": header.timestamp or None,
        "create_time": misc.create_time if misc else None,
        "uptime_seconds": _uptime(snapshot),
        "dump_flags": list(header.flag_words),
        "threads": len(process.threads),
        "modules": len(process.modules),
        "exception": None
        if raised is None
        else {
            "code": f"{raised.code:#010x}",
            "words": process.exception_words,
            "thread": raised.thread_id,
            "address": hex(raised.address),
            "where": process.where(raised.address),
            "parameters": [hex(value) for value in raised.parameters],
        },
    }


def _uptime(snapshot: Snapshot) -> int | None:
    """Seconds between the process's start and the dump; None where one is not recorded or they contradict."""
    created = snapshot.process.misc.create_time if snapshot.process.misc else None
    dumped = snapshot.dump.directory.header.timestamp
    return dumped - created if created and dumped >= created else None


def _share_record(row: Share) -> Record:
    record: Record = {
        "name": row.name,
        "regions": row.regions,
        "bytes": row.bytes,
        "busy_share": row.busy_share,
        "total_share": row.total_share,
    }
    if row.committed_bytes is not None:
        record |= {"committed_bytes": row.committed_bytes, "reserved_bytes": row.reserved_bytes}
    return record


def _data(
    request: Request, snapshot: Snapshot, summary: Summary, found: tuple[Headline, ...], graph: GraphOverview | None
) -> Record:
    free = summary.largest_allocatable
    return {
        "process": process_record(snapshot),
        "usage": [_share_record(row) for row in summary.usage],
        "type": [_share_record(row) for row in summary.type],
        "state": [_share_record(row) for row in summary.state],
        "protect": [_share_record(row) for row in summary.protect],
        "largest": [{"usage": r.usage, "address": hex(r.address), "bytes": r.bytes} for r in summary.largest],
        "largest_allocatable": {"address": hex(free.address), "bytes": free.bytes} if free else None,
        "committed_bytes": summary.committed_bytes,
        "explained_share": summary.explained_share,
        "reconciliation": [{"item": r.item.words, "bytes": r.bytes, "share": r.share} for r in summary.reconciliation],
        "findings": [headline.text for headline in found],
        "crash": crash_record(request, snapshot),
        "verdict": snapshot.verdict(snapshot.heaps).text,
        "unreachable": None
        if graph is None
        else {
            "blocks": graph.leaked.blocks,
            "bytes": graph.leaked.bytes,
            "direct_blocks": graph.direct.blocks,
            "is_whole": graph.is_complete,
        },
    }


def _records(summary: Summary) -> Iterator[Record]:
    """Every row of every table, flat."""
    for table in ("usage", "type", "state", "protect"):
        for row in getattr(summary, table):
            yield {
                "table": table,
                **_share_record(row),
                "committed_bytes": row.committed_bytes,
                "reserved_bytes": row.reserved_bytes,
            }
    for item in summary.reconciliation:
        row_record = {"table": "reconciliation", "name": item.item.words, "regions": None, "bytes": item.bytes}
        yield row_record | {
            "busy_share": None,
            "total_share": None,
            "committed_bytes": item.bytes,
            "reserved_bytes": None,
        }


def _page(
    request: Request, snapshot: Snapshot, summary: Summary, found: tuple[Headline, ...], graph: GraphOverview | None
) -> Iterator[PageItem]:
    yield Lines(list(process_lines(snapshot)))
    yield Lines([verdict_line(snapshot.verdict(snapshot.heaps), ("check",))])
    if graph is not None:
        style = "yellow" if graph.leaked.blocks and graph.is_complete else ""
        yield Lines([[(graph.sentence, style), (" → heapdump leaks --unreachable", "cyan")]])
    if snapshot.crash is not None:
        yield Lines(crash_lines(request, snapshot, snapshot.crash))
    if found:
        yield Lines([[("• " + headline.sentence, ""), (f" → {headline.command_line}", "cyan")] for headline in found])
    yield Table(USAGE, summary.usage, empty="no memory is known")
    for columns, rows in ((TYPE, summary.type), (STATE, summary.state), (PROTECT, summary.protect)):
        if rows:
            shown, hidden = request.shown(rows)
            yield Table(columns, shown, hidden=hidden)
    if summary.largest:
        yield Table(LARGEST, summary.largest)
    if summary.largest_allocatable:
        free = summary.largest_allocatable
        yield Lines(
            [[(f"largest allocatable block: {text.size(free.bytes)} at {free.address:#x} (64 kB aligned)", "")]]
        )
    if summary.reconciliation:
        yield Table(RECONCILIATION, summary.reconciliation)
        share = summary.explained_share or 0
        yield Lines([[(f"{share:.2%} of {summary.committed_bytes:,} committed bytes explained", "bold")]])


def process_lines(snapshot: Snapshot) -> Iterator[list[tuple[str, str]]]:
    """What the process is, for a person."""
    record, process = process_record(snapshot), snapshot.process
    name = (process.image or "unknown image").replace("/", "\\").rpartition("\\")[2]
    pid = "unknown" if process.pid is None else str(process.pid)
    yield [(name, "bold"), (f"  pid {pid}  {process.arch}  {process.windows.name}", "")]
    if process.image:
        yield [(process.command_line or process.image, "dim")]
    times = []
    if record["dump_time"]:
        times.append(
            f"dumped {datetime.datetime.fromtimestamp(record['dump_time'], datetime.UTC):%Y-%m-%d %H:%M:%S} UTC"
        )
    if record["uptime_seconds"] is not None:
        times.append(f"up {_duration(record['uptime_seconds'])}")
    counts = f"{text.plural(record['threads'], 'thread')}, {text.plural(record['modules'], 'module')}"
    yield [(", ".join([*times, counts]), "")]
    words = ", ".join(record["dump_flags"])
    yield [
        (
            f"dump with {words}; {text.size(snapshot.dump.file_bytes)}, {text.size(process.space.total_bytes)} of memory",
            "",
        )
    ]
    if record["exception"]:
        raised = record["exception"]
        yield [
            (f"exception {raised['code']}: {raised['words']}", "red"),
            (f", thread {raised['thread']:#x}, at {raised['where']}", ""),
        ]


def _duration(seconds: int) -> str:
    """`2 d 3 h`, `13 min 5 s`."""
    units = [(seconds // 86400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    shown = [f"{value} {unit}" for value, unit in units if value]
    return " ".join(shown[:2]) or "0 s"
