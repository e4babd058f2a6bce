"""Blocks that only objects of managed heaps hold: a table of the types of these objects, and its record."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.graph.managed_holders import ManagedHolder, ManagedHolders

_MOST_ROWS = 10
_COLUMNS: tuple[Column[ManagedHolder], ...] = (
    size_column("Size", lambda one: one.bytes, "of the blocks that they point to"),
    Column("Blocks", lambda one: text.count(one.blocks), "blocks that they point to", right=True),
    Column("Objects", lambda one: text.count(one.objects), "managed objects that point to them", right=True),
    Column("Finalizer", lambda one: "yes" if one.is_finalizable else "-", "the runtime calls one before they go"),
    Column("Held by", lambda one: one.type, "type of the objects", flexible=24, wraps=True),
)


def holders_record(found: ManagedHolders) -> Record:
    """`managed` of the answer."""
    names = ("type", "is_finalizable", "objects", "blocks", "bytes")
    holders = [{name: getattr(one, name) for name in names} for one in found.holders]
    return {"blocks": found.blocks, "bytes": found.bytes, "complete": found.is_whole, "holders": holders}


def holders_page(found: ManagedHolders) -> Iterator[PageItem]:
    """A sentence on the blocks that only managed objects hold, and the table of their holders."""
    amount = f"{text.plural(found.blocks, 'block')} with {text.size(found.bytes)}"
    words = f"held by the program, but by objects of the managed heap alone: {amount}"
    if any(one.is_finalizable for one in found.holders):
        words += "; those of objects with a finalizer go when it runs, or at Dispose"
    more = [] if found.is_whole else [[("not all of their pointers were looked up: the counts are too low", "dim")]]
    yield Lines([[(words, "")], *more])
    hidden = max(0, len(found.holders) - _MOST_ROWS)
    yield Table(_COLUMNS, list(found.holders[:_MOST_ROWS]), hidden=hidden)
