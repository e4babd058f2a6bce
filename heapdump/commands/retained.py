"""`retained [ADDRESS]`: which blocks keep most of the memory alive."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.commands.common.addresses import address_in
from heapdump.commands.common.block_words import BlockWords, word_columns
from heapdump.commands.common.gaps import walk_gaps
from heapdump.commands.common.graph_overview import group_rows, leak_suspects, suspect_finder
from heapdump.commands.common.next_command import command_text
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Request, dump_command
from heapdump.commands.common.retained_tree import CAVEAT, tree_answer
from heapdump.commands.common.types import type_record, type_words, typing_for
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.graph.leak_suspects import LeakSuspect
    from heapdump.analyses.graph.pointer_graph import PointerGraph
    from heapdump.analyses.graph.references import References
    from heapdump.analyses.graph.retained import Retained
    from heapdump.snapshot import Snapshot

_LEVELS = 4


@dataclass(frozen=True, slots=True)
class _Context:
    """The dump, its dominator tree, the options.

    Attributes:
        gaps: of the walk and of the evidence.
        row_of: the row in the block table of each block of which there is a record, by its address.
    """

    request: Request
    snapshot: Snapshot
    graph: PointerGraph
    references: References
    gaps: tuple[str, ...]
    row_of: dict[str, int] = field(default_factory=dict)

    @property
    def tree(self) -> Retained:
        """The dominator tree."""
        return self.snapshot.retained

    @property
    def most(self) -> int:
        """Rows that are made, of tables and records alike: those of a process can be millions. `_left_out` says so."""
        return len(self.graph) if self.request.limit is None else self.request.limit

    def record(self, node: int) -> Record:
        """A block, the memory that it retains, its type."""
        return self.typed(self.held(node))

    def typed(self, record: Record) -> Record:
        """What `held` says, and the type."""
        return record | {"type": type_record(typing_for(self.request, self.snapshot), self.row_of[record["address"]])}

    def held(self, node: int) -> Record:
        """A block and the memory that it retains."""
        size, blocks = self.tree.of(node)
        span = self.references.span(node)
        dominator = self.tree.dominator_of(node)
        self.row_of[hex(span.start)] = int(self.graph.rows[node])
        return {
            "address": hex(span.start), "size": span.size, "retained_bytes": size, "retained_blocks": blocks,
            "share": size / (self.tree.total or 1), "dominator": None if dominator is None else self.address(dominator),
        }  # fmt: skip

    def address(self, node: int) -> str:
        """The address of the program's first byte of a node, as text."""
        return hex(self.graph.span(node).start)


_KEYS = (
    GroupKey.OWNER, GroupKey.TYPE, GroupKey.STRUCTURE, GroupKey.MODULE, GroupKey.OWNER_MODULE, GroupKey.STACK,
)  # fmt: skip


@option(
    "--group-by",
    "by",
    aliases=("--by",),
    type=click.Choice([*map(str, _KEYS)]),
    help="What groups of blocks retain together.",
)
@option("--tree", is_flag=True, help="What holds what, blocks of one type in one row.")
@option("--depth", type=click.IntRange(1, 100), metavar="N", help="Levels of --tree.  [default: 4]")
@dump_command("retained", takes_address="perhaps")
def command(request: Request, address: str | None, by: str | None, tree: bool, depth: int | None) -> int:
    """Which few blocks keep most of the memory alive.

    A block retains what the program could no longer reach without it. With an address: what that block retains, what
    holds it, and the blocks below it.

    \b
    heapdump retained crash.dmp
    heapdump retained crash.dmp --group-by owner
    heapdump retained crash.dmp --tree
    heapdump retained crash.dmp 0x43500060
    """
    from heapdump.analyses.graph.unreachable_report import missing_evidence

    if address is not None and by is not None:
        raise WrongUsage("--group-by groups all blocks, it does not go with an address")
    if by is not None and tree:
        raise WrongUsage("--tree shows types, it does not go with --group-by")
    if depth is not None and not tree:
        raise WrongUsage("--depth counts the levels of --tree")
    with request.open() as snapshot:
        references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
        gaps = (*walk_gaps(snapshot), *missing_evidence(snapshot.graph))
        context = _Context(request, snapshot, snapshot.graph, references, gaps)
        if tree:
            node = None if address is None else _node_at(context, address_in(request, snapshot, address))
            return request.emit(snapshot, tree_answer(request, snapshot, references, node, depth or _LEVELS, gaps))
        if address is not None:
            return request.emit(snapshot, _one(context, address_in(request, snapshot, address)))
        if by is not None:
            return request.emit(snapshot, _grouped(context, GroupKey(by)))
        return request.emit(snapshot, _all(context))


