"""`retained [ADDRESS]`: which blocks keep most of the memory alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from heapdump.commands.common.block_rows import walk_gaps
from heapdump.commands.common.graph_overview import finder_of, group_rows, hoards_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.allocated.leaks import By, LeakGroup
    from heapdump.analyses.graph.leak_suspects import Finder, LeakSuspect
    from heapdump.analyses.graph.pointer_graph import PointerGraph
    from heapdump.analyses.graph.references import References
    from heapdump.analyses.graph.retained import Retained
    from heapdump.snapshot import Snapshot

_TOP = 20
_CAVEAT = "by all pointers found, those to the inside of blocks and in memory that may be forgotten too; a false one makes the tree flatter"


@dataclass(frozen=True)
class _Tree:
    """What all answers of this command are made of."""

    request: Request
    snapshot: Snapshot
    graph: PointerGraph
    tree: Retained
    references: References

    @property
    def finder(self) -> Finder:
        """What suspects are found with."""
        return finder_of(self.request, self.snapshot)

    def record(self, node: int) -> Record:
        """A block and what it retains."""
        held, blocks = self.tree.of(node)
        own = self.references.span(node)
        holder = self.tree.holder(node)
        return {
            "address": hex(own.start), "size": own.size, "retained_bytes": held, "retained_blocks": blocks,
            "share": held / (self.tree.total or 1), "dominator": None if holder is None else hex(int(self.graph.start[holder])),
        }  # fmt: skip


@click.option(
    "--top", type=click.IntRange(1), default=_TOP, show_default=True, metavar="N", help="The N blocks that retain most."
)
@click.option("--by", type=click.Choice(["stack", "type", "module"]), help="What groups of blocks retain together.")
@dump_command("retained", takes_address="perhaps")
def command(request: Request, address: int | None, top: int, by: str | None) -> int:
    """Which few blocks keep most of the memory alive: the dominator tree.

    A block retains what the program could no longer reach without it. With an address: what that block retains, what
    holds it, and the blocks below it.

    \b
    heapdump retained crash.dmp
    heapdump retained crash.dmp --by type
    heapdump retained crash.dmp 0x43500060
    """
    from heapdump.analyses.graph.unreachable_report import missing_evidence

    request.refuse_sorting("retained")
    if address is not None and by is not None:
        raise WrongUsage("--by groups all blocks, it does not go with an address")
    with request.open() as snapshot:
        references = snapshot.references(snapshot.namer(request.image_path, request.symbol_path))
        tree = _Tree(request, snapshot, snapshot.graph, snapshot.retained, references)
        gaps = (*walk_gaps(snapshot), *missing_evidence(snapshot.graph))
        if address is not None:
            return request.emit(snapshot, _one(tree, address, top, gaps))
        if by is not None:
            return request.emit(snapshot, _grouped(tree, cast("By", by), top, gaps))
        return request.emit(snapshot, _all(tree, top, gaps))


def _hoard(tree: _Tree, hoard: LeakSuspect) -> Record:
    from heapdump.analyses.graph.leak_suspects import sentence

    structure, graph = hoard.structure, tree.graph
    return {
        "text": sentence(graph, hoard),
        "address": None if hoard.node is None else hex(int(graph.start[hoard.node])),
        "root": hoard.root or None,
        "accumulation_point": None if hoard.pile is None else hex(int(graph.start[hoard.pile])),
        "retained_bytes": hoard.bytes, "retained_blocks": hoard.blocks, "share": hoard.share,
        "shape": structure.shape or None if structure else None,
        "elements": structure.elements if structure else None, "element_size": structure.size if structure else None,
        "content": hoard.content or None, "key": hoard.key or None, "count": hoard.count, "trust": "guess",
    }  # fmt: skip


def _columns() -> tuple[Column[Record], ...]:
    return (
        Column("Address", lambda row: row["address"], "of the block", right=True),
        Column("Size", lambda row: text.count(row["size"]), "bytes that the program asked for", right=True),
        Column(
            "Retained",
            lambda row: text.count(row["retained_bytes"]),
            "bytes of the block and of all that can be reached through it alone",
            right=True,
        ),
        Column("", lambda row: text.size(row["retained_bytes"]), "the same in units of 1024", right=True, rank=1),
        Column("Share", lambda row: text.share(row["share"]), "of the bytes of all blocks that roots hold", right=True),
        Column("Blocks", lambda row: text.count(row["retained_blocks"]), "so many blocks", right=True),
    )


def _table(
    tree: _Tree, columns: tuple[Column[Record], ...], rows: list[Record], total: int, *, empty: str, title: str = ""
) -> Iterator[Table[Any] | Lines]:
    """Rows, of `total` that there are."""
    shown, hidden = tree.request.shown(rows)
    yield Table(columns, shown, hidden=hidden, title=title, empty=empty)
    if total > len(rows) and not hidden:
        yield Lines([[(f"… {total - len(rows):,} more (--top N shows as many as you like)", "dim")]])


def _all(tree: _Tree, top: int, gaps: tuple[str, ...]) -> Answer:
    found = hoards_of(tree.request, tree.snapshot)
    rows = [tree.record(node) for node in tree.tree.top(top).tolist()]
    total = {"bytes": tree.tree.total, "blocks": int(tree.tree.blocks[0])}

    def parts() -> Iterator[Table[Any] | Lines]:
        """Suspects, then blocks."""
        suspects = [_hoard(tree, hoard) for hoard in found]
        if suspects:
            yield Lines([[("• ", ""), (suspect["text"], "")] for suspect in suspects])
        yield from _table(tree, _columns(), rows, tree.tree.count_below(None), empty="roots hold no block")
        yield Lines(
            [
                [
                    (
                        f"of {text.plural(total['blocks'], 'block')} with {text.size(total['bytes'])} that roots hold; {_CAVEAT}",
                        "dim",
                    )
                ]
            ]
        )

    data = {"total": total, "suspects": [_hoard(tree, hoard) for hoard in found], "blocks": rows}
    return Answer("retained", data=lambda: data, records=lambda: rows, parts=parts, gaps=gaps, notes=(_CAVEAT,))


def _grouped(tree: _Tree, by: By, top: int, gaps: tuple[str, ...]) -> Answer:
    import numpy as np

    held = np.sort(tree.tree.order[1:].astype(np.int64))
    order = np.argsort(tree.graph.rows[held], kind="stable")
    found = group_rows(tree.request, tree.snapshot, tree.graph.rows[held][order].astype(np.int64), by)
    values = {one.group.value: i for i, one in enumerate(found.groups)}
    numbers = np.full(len(tree.graph), -1, np.int32)
    lookup = np.full(max(values, default=-1) + 1, -1, np.int32)
    lookup[list(values)] = list(values.values())
    nodes = held[order][np.searchsorted(tree.graph.rows[held][order], found.rows)]
    numbers[nodes] = lookup[found.values]
    totals = tree.tree.by_group(numbers, len(values)).tolist()
    ranked = sorted(zip(found.groups, totals, strict=True), key=lambda pair: -pair[1])[:top]
    rows = [_group_record(tree, one, total) for one, total in ranked]
    columns: tuple[Column[Record], ...] = (
        Column(
            "Retained",
            lambda row: text.count(row["retained_bytes"]),
            "bytes that can be reached through blocks of the group alone, each once",
            right=True,
        ),
        Column("", lambda row: text.size(row["retained_bytes"]), "the same in units of 1024", right=True, rank=1),
        Column("Share", lambda row: text.share(row["share"]), "of the bytes of all blocks that roots hold", right=True),
        Column("Blocks", lambda row: text.count(row["count"]), "blocks of the group", right=True),
        Column("Bytes", lambda row: text.count(row["bytes"]), "their own bytes", right=True),
        Column("Key", lambda row: row["key"], f"by {found.by}", flexible=24),
    )

    def parts() -> Iterator[Table[Any] | Lines]:
        """One table."""
        yield from _table(tree, columns, rows, len(found.groups), empty="roots hold no block")

    missing = (f"{found.missing}; grouped by {found.by} instead",) if found.missing else ()
    return Answer(
        "retained", data=lambda: rows, records=lambda: rows, parts=parts, gaps=(*gaps, *missing), notes=(_CAVEAT,)
    )


def _group_record(tree: _Tree, one: LeakGroup, total: int) -> Record:
    return {
        "key": one.key, "count": one.group.count, "bytes": one.group.bytes, "retained_bytes": total,
        "share": total / (tree.tree.total or 1), "trust": one.trust.value,
    }  # fmt: skip


def _one(tree: _Tree, address: int, top: int, gaps: tuple[str, ...]) -> Answer:
    from heapdump.analyses.blocks.select import locate

    block = locate(tree.snapshot.walk.table, tree.snapshot.process.space, address).block
    node = tree.references.node_of(block.row) if block else None
    if node is None or tree.tree.number[node] < 0:
        why = (
            "in no busy block of the program"
            if node is None
            else "in a block that no root leads to, so that nothing is retained by it"
        )
        raise WrongUsage(f"{address:#x} is {why}; heapdump refs {address:#x} says who points at it")
    known = (one for one in hoards_of(tree.request, tree.snapshot) if one.node == node)
    hoard = next(known, None) or tree.finder.hoard_of(node)
    above: list[Record] = []
    holder = tree.tree.holder(node)
    while holder is not None and len(above) < _TOP:
        above.append(tree.record(holder))
        holder = tree.tree.holder(holder)
    children = [tree.record(child) for child in tree.tree.children(node)[:top].tolist()]

    def parts() -> Iterator[Table[Any] | Lines]:
        """The sentence, what dominates it, what it dominates."""
        yield Lines([[("• ", ""), (_hoard(tree, hoard)["text"], "")]])
        yield from _table(
            tree,
            _columns(),
            above,
            len(above),
            title="Held by, nearest first",
            empty="no single block holds it: several do, or roots",
        )
        yield from _table(
            tree, _columns(), children, tree.tree.count_below(node), title="Holds", empty="it alone holds nothing"
        )

    data = {"block": tree.record(node), "suspect": _hoard(tree, hoard), "dominators": above, "children": children}
    return Answer("retained", data=lambda: data, records=lambda: children, parts=parts, gaps=gaps, notes=(_CAVEAT,))
