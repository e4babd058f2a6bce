"""`retained [ADDRESS]`: which blocks keep most of the memory alive."""

from __future__ import annotations

from dataclasses import dataclass, replace
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
    from collections.abc import Iterable, Iterator, Sequence, Sized

    from heapdump.analyses.allocated.leaks import LeakGroup
    from heapdump.analyses.graph.pointer_graph import PointerGraph
    from heapdump.analyses.graph.references import References
    from heapdump.analyses.graph.retained import Retained
    from heapdump.analyses.graph.retained_top import PlacedSuspect, RetainedTop, RetainingBlock
    from heapdump.snapshot import Snapshot

_LEVELS = 4


@dataclass(frozen=True, slots=True)
class _Context:
    """The dump, its dominator tree, the options. `gaps`: of the walk and of the evidence."""

    request: Request
    snapshot: Snapshot
    graph: PointerGraph
    references: References
    gaps: tuple[str, ...]

    @property
    def tree(self) -> Retained:
        """The dominator tree."""
        return self.snapshot.retained

    @property
    def most(self) -> int:
        """Rows that are made, of tables and records alike: those of a process can be millions. `_left_out` says so."""
        return len(self.graph) if self.request.limit is None else self.request.limit

    def blocks(self, nodes: Iterable[int]) -> list[RetainingBlock]:
        """Blocks and the memory that they retain, with types."""
        from heapdump.analyses.graph.retained_top import retaining_block

        return _typed(self.request, self.snapshot, [retaining_block(self.graph, self.tree, node) for node in nodes])


def _typed(request: Request, snapshot: Snapshot, blocks: Iterable[RetainingBlock]) -> list[RetainingBlock]:
    """The blocks with their types."""
    found = ((block, type_record(typing_for(request, snapshot), block.row)) for block in blocks)
    return [
        replace(block, type=None if one is None else (one["name"], one["short"], one["trust"])) for block, one in found
    ]


def _block_record(block: RetainingBlock, total: int) -> Record:
    """A block as a record. `total`: bytes that roots hold."""
    names = ("name", "short", "trust")
    return {
        "address": hex(block.start), "size": block.size, "retained_bytes": block.bytes,
        "retained_blocks": block.blocks, "share": block.bytes / (total or 1),
        "dominator": None if block.dominator is None else hex(block.dominator),
        "type": block.type and dict(zip(names, block.type, strict=True)),
    }  # fmt: skip


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
    from heapdump.kernels.ahead import OF_TREE, foresee

    foresee(OF_TREE)
    if address is not None and by is not None:
        raise WrongUsage("--group-by groups all blocks, it does not go with an address")
    if by is not None and tree:
        raise WrongUsage("--tree shows types, it does not go with --group-by")
    if depth is not None and not tree:
        raise WrongUsage("--depth counts the levels of --tree")
    with request.open() as snapshot:
        if address is None and by is None and not tree:
            return request.emit(snapshot, _all(request, snapshot))
        references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
        gaps = (*walk_gaps(snapshot), *missing_evidence(snapshot.graph))
        context = _Context(request, snapshot, snapshot.graph, references, gaps)
        if tree:
            node = None if address is None else _node_at(context, address_in(request, snapshot, address))
            return request.emit(snapshot, tree_answer(request, snapshot, references, node, depth or _LEVELS, gaps))
        if by is not None:
            return request.emit(snapshot, _grouped(context, GroupKey(by)))
        assert address is not None
        return request.emit(snapshot, _one(context, address_in(request, snapshot, address)))


