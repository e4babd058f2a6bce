"""`blocks`: the blocks of all heaps, filtered, or grouped by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from heapdump.commands.common.addresses import address_in, span_in
from heapdump.commands.common.blocks import BlockRecorder, block_columns
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.blocks.select import Filter, SizeGroup
    from heapdump.snapshot import Snapshot

KINDS = ["backend", "lfh", "virtual", "lookaside", "vs", "large", "pages", "page", "light", "asan"]
GROUPS: tuple[Column[SizeGroup], ...] = (
    Column("Size", lambda g: text.count(g.size), "requested bytes of each block", right=True),
    Column("Hex", lambda g: f"{g.size:#x}", "the same in hex, as !heap -stat prints it", right=True, rank=2),
    Column("Blocks", lambda g: text.count(g.count), "how many of that size", right=True),
    Column("Total", lambda g: text.count(g.bytes), "requested bytes of all of them", right=True),
    Column("", lambda g: text.size(g.bytes), "the same in units of 1024", right=True, rank=1),
    Column("Share", lambda g: text.share(g.share), "of the bytes of all blocks chosen", right=True),
)


@dataclass(frozen=True)
class _Options:
    """The command's own options as click gives them."""

    heap: str | None
    state: Literal["busy", "free", "all"]
    kind: str | None
    size: str | None
    at: str | None
    internal: bool
    containing: str | None
    stat: bool

    def filter(self, request: Request, snapshot: Snapshot) -> Filter:
        """The wanted blocks.

        Raises:
            WrongUsage: an option is no address, size or span.
        """
        from heapdump.analyses.blocks.select import Filter

        return Filter(
            heap=address_in(request, snapshot, self.heap) if self.heap else None,
            state=self.state,
            kind=self.kind,
            size=text.parse_span(self.size, text.parse_size, 1) if self.size else None,
            at=span_in(request, snapshot, self.at) if self.at else None,
            internal=self.internal,
        )


@click.option("--heap", metavar="ADDR", help="Only this heap.")
@click.option("--state", type=click.Choice(["busy", "free", "all"]), default="busy", show_default=True)
@click.option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@click.option("--size", metavar="A..B", help="Only requested sizes from A up to B inclusive; one number: exactly that.")
@click.option("--at", metavar="A..B", help="Only user addresses from A up to, not including, B.")
@click.option("--internal", is_flag=True, help="The allocator's own blocks too.")
@click.option(
    "--containing", metavar="PATTERN", help="Only blocks that hold it: a text, a pointer 0x…, or bytes hex:de ad."
)
@click.option("--stat", is_flag=True, help="Group by size, most bytes first.")
@dump_command("blocks", takes_expressions=True)
def command(request: Request, **values: Any) -> int:
    """Every block of every heap, or those that match.

    \b
    heapdump blocks crash.dmp --heap 0x29fb0000 --size 4K..64K --sort size --reverse
    heapdump blocks crash.dmp --stat                       as !heap -stat
    heapdump blocks crash.dmp --containing 'connection string'
    heapdump blocks crash.dmp --state all --format csv -o blocks.csv
    """
    from heapdump.analyses.blocks import search
    from heapdump.analyses.blocks.select import select

    options = _Options(**values)
    with request.open() as snapshot:
        rows = select(snapshot.walk.table, snapshot.heaps, options.filter(request, snapshot))
        if options.containing is not None:
            sizes = tuple(view.pointer_bytes for view in snapshot.process.views)
            patterns = search.patterns(options.containing, sizes)
            rows = search.containing(snapshot.walk.table, snapshot.process.space, rows, patterns)
        answer = _groups(request, snapshot, rows) if options.stat else _blocks(request, snapshot, rows)
        return request.emit(snapshot, answer)


def _blocks(request: Request, snapshot: Snapshot, rows: NDArray[np.int64]) -> Answer:
    table, heaps = snapshot.walk.table, snapshot.heaps
    rows = _ordered(request, snapshot, rows)

    def records() -> Iterator[Record]:
        """The JSON records, made as they are read."""
        return BlockRecorder(snapshot).of(rows)

    limit = len(rows) if request.limit is None else request.limit
    shown = list(table.blocks(rows[:limit]))
    return Answer(
        "blocks",
        data=records,
        records=records,
        page=lambda: [
            Table(block_columns(heaps), shown, hidden=len(rows) - len(shown), empty="no block like that"),
            Lines([[(f"{text.plural(len(rows), 'block')}, {text.size(int(table.size[rows].sum()))}", "")]]),
        ],
        gaps=walk_gaps(snapshot),
    )


def _ordered(request: Request, snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows as --sort asks: by a column, because records of millions of blocks would take too long."""
    import numpy as np

    table = snapshot.walk.table
    fields: dict[str, NDArray[Any]] = {
        "address": table.address, "entry": table.entry, "size": table.size, "entry_size": table.entry_size,
        "heap": table.heap, "kind": table.kind, "state": table.is_busy,
    }  # fmt: skip
    if request.sort is not None:
        name = request.sort.replace("-", "_")
        if name not in fields:
            raise WrongUsage(f"cannot sort by {request.sort!r}; there are: {', '.join(fields)}")
        rows = rows[np.argsort(fields[name][rows], kind="stable")]
    return rows[::-1] if request.reverse else rows


def _groups(request: Request, snapshot: Snapshot, rows: NDArray[np.int64]) -> Answer:
    from heapdump.analyses.blocks.select import by_size

    def record(group: SizeGroup) -> Record:
        """The JSON record of a group."""
        return {"size": group.size, "count": group.count, "bytes": group.bytes, "share": group.share}

    groups = request.rows(by_size(snapshot.walk.table, rows), record)
    shown, hidden = request.shown(groups)
    return Answer(
        "blocks",
        data=lambda: [record(group) for group in groups],
        records=lambda: (record(group) for group in groups),
        page=lambda: [Table(GROUPS, shown, hidden=hidden, empty="no block like that")],
        gaps=walk_gaps(snapshot),
    )
