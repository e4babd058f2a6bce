"""The page of `fleet`: the buckets first, then a row for each dump; and its JSON record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePath

from heapdump.commands.common.next_command import quoted
from heapdump.commands.common.request import Request
from heapdump.render import text
from heapdump.render.view import COMMAND, Column, Lines, PageItem, Record, Table

_NAMED = 3


def summary_record(rows: Sequence[Record], buckets: Record) -> Record:
    """The record of the whole answer."""
    failed = sum(row["error"] is not None for row in rows)
    return {"dumps": len(rows), "failed": failed, "buckets": buckets, "rows": list(rows)}


def page(request: Request, rows: Sequence[Record], buckets: Record) -> Iterator[PageItem]:
    """The buckets, commands that show more of them, and a row for each dump."""
    failed = sum(row["error"] is not None for row in rows)
    sick = sum(row["incident"] is not None for row in rows)
    unread = f", {failed:,} could not be read" if failed else ""
    yield Lines([[(f"{text.plural(len(rows), 'dump')}: {sick:,} with an incident{unread}", "bold")]])
    for columns, found in ((BUGS, buckets["bugs"]), (GROWTH, buckets["growth"]), (SERIES, buckets["series"])):
        if found:
            shown, hidden = request.shown(found)
            yield Table(columns, shown, hidden=hidden)
    commands = list(_commands(buckets))
    if commands:
        yield Lines([[(command, COMMAND)] for command in commands])
    shown, hidden = request.shown(rows)
    yield Table(ROWS, shown, hidden=hidden)


def _commands(buckets: Record) -> Iterator[str]:
    for bug in buckets["bugs"][:_NAMED]:
        yield f"heapdump check {quoted(bug['paths'][0])}"
    for series in buckets["series"][:_NAMED]:
        yield f"heapdump diff {' '.join(map(quoted, series['paths']))}"


def _share(row: Record, name: str) -> str:
    found = row[name]
    return "-" if found is None or found["share"] is None else f"{found['share']:.0%}"


def _incident(row: Record) -> str:
    if row["error"]:
        return f"not read: {row['error']}"
    found = row["incident"]
    if found is None:
        return row["hang"] or "-"
    return f"{found['bug']} in {found['where']}" if found["where"] else str(found["bug"])


def _named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return ", ".join(PurePath(path).name for path in paths[:_NAMED]) + more


BUGS: tuple[Column[Record], ...] = (
    Column("Dumps", lambda b: f"{b['dumps']:,}", "dumps with this bug", right=True),
    Column("Same bug", lambda b: str(b["bug"]), "the incident, or the code of the exception", style="red"),
    Column("Where", lambda b: b["where"] or "-", "the first frame outside of allocators", flexible=24, wraps=True),
    Column("Such as", lambda b: _named(b["paths"]), "the dumps", rank=1, flexible=20, wraps=True),
)  # fmt: skip
GROWTH: tuple[Column[Record], ...] = (
    Column("Dumps", lambda b: f"{b['dumps']:,}", "dumps whose largest group this is", right=True),
    Column("Least", lambda b: text.size(b["least_bytes"]), "its bytes in the dump that has least", right=True),
    Column("Most", lambda b: text.size(b["most_bytes"]), "its bytes in the dump that has most", right=True),
    Column("Process", lambda b: b["process"] or "-", "image name", rank=1),
    Column("Same largest group", lambda b: str(b["key"]), "what its blocks have in common, as in leaks", flexible=28, wraps=True),
)  # fmt: skip
SERIES: tuple[Column[Record], ...] = (
    Column("Dumps", lambda b: f"{b['dumps']:,}", "dumps of this process", right=True),
    Column("One process over time", lambda b: f"{b['process'] or '-'} pid {b['pid']}", "image name and process id"),
    Column("First", lambda b: text.size(b["first_private_bytes"]), "private bytes in its first dump", right=True),
    Column("Last", lambda b: text.size(b["last_private_bytes"]), "private bytes in its last dump", right=True),
)  # fmt: skip
ROWS: tuple[Column[Record], ...] = (
    Column("Dump", lambda r: PurePath(r["path"]).name, "file name", flexible=16, wraps=True),
    Column("Process", lambda r: r["process"] or "-", "image name", rank=2, flexible=12),
    Column("Windows", lambda r: r["os"] or "-", "version and build", rank=4),
    Column("Private", lambda r: text.size(r["private_bytes"]), "private bytes", right=True),
    Column("Top", lambda r: _share(r, "top"), "share of the largest group in the bytes of heap blocks", right=True, rank=1),
    Column("Largest group", lambda r: r["top"]["key"] if r["top"] else "-", "what its blocks have in common", rank=3, flexible=20, wraps=True),
    Column("Incident", _incident, "the gravest one, or why there is no answer", flexible=24, wraps=True, style=lambda r: "red" if r["incident"] or r["error"] else ""),
)  # fmt: skip
