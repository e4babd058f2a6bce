"""`summary`: what the process is, and where its memory went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from heapdump.commands.common.crash import crash_record
from heapdump.commands.common.gaps import report_gaps, shown_unchecked, unchecked_lines, walk_gaps
from heapdump.commands.common.graph_overview import graph_overview
from heapdump.commands.common.incident_lines import broken_lines, is_exception_alone, known_incidents
from heapdump.commands.common.locks import lock_sentence
from heapdump.commands.common.next_command import arrow, command_text
from heapdump.commands.common.process import process_lines, process_record
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.regions import usage_style
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, StyledLine, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.overview import GraphOverview
    from heapdump.analyses.headlines import Headline
    from heapdump.analyses.memory.reconciliation import ItemBytes
    from heapdump.analyses.memory.summary import Largest, Share, Summary
    from heapdump.analyses.memory.unknown_memory import OwnerShare
    from heapdump.snapshot import Snapshot

_BAR = 30
_CHEAP = 4 << 20
"""Bytes that are swept for pointers without being asked to."""


def share_columns(title: str, basis: str) -> tuple[Column[Share], ...]:
    """The columns of `!address -summary`, for one of its tables."""
    return (
        Column(title, lambda s: s.name, basis, style=lambda s: usage_style(s.name)),
        Column("RgnCount", lambda s: text.count(s.regions), "touching ranges with the same attributes", right=True),
        Column("TotalSize", lambda s: f"{s.bytes:#x}", "bytes, hex", right=True, rank=2),
        size_column("Size", lambda s: s.bytes, "the same in units of 1024"),
        size_column("Committed", lambda s: s.committed_bytes, "the committed part", rank=3),
        Column("%ofBusy", lambda s: text.exact_share(s.busy_share), "of everything that is not free", right=True),
        Column(
            "%ofTotal", lambda s: text.exact_share(s.total_share), "of the whole address space in the map", right=True
        ),
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
    size_column("Size", lambda r: r.bytes, "the same in units of 1024"),
)

OWNERS: tuple[Column[OwnerShare], ...] = (
    Column("<unknown> is", lambda r: r.owner, "by runtimes, and by evidence in reservations and contents"),
    Column("RgnCount", lambda r: text.count(r.regions), "touching ranges with the same attributes", right=True),
    Column("TotalSize", lambda r: f"{r.bytes:#x}", "bytes, hex", right=True, rank=2),
    size_column("Size", lambda r: r.bytes, "the same in units of 1024"),
    size_column("Committed", lambda r: r.committed_bytes, "the committed part"),
    Column("Evidence", lambda r: r.evidence, "of a recognised owner, in its first range", rank=3, flexible=24),
)


def reconciliation_columns(summary: Summary) -> tuple[Column[ItemBytes], ...]:
    """The columns of the reconciliation; shares where the committed memory of the process is known."""
    title = "Committed memory is" if summary.is_whole_process else "Memory in the dump is"
    share: Column[ItemBytes] = Column("Share", lambda r: text.share(r.share), "of all committed memory", right=True)
    most = max((row.bytes for row in summary.reconciliation), default=0)
    return (
        Column(title, lambda r: r.words, "each byte counts under exactly one item", flexible=30, wraps=True),
        size_column("Size", lambda r: r.bytes, "bytes of it"),
        *((share,) if summary.is_whole_process else ()),
        Column("", lambda r: text.bar(r.bytes, most, _BAR), "relative to the largest item", rank=1, style="cyan"),
    )


@dump_command("summary")
def command(request: Request) -> int:
    """Where the memory of the process went.

    What the process is, what broke, what stands out, committed memory explained to the byte; then the tables of
    WinDbg's !address -summary.

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
        found = _SummaryPage(request, snapshot, summary, graph, headlines(facts))
        return request.emit(snapshot, found.answer())


def _totals(snapshot: Snapshot, summary: Summary) -> list[str]:
    """The sum of the items; beside Windows' counter the private memory of the map, as a third witness."""
    total, counters = f"{summary.committed_bytes:,}", snapshot.process.counters
    if not summary.is_whole_process:
        return [f"{total} bytes of memory in the dump; how much the process has committed is not known"]
    lines = [f"{summary.explained_share or 0:.2%} of {total} committed bytes explained"]
    if counters is not None and counters.private is not None and summary.private_bytes is not None:
        mapped = f"the map has {summary.private_bytes:,} committed private bytes"
        lines.append(f"{mapped}; Windows counts {counters.private:,} (with written image pages and page tables)")
    return lines


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


def _owner_record(row: OwnerShare) -> Record:
    return {
        "owner": row.owner, "regions": row.regions, "bytes": row.bytes, "committed_bytes": row.committed_bytes,
        "trust": row.trust, "evidence": row.evidence or None,
    }  # fmt: skip


