"""`blocks`: the blocks of all heaps, filtered, or grouped by size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from heapdump.commands.common.addresses import address_in, heap_in, place_span
from heapdump.commands.common.block_records import BlockRecords
from heapdump.commands.common.block_words import BlockWords, word_columns
from heapdump.commands.common.blocks import block_columns
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.options import BLOCK_STATES, HEAP_OPTION, SIZE_OPTION, option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.sorting import parse_order
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from heapdump.analyses.blocks.select import Filter, SizeGroup
    from heapdump.blocks.table import BlockTable
    from heapdump.snapshot import Snapshot

KINDS = ["backend", "lfh", "virtual", "lookaside", "vs", "large", "pages", "page", "light", "asan"]
GROUPS: tuple[Column[SizeGroup], ...] = (
    Column("Size", lambda g: text.count(g.size), "requested bytes of each block", right=True),
    Column("Hex", lambda g: f"{g.size:#x}", "the same in hex, as !heap -stat prints it", right=True, rank=2),
    Column("Blocks", lambda g: text.count(g.count), "how many of that size", right=True),
    size_column("Total", lambda g: g.bytes, "requested bytes of all of them"),
    Column("Share", lambda g: text.share(g.share), "of the bytes of all blocks chosen", right=True),
)


@dataclass(frozen=True)
class _BlocksOptions:
    """The command's own options as click gives them."""

    heap: str | None
    state: Literal["busy", "free", "all"]
    kind: str | None
    size: str | None
    at: str | None
    internal: bool
    containing: str | None
    stat: bool

    @property
    def is_one_address(self) -> bool:
        """True where `--at` is an address, not a span."""
        return self.at is not None and ".." not in self.at

    def filter(self, request: Request, snapshot: Snapshot) -> Filter:
        """The wanted blocks.

        Raises:
            WrongUsage: an option is no address, size or span.
        """
        from heapdump.analyses.blocks.select import Filter

        return Filter(
            heap=heap_in(request, snapshot, self.heap),
            state=self.state,
            kind=self.kind,
            size=text.parse_sizes(self.size) if self.size else None,
            at=None if self.is_one_address else place_span(request, snapshot, self.at),
            internal=self.internal,
        )


@HEAP_OPTION
@option("--state", type=BLOCK_STATES, default="busy", show_default=True)
@option("--kind", type=click.Choice(KINDS), help="Only this kind.")
@SIZE_OPTION
@option("--at", metavar="A[..B]", help="Only blocks that hold an address, or begin between A and B.")
@option("--internal", is_flag=True, help="Also the allocator's own blocks.")
@option("--containing", metavar="PATTERN", help="Only blocks that hold it: a text, a pointer 0x…, or bytes hex:de ad.")
@option("--stat", is_flag=True, help="Group by size, most bytes first.")
@dump_command("blocks", takes_expressions=True)
def command(request: Request, **values: Any) -> int:
    """Every block of every heap, or those that match.

    \b
    heapdump blocks crash.dmp --heap 0x29fb0000 --size 4K..64K --sort size
    heapdump blocks crash.dmp --stat                       as !heap -stat
    heapdump blocks crash.dmp --containing 'connection string'
    heapdump blocks crash.dmp --state all --format csv -o blocks.csv
    """
    from heapdump.analyses.blocks import search
    from heapdump.analyses.blocks.select import select

    options = _BlocksOptions(**values)
    with request.open() as snapshot:
        rows = select(snapshot.walk.table, snapshot.heaps, options.filter(request, snapshot))
        if options.is_one_address:
            rows = _rows_at(snapshot, rows, address_in(request, snapshot, options.at or ""))
        if options.containing is not None:
            sizes = tuple(view.pointer_bytes for view in snapshot.process.views)
            patterns = search.patterns(options.containing, sizes)
            rows = search.containing(snapshot.walk.table, snapshot.process.space, rows, patterns)
        answer = _groups(request, snapshot, rows) if options.stat else _blocks(request, snapshot, rows)
        return request.emit(snapshot, answer)


def _rows_at(snapshot: Snapshot, rows: NDArray[np.int64], address: int) -> NDArray[np.int64]:
    """The row of the block that an address lies in, where it is among the rows."""
    from heapdump.analyses.blocks.locate import locate

    block = locate(snapshot.walk.table, snapshot.process.space, address).block
    matching: NDArray[np.int64] = rows[rows == (-1 if block is None else block.row)]
    return matching


def _blocks(request: Request, snapshot: Snapshot, rows: NDArray[np.int64]) -> Answer:
    table, heaps = snapshot.walk.table, snapshot.heaps
    rows = _ordered(request, snapshot, rows)

    def records() -> BlockRecords:
        """The JSON records, made as they are read."""
        return BlockRecords(snapshot, rows)

    def page() -> Iterator[PageItem]:
        """The table; blocks are decoded for it alone."""
        limit = len(rows) if request.limit is None else request.limit
        shown = list(table.blocks(rows[:limit]))
        words = BlockWords(request, snapshot, (block.row for block in shown))
        columns = (*block_columns(heaps), *word_columns(words))
        yield Table(columns, shown, hidden=len(rows) - len(shown), empty="no matching blocks")
        yield Lines([[(_total(table, rows), ""), (_omitted(table, rows), "dim")]])

    return Answer("blocks", data=records, records=records, page=page, gaps=walk_gaps(snapshot))


def _total(table: BlockTable, rows: NDArray[np.int64]) -> str:
    return f"{text.plural(len(rows), 'block')}, {text.size(int(table.size[rows].sum()))}"


def _omitted(table: BlockTable, rows: NDArray[np.int64]) -> str:
    """The program's blocks that are not among the rows, by state."""
    import numpy as np

    keep = ~table.is_internal
    keep[rows] = False
    busy = int(np.count_nonzero(keep & table.is_busy))
    free = int(np.count_nonzero(keep)) - busy
    counts = [f"{number:,} {word}" for number, word in ((busy, "busy"), (free, "free")) if number]
    return f"; left out by options: {' and '.join(counts)}" if counts else ""


def _ordered(request: Request, snapshot: Snapshot, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows as --sort asks: by a column, because records of millions of blocks would take too long."""
    import numpy as np

    table = snapshot.walk.table
    fields: dict[str, NDArray[Any]] = {
        "address": table.address, "entry": table.entry, "size": table.size, "entry_size": table.entry_size,
        "heap": table.heap, "kind": table.kind, "state": table.is_busy,
    }  # fmt: skip
    if request.sort is not None:
        order = parse_order(request.sort)
        name = order.among(fields)
        rows = rows[np.argsort(fields[name][rows], kind="stable")]
        if order.is_descending(name, 0 if name in ("size", "entry_size") else ""):
            rows = rows[::-1]
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
        page=lambda: [Table(GROUPS, shown, hidden=hidden, empty="no matching blocks")],
        question="blocks --stat",
        gaps=walk_gaps(snapshot),
    )
