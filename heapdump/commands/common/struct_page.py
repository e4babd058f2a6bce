"""Structures as records and as pages: a list of them, one without memory, one at an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from heapdump.analyses.by_hand.struct_rows import StructRow
    from heapdump.process.types import StructType

_VALUE_WIDTH = 18
Explained = tuple["StructRow", str]
"""A row and its meaning."""

LISTED: tuple[Column[StructType], ...] = (
    Column("Structure", lambda s: s.name, "as the PDB of ntdll names it", style="green"),
    Column("Size", lambda s: f"{s.size:#x}", "bytes", right=True),
    Column("Members", lambda s: text.count(len(s.members)), "members that are known", right=True),
    Column("Confidence", lambda s: s.confidence, "how sure its members are", rank=2, flexible=24, style="dim"),
    Column("Source", lambda s: s.source, "who says so", rank=1, flexible=24, style="dim"),
)


def listed_record(struct: StructType) -> Record:
    """A structure in the list of all."""
    return {
        "name": struct.name, "size": struct.size, "members": len(struct.members), "source": struct.source,
        "confidence": struct.confidence,
    }  # fmt: skip


def row_record(explained: Explained) -> Record:
    """One member (interface.md, struct)."""
    row, meaning = explained
    return {
        "offset": row.offset,
        "field": row.field,
        "type": row.type.text,
        "value": _hex(row.value) if isinstance(row.value, int) else row.value,
        "meaning": meaning or None,
        "address": hex(row.address),
    }


def _hex(value: int) -> str:
    return f"-{-value:#x}" if value < 0 else hex(value)


def columns(rows: Sequence[Explained], *, has_memory: bool) -> tuple[Column[Explained], ...]:
    """The columns of a structure; without memory no values and no meanings."""
    digits = max((len(f"{row.offset:x}") for row, _ in rows), default=1)
    members: tuple[Column[Explained], ...] = (
        Column("Offset", lambda r: f"+{r[0].offset:#0{digits + 2}x}", "bytes from the start of the structure", right=True, style="dim"),
        Column("Member", lambda r: _indented(r[0].field), "its name, indented inside the structure or array above it"),
        Column("Type", lambda r: r[0].type.text, "u8 to u64, i32: numbers of so many bits; X*: pointer; name:N: N bits", rank=2 if has_memory else 0, flexible=24, style="dim"),
    )  # fmt: skip
    if not has_memory:
        return members
    return (
        *members,
        Column("Value", lambda r: _shown(r[0]), "?? = not in the dump", style="bold"),
        Column("Meaning", lambda r: r[1], "flags, sizes and signatures in words, what pointers lead to, whether links agree", flexible=28, wraps=True, style=_style),
    )  # fmt: skip


def _shown(row: StructRow) -> str:
    if row.is_missing:
        return "??"
    if isinstance(row.value, int):
        return _hex(row.value)
    text = "" if row.value is None else row.value
    return text if len(text) <= _VALUE_WIDTH else f"{text[: _VALUE_WIDTH - 1]}…"


def _indented(path: str) -> str:
    """The last name or index of a path, indented by the number of names before it."""
    pieces = path.replace("[", ".[").split(".")
    return "  " * (len(pieces) - 1) + pieces[-1]


def _style(explained: Explained) -> str:
    return "red" if "must be" in explained[1] or "does not point back" in explained[1] else "cyan"


def table_rows(rows: Sequence[Explained]) -> list[Explained]:
    """The rows of the table: links and counted strings have one line each."""
    return [explained for explained in rows if not explained[0].is_inner]