@dataclass(frozen=True)
class _SummaryPage:
    """The summary and what stands above it; `graph`: None where the pointer graph is not made."""

    request: Request
    snapshot: Snapshot
    summary: Summary
    graph: GraphOverview | None
    headlines: tuple[Headline, ...]

    def answer(self) -> Answer:
        """The answer of the command."""
        snapshot = self.snapshot
        unchecked = snapshot.verdict(snapshot.heaps).unchecked
        gaps = (*walk_gaps(snapshot), *report_gaps(snapshot))
        return Answer(
            "summary", data=self._data, records=self._records, page=self._page,
            gaps=(*gaps, *unchecked_lines(snapshot.heaps, unchecked)),
            shown=(*(found.message for found in snapshot.walk.findings), *shown_unchecked(snapshot, unchecked)),
        )  # fmt: skip

    def _data(self) -> Record:
        snapshot, summary, graph = self.snapshot, self.summary, self.graph
        free = summary.largest_allocatable
        return {
            "process": process_record(self.request, snapshot),
            "usage": [_share_record(row) for row in summary.usage],
            "type": [_share_record(row) for row in summary.type],
            "state": [_share_record(row) for row in summary.state],
            "protect": [_share_record(row) for row in summary.protect],
            "unknown": [_owner_record(row) for row in summary.unknown],
            "largest": [{"usage": r.usage, "address": hex(r.address), "bytes": r.bytes} for r in summary.largest],
            "largest_allocatable": {"address": hex(free.address), "bytes": free.bytes} if free else None,
            "committed_bytes": summary.committed_bytes if summary.is_whole_process else None,
            "in_dump_bytes": summary.committed_bytes,
            "private_bytes": summary.private_bytes,
            "explained_share": summary.explained_share,
            "reconciliation": [
                {"item": line.words, "bytes": line.bytes, "share": line.share} for line in summary.reconciliation
            ],
            "findings": [f"{one.sentence} → {command_text(snapshot, one.command)}" for one in self.headlines],
            "crash": crash_record(self.request, snapshot),
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

    def _records(self) -> Iterator[Record]:
        """Every row of every table, flat."""
        summary = self.summary
        tables = {"usage": summary.usage, "type": summary.type, "state": summary.state, "protect": summary.protect}
        for table, rows in tables.items():
            for row in rows:
                sizes = {"committed_bytes": row.committed_bytes, "reserved_bytes": row.reserved_bytes}
                yield {"table": table, **_share_record(row), **sizes}
        for line in summary.reconciliation:
            yield {
                "table": "reconciliation", "name": line.words, "regions": None, "bytes": line.bytes,
                "busy_share": None, "total_share": None, "committed_bytes": line.bytes, "reserved_bytes": None,
            }  # fmt: skip

    def _page(self) -> Iterator[PageItem]:
        request, snapshot, summary = self.request, self.snapshot, self.summary
        yield Lines(list(process_lines(request, snapshot)))
        yield Lines(list(self._broken()))
        held = [lock for lock in snapshot.locks.values() if lock.hangs]
        if held:
            yield Lines([[(lock_sentence(lock), "red"), arrow(snapshot, ("triage",))] for lock in held])
        if self.graph is not None:
            style = "yellow" if self.graph.leaked.blocks and self.graph.is_complete else ""
            yield Lines([[(self.graph.sentence, style), arrow(snapshot, ("leaks", "--unreachable"))]])
        contents = [one for one in self.headlines if not one.kind.is_damage]
        if contents:
            yield Lines([[("• " + line.sentence, ""), arrow(snapshot, line.command)] for line in contents])
        if summary.reconciliation:
            rows = sorted((row for row in summary.reconciliation if row.bytes), key=lambda row: -row.bytes)
            yield Table(reconciliation_columns(summary), rows)
            yield Lines([[(line, "bold")] for line in _totals(snapshot, summary)])
        if any(row.trust is not None for row in summary.unknown):
            owners, more = request.shown(summary.unknown)
            yield Table(OWNERS, owners, hidden=more)
        yield from self._windbg()

    def _broken(self) -> Iterator[StyledLine]:
        """The incidents that are known without a long check, and the verdict where none of them is damage."""
        snapshot = self.snapshot
        found = [one for one in known_incidents(snapshot) if one.is_of_heap and not is_exception_alone(one)]
        lines = list(broken_lines(self.request, snapshot, found, snapshot.verdict(snapshot.heaps)))
        for number, line in enumerate(lines):
            command = [arrow(snapshot, ("check",))] if number + 1 == len(lines) else []
            yield [("  " if number else "heap: ", line[0][1]), *line, *command]

    def _windbg(self) -> Iterator[PageItem]:
        """The tables of `!address -summary`."""
        request, summary = self.request, self.summary
        yield Table(USAGE, summary.usage, empty="no memory is known")
        for columns, rows in ((TYPE, summary.type), (STATE, summary.state), (PROTECT, summary.protect)):
            if rows:
                shown, hidden = request.shown(rows)
                yield Table(columns, shown, hidden=hidden)
        if summary.largest:
            yield Table(LARGEST, summary.largest)
        yield from self._allocatable()

    def _allocatable(self) -> Iterator[Lines]:
        free = self.summary.largest_allocatable
        if free is not None:
            place = f"{text.size(free.bytes)} at {free.address:#x} (64 kB aligned)"
            yield Lines([[(f"largest allocatable block: {place}", "")]])
