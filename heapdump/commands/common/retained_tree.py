"""`retained --tree`: the dominator tree with blocks of one type in one row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.commands.common.request import Request
from heapdump.commands.common.types import typing_for
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.references import References
    from heapdump.analyses.graph.retained_tree import TreeRow
    from heapdump.snapshot import Snapshot

CAVEAT = "Interior and weak pointers count; a false pointer lowers retained sizes."
_INDENT = "  "
_COLUMNS: tuple[Column[Record], ...] = (
    size_column("Retained", lambda row: row["retained_bytes"], "bytes that can be reached through these blocks alone"),
    Column("Share", lambda row: text.share(row["share"]), "of the bytes of all blocks that roots hold", right=True),
    Column("Blocks", lambda row: text.count(row["count"]) if row["type"] else "", "blocks of the row", right=True),
    size_column("Size", lambda row: row["bytes"], "their own bytes", rank=2),
    Column(
        "What",
        lambda row: _words(row),
        "at which offset of the blocks above the pointers lie, and what the blocks are",
        flexible=30,
        wraps=True,
    ),
    Column("Such as", lambda row: row["sample"] or "", "the block that retains most", right=True, rank=1),
)


def tree_answer(
    request: Request, snapshot: Snapshot, references: References, node: int | None, depth: int, gaps: tuple[str, ...]
) -> Answer:
    """The answer; `node`: the block at the top, None for all."""
    from heapdump.analyses.graph.retained_tree import TreeFinder

    finder = TreeFinder(snapshot.graph, snapshot.retained, typing_for(request, snapshot), references)
    rows = [_record(one, snapshot.retained.total) for one in finder.rows(node, depth)]

    def page() -> Iterator[PageItem]:
        """One table, whole: a part of a tree says little."""
        yield Table(_COLUMNS, rows, hidden=0, empty="no root leads to a block")
        yield Lines([[(CAVEAT, "dim")]])

    return Answer(
        "retained", data=lambda: rows, records=lambda: rows, page=page, gaps=gaps, notes=(CAVEAT,),
        question="retained --tree",
    )  # fmt: skip


def _record(one: TreeRow, total: int) -> Record:
    label = one.type
    return {
        "level": one.level, "offsets": list(one.offsets), "is_array": one.is_array, "root": one.root or None,
        "type": None if label is None else {"name": label.label, "short": label.short, "trust": label.trust.value},
        "count": one.count, "bytes": one.bytes, "retained_bytes": one.retained_bytes,
        "share": one.retained_bytes / (total or 1), "sample": hex(one.sample) if one.sample else None,
    }  # fmt: skip


def _words(row: Record) -> str:
    """`  +0x8 → class Frame (camera.dll)`."""
    indent = _INDENT * row["level"]
    if row["type"] is None:
        return f"{indent}… {text.plural(row['count'], 'more type')}"
    offsets = ", ".join(f"+{offset:#x}" for offset in row["offsets"]) + ("…" if row["is_array"] else "")
    place = row["root"] or offsets
    return f"{indent}{place}{' → ' if place else ''}{row['type']['short']}"