def _suspect_record(context: _Context, suspect: LeakSuspect) -> Record:
    from heapdump.analyses.graph.leak_suspects import sentence

    structure, point = suspect.structure, suspect.accumulation_point
    return {
        "text": sentence(context.graph, suspect),
        "address": None if suspect.node is None else context.address(suspect.node),
        "root": suspect.root or None,
        "accumulation_point": None if point is None else context.address(point),
        "retained_bytes": suspect.bytes, "retained_blocks": suspect.blocks, "share": suspect.share,
        "shape": structure.kind if structure else None,
        "elements": structure.elements if structure else None, "element_size": structure.size if structure else None,
        "content": suspect.content or None, "key": suspect.key or None, "count": suspect.count, "trust": "guess",
    }  # fmt: skip


def _columns() -> tuple[Column[Record], ...]:
    return (
        Column("Address", lambda row: row["address"], "of the block", right=True),
        size_column("Size", lambda row: row["size"], "bytes that the program asked for", rank=2),
        size_column(
            "Retained",
            lambda row: row["retained_bytes"],
            "bytes of the block and of all that can be reached through it alone",
        ),
        Column("Share", lambda row: text.share(row["share"]), "of the bytes of all blocks that roots hold", right=True),
        Column(
            "Blocks",
            lambda row: text.count(row["retained_blocks"]),
            "blocks that it retains, itself too",
            right=True,
            rank=1,
        ),
        Column(
            "Type",
            lambda row: type_words(row["type"]),
            "what the block is, as far as that is known",
            flexible=16,
            wraps=True,
        ),
    )


def _left_out(rows: list[Record], total: int, what: str) -> tuple[str, ...]:
    """A note where `total` rows exist and fewer were made, for the formats that have no table."""
    return (f"{len(rows):,} of {total:,} {what} are listed: --all, or --limit N",) if total > len(rows) else ()


def _more(context: _Context, rows: list[Record], total: int) -> Iterator[Lines]:
    """A line where `total` rows exist and fewer are in the table."""
    if total > len(rows):
        yield Lines([[(f"… {total - len(rows):,} more (--all, or --limit N)", "dim")]])


def _table(context: _Context, rows: list[Record], *, empty: str, title: str = "") -> Table[Any]:
    shown, hidden = context.request.shown(rows)
    by_address = {row["address"]: context.row_of[row["address"]] for row in shown}
    words = BlockWords(context.request, context.snapshot, by_address.values())
    columns = (*_columns(), *word_columns(words, lambda row: by_address[row["address"]], with_content=False))
    return Table(columns, shown, hidden=hidden, title=title, empty=empty)


def _all(context: _Context) -> Answer:
    tree = context.tree
    suspects = [_suspect_record(context, one) for one in leak_suspects(context.request, context.snapshot)]
    held = [context.held(node) for node in tree.top(context.most).tolist()]
    total, many = {"bytes": tree.total, "blocks": int(tree.blocks[0])}, tree.count_below(None)
    del tree
    context.snapshot.forget_tree()  # types need as much memory
    rows = context.request.rows([context.typed(one) for one in held], lambda row: row)

    def page() -> Iterator[PageItem]:
        """Suspects, then blocks."""
        if suspects:
            yield Lines([[("• ", ""), (suspect["text"], "")] for suspect in suspects])
        yield _table(context, rows, empty="no root leads to a block")
        yield from _more(context, rows, many)
        if not total["blocks"]:
            return
        amount = f"{text.plural(total['blocks'], 'block')} with {text.size(total['bytes'])}"
        yield Lines([[(f"of {amount} reachable from roots. {CAVEAT}", "dim")]])

    data = {"total": total, "suspects": suspects, "blocks": rows}
    notes = (CAVEAT, *_left_out(rows, many, "blocks that no other block retains"))
    return Answer("retained", data=lambda: data, records=lambda: rows, page=page, gaps=context.gaps, notes=notes)