def _suspect_record(placed: PlacedSuspect) -> Record:
    suspect, structure = placed.suspect, placed.suspect.structure
    return {
        "text": placed.text,
        "address": None if placed.start is None else hex(placed.start),
        "root": suspect.root or None,
        "accumulation_point": None if placed.point is None else hex(placed.point),
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


def _more(rows: Sized, total: int) -> Iterator[Lines]:
    """A line where `total` rows exist and fewer are in the table."""
    if total > len(rows):
        yield Lines([[(f"… {total - len(rows):,} more (--all, or --limit N)", "dim")]])


def _table(
    request: Request, snapshot: Snapshot, blocks: Sequence[RetainingBlock], rows: list[Record], *, empty: str,
    title: str = "",
) -> Table[Any]:  # fmt: skip
    """The table of `rows`, the records of blocks."""
    shown, hidden = request.shown(rows)
    by_address = {hex(block.start): block.row for block in blocks}
    words = BlockWords(request, snapshot, (by_address[row["address"]] for row in shown))
    columns = (*_columns(), *word_columns(words, lambda row: by_address[row["address"]], with_content=False))
    return Table(columns, shown, hidden=hidden, title=title, empty=empty)


def _top(request: Request, snapshot: Snapshot) -> RetainedTop:
    """The answer about all blocks; from the index for at most STORED blocks, without --symbols and --image-path."""
    from heapdump.analyses.graph.retained_top import STORED, retained_top

    def find(most: int) -> RetainedTop:
        """The answer with at most `most` blocks, made now."""
        suspects = leak_suspects(request, snapshot)
        found = retained_top(snapshot.graph, snapshot.retained, suspects, most)
        snapshot.forget_tree()  # types need as much memory
        return replace(found, blocks=tuple(_typed(request, snapshot, found.blocks)))

    if not (request.image_path or request.symbol_path) and request.limit is not None and request.limit <= STORED:
        return snapshot.groups.retained_top(lambda: find(STORED))
    return find(len(snapshot.graph) if request.limit is None else request.limit)


def _all(request: Request, snapshot: Snapshot) -> Answer:
    top = _top(request, snapshot)
    blocks = top.blocks if request.limit is None else top.blocks[: request.limit]
    suspects = [_suspect_record(one) for one in top.suspects]
    total, many = {"bytes": top.total_bytes, "blocks": top.total_blocks}, top.count
    rows = request.rows([_block_record(block, top.total_bytes) for block in blocks], lambda row: row)

    def page() -> Iterator[PageItem]:
        """Suspects, then blocks."""
        if suspects:
            yield Lines([[("• ", ""), (suspect["text"], "")] for suspect in suspects])
        yield _table(request, snapshot, blocks, rows, empty="no root leads to a block")
        yield from _more(rows, many)
        if not total["blocks"]:
            return
        amount = f"{text.plural(total['blocks'], 'block')} with {text.size(total['bytes'])}"
        yield Lines([[(f"of {amount} reachable from roots. {CAVEAT}", "dim")]])

    data = {"total": total, "suspects": suspects, "blocks": rows}
    notes = (CAVEAT, *_left_out(rows, many, "blocks that no other block retains"))
    gaps = (*walk_gaps(snapshot), *top.evidence)
    return Answer("retained", data=lambda: data, records=lambda: rows, page=page, gaps=gaps, notes=notes)


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
        yield from _more(rows, len(found.groups))

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
    from heapdump.analyses.graph.retained_top import placed_suspect

    request, snapshot, tree, node = context.request, context.snapshot, context.tree, _node_at(context, address)
    stored = (one for one in leak_suspects(request, snapshot) if one.node == node)
    suspect = next(stored, None) or suspect_finder(request, snapshot).suspect(node)
    suspect_record = _suspect_record(placed_suspect(context.graph, suspect))
    above, holders = tree.dominator_of(node), list[int]()
    while above is not None:
        holders.append(above)
        above = tree.dominator_of(above)
    below = tree.count_below(node)
    dominators = context.blocks(holders[: context.most])
    children = context.blocks(tree.children(node)[: context.most].tolist())
    held_by, holds = ([_block_record(one, tree.total) for one in blocks] for blocks in (dominators, children))

    def page() -> Iterator[PageItem]:
        """The sentence, the dominators, the blocks below."""
        yield Lines([[("• ", ""), (suspect_record["text"], "")]])
        nothing = "no single block holds it: several do, or roots"
        yield _table(request, snapshot, dominators, held_by, title="Held by, nearest first", empty=nothing)
        yield from _more(held_by, len(holders))
        yield _table(request, snapshot, children, holds, title="Holds", empty="it alone holds nothing")
        yield from _more(holds, below)

    (block,) = (_block_record(one, tree.total) for one in context.blocks([node]))
    data = {"block": block, "suspect": suspect_record, "dominators": held_by, "children": holds}
    notes = (
        CAVEAT,
        *_left_out(held_by, len(holders), "blocks that hold it"),
        *_left_out(holds, below, "blocks that it alone holds"),
    )
    return Answer("retained", data=lambda: data, records=lambda: holds, page=page, gaps=context.gaps, notes=notes)


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