def _grouped(context: _Context, by: GroupKey) -> Answer:
    from heapdump.analyses.graph.retained_groups import retained_groups

    group = partial(group_rows, context.request, context.snapshot, by=by)
    found, ranked = retained_groups(context.graph, context.tree, group)
    records = [_group_record(context, one, total) for one, total in ranked]
    rows = context.request.rows(records, lambda row: row)[: context.most]
    columns: tuple[Column[Record], ...] = (
        size_column(
            "Retained",
            lambda row: row["retained_bytes"],
            "bytes that can be reached through blocks of the group alone, each once",
        ),
        Column("Share", lambda row: text.share(row["share"]), "of the bytes of all blocks that roots hold", right=True),
        Column("Blocks", lambda row: text.count(row["count"]), "blocks of the group", right=True),
        size_column("Size", lambda row: row["bytes"], "their own bytes"),
        Column("Key", lambda row: row["key"], f"by {found.by}", flexible=24, wraps=True),
    )

    def page() -> Iterator[PageItem]:
        """One table."""
        shown, hidden = context.request.shown(rows)
        yield Table(columns, shown, hidden=hidden, empty="no root leads to a block")
        yield from _more(context, rows, len(found.groups))

    missing = (f"{found.missing}; grouped by {found.by} instead",) if found.missing else ()
    gaps = (*context.gaps, *missing)
    notes = (CAVEAT, *_left_out(rows, len(found.groups), "groups"))
    return Answer(
        "retained", data=lambda: rows, records=lambda: rows, page=page, gaps=gaps, notes=notes,
        question="retained --group-by",
    )  # fmt: skip


def _group_record(context: _Context, one: LeakGroup, total: int) -> Record:
    return {
        "key": one.key, "count": one.group.count, "bytes": one.group.bytes, "retained_bytes": total,
        "share": total / (context.tree.total or 1), "trust": one.trust.value,
    }  # fmt: skip


def _one(context: _Context, address: int) -> Answer:
    tree, node = context.tree, _node_at(context, address)
    stored = (one for one in leak_suspects(context.request, context.snapshot) if one.node == node)
    suspect = next(stored, None) or suspect_finder(context.request, context.snapshot).suspect(node)
    suspect_record = _suspect_record(context, suspect)
    dominators: list[Record] = []
    above = tree.dominator_of(node)
    depth = 0
    while above is not None:
        if depth < context.most:
            dominators.append(context.record(above))
        above, depth = tree.dominator_of(above), depth + 1
    below = tree.count_below(node)
    children = [context.record(child) for child in tree.children(node)[: context.most].tolist()]

    def page() -> Iterator[PageItem]:
        """The sentence, the dominators, the blocks below."""
        yield Lines([[("• ", ""), (suspect_record["text"], "")]])
        nothing = "no single block holds it: several do, or roots"
        yield _table(context, dominators, title="Held by, nearest first", empty=nothing)
        yield from _more(context, dominators, depth)
        yield _table(context, children, title="Holds", empty="it alone holds nothing")
        yield from _more(context, children, below)

    data = {"block": context.record(node), "suspect": suspect_record, "dominators": dominators, "children": children}
    notes = (
        CAVEAT,
        *_left_out(dominators, depth, "blocks that hold it"),
        *_left_out(children, below, "blocks that it alone holds"),
    )
    return Answer("retained", data=lambda: data, records=lambda: children, page=page, gaps=context.gaps, notes=notes)


def _node_at(context: _Context, address: int) -> int:
    """The node that an address lies in.

    Raises:
        WrongUsage: there is none, or no root leads there.
    """
    from heapdump.analyses.blocks.locate import locate

    block = locate(context.snapshot.walk.table, context.snapshot.process.space, address).block
    node = context.references.node_of(block.row) if block else None
    if node is None or context.tree.number_of(node) < 0:
        why = (
            "in no busy block of the program"
            if node is None
            else "in a block that no root leads to, so that nothing is retained by it"
        )
        who = command_text(context.snapshot, ("refs", f"{address:#x}"))
        raise WrongUsage(f"{address:#x} is {why}; who points at it: {who}")
    return node
