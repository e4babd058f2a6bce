"""`memory ADDRESS`: the memory at an address, and what its pointers lead to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from heapdump.commands.common.addresses import place_of
from heapdump.commands.common.options import option
from heapdump.commands.common.pointees import POINTEE_MEMBERS, STYLES, hex_bytes, pointee_record, pointees_of
from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from heapdump.analyses.by_hand.memory import MemoryElement, MemoryListing
    from heapdump.analyses.by_hand.pointees import Pointee, Pointees

FORMS = ["bytes", "words", "dwords", "qwords", "pointers", "text", "utf16", "links"]
_DIGITS = {"words": 4, "dwords": 8, "qwords": 16}


@option(
    "--as", "form", type=click.Choice(FORMS), default="bytes", show_default=True,
    help="How to read it; links follows a list of LIST_ENTRY.",
)  # fmt: skip
@option("--count", type=int, metavar="N", help="Elements to read: bytes, words, characters, list entries.")
@option("--arch", type=click.Choice(["x64", "x86"]), help="Whose pointers, in a WOW64 process.")
@dump_command("memory", takes_address=True)
def command(request: Request, address: str, form: str, count: int | None, arch: str | None) -> int:
    """Memory at an address, as WinDbg's db, dd, dps, da, du.

    Bytes that the dump does not hold are shown as ??, pointers with what they lead to.

    \b
    heapdump memory crash.dmp 0x43500060
    heapdump memory crash.dmp rsp --as pointers --count 64
    heapdump memory crash.dmp poi(peb+0x20) --as utf16
    heapdump memory crash.dmp ebp+0xc --frame 6 --as dwords --count 1
    """
    from heapdump.analyses.by_hand.expressions import Expressions
    from heapdump.analyses.by_hand.memory import Form, read_memory

    request.refuse_sorting("memory")
    with request.open() as snapshot:
        namer = snapshot.namer(request.image_path, request.symbol_path)
        place = place_of(request, snapshot, namer, arch)
        at = Expressions(place).value(address)
        pointees = pointees_of(snapshot, namer)
        space = place.view_at(at).space
        view = read_memory(space, at, Form(form), count, pointees.at)
        page = _MemoryPage(request, form, count is not None, view, pointees, space.pointer_bytes)
        answer = Answer(
            "memory",
            data=lambda: [_record(row) for row in view.rows],
            records=lambda: (_record(row) for row in view.rows),
            page=page.items,
            gaps=_gaps(at, view),
            nested={"points_to": POINTEE_MEMBERS},
        )
        return request.emit(snapshot, answer)


def _gaps(at: int, view: MemoryListing) -> tuple[str, ...]:
    if not view.missing_bytes:
        return ()
    return (f"the dump does not hold {text.plural(view.missing_bytes, 'byte')} of what was asked for at {at:#x}",)


def _record(row: MemoryElement) -> Record:
    return {
        "address": hex(row.address),
        "bytes": hex_bytes(row.bytes),
        "value": hex(row.value) if isinstance(row.value, int) else row.value,
        "points_to": pointee_record(row.pointee),
    }


@dataclass(frozen=True)
class _MemoryPage:
    """The page of the command. `is_counted`: all rows are shown, since their number was asked for."""

    request: Request
    form: str
    is_counted: bool
    view: MemoryListing
    pointees: Pointees
    pointer_bytes: int

    def items(self) -> Iterator[PageItem]:
        """A table, a text, or the entries of a list with the sentence on its end."""
        rows = self.view.rows
        if self.form in ("text", "utf16"):
            yield Lines([[(str(row.value), "")] for row in rows])
        elif self.form in _DIGITS:
            yield self._table(_number_columns(_DIGITS[self.form]), _lines_of(rows, 16 // (_DIGITS[self.form] // 2)))
        elif self.form == "bytes":
            yield self._table(self._byte_columns(self.request.shown(rows)[0]), rows)
        else:
            yield self._table(_POINTERS if self.form == "pointers" else _LINKS, rows)
        if self.view.end:
            style = "dim" if self.view.is_sound else "red"
            yield Lines([[(self.view.end, style)]])

    def _table(self, columns: Sequence[Column[MemoryElement]], rows: Sequence[MemoryElement]) -> Table[MemoryElement]:
        shown, hidden = (rows, 0) if self.is_counted else self.request.shown(rows)
        return Table(columns, shown, hidden=hidden)

    def _byte_columns(self, rows: Sequence[MemoryElement]) -> tuple[Column[MemoryElement], ...]:
        leads: Column[MemoryElement] = Column(
            "PointsTo", self._leads, "what pointers among them lead to", rank=1, flexible=24, wraps=True, style="cyan"
        )
        return (
            Column("Address", lambda r: f"{r.address:#x}", "of the first byte", right=True),
            Column("Bytes", lambda r: f"{hex_bytes(r.bytes, ' '):<47} {_characters(r)}", "16 bytes, then the same as ASCII; ?? = not in the dump"),
            *((leads,) if any(self._leads(row) for row in rows) else ()),
        )  # fmt: skip

    def _leads(self, row: MemoryElement) -> str:
        """What the aligned pointers of a line lead to."""
        size = self.pointer_bytes
        words = [row.bytes[i : i + size] for i in range(-row.address % size, 16 - size + 1, size)]
        present = [bytes(byte for byte in word if byte is not None) for word in words]
        found = [self.pointees.at(int.from_bytes(word, "little")) for word in present if len(word) == size]
        return "; ".join(one.text for one in found if one is not None)


def _lines_of(rows: Sequence[MemoryElement], width: int) -> list[MemoryElement]:
    """The rows `width` at a time, as lines with the bytes of all of them."""
    from heapdump.analyses.by_hand.memory import MemoryElement

    groups = [rows[i : i + width] for i in range(0, len(rows), width)]
    return [
        MemoryElement(group[0].address, tuple(b for row in group for b in row.bytes), None, None) for group in groups
    ]


def _characters(row: MemoryElement) -> str:
    return "".join("?" if b is None else chr(b) if 0x20 <= b < 0x7F else "." for b in row.bytes)


def _number_columns(digits: int) -> tuple[Column[MemoryElement], ...]:
    """Columns of lines of numbers with so many hex digits."""

    def numbers(row: MemoryElement) -> str:
        """The numbers of a line, `????` for those with a missing byte."""
        size = digits // 2
        words = [row.bytes[i : i + size] for i in range(0, len(row.bytes), size)]
        return "  ".join(hex_bytes(tuple(reversed(word))) for word in words)

    return (
        Column("Address", lambda r: f"{r.address:#x}", "of the first byte", right=True),
        Column("Values", numbers, "little-endian numbers in hex; ?? = not in the dump"),
        Column("Text", _characters, "the same bytes as ASCII", rank=1, style="dim"),
    )


def _style(row: MemoryElement) -> str:
    return STYLES[row.pointee.kind] if row.pointee else ""


def _text_of(pointee: Pointee | None) -> str:
    return pointee.text if pointee else ""


def _value(row: MemoryElement) -> str:
    return hex_bytes(tuple(reversed(row.bytes))) if row.value is None else f"{row.value:#x}"


_POINTERS: tuple[Column[MemoryElement], ...] = (
    Column("Address", lambda r: f"{r.address:#x}", "of the pointer", right=True),
    Column("Value", _value, "the pointer; ?? = not in the dump", right=True),
    Column("PointsTo", lambda r: _text_of(r.pointee), "block, stack, module or region that it leads to", flexible=30, wraps=True, style=_style),
)  # fmt: skip
_LINKS: tuple[Column[MemoryElement], ...] = (
    Column("Entry", lambda r: f"{r.address:#x}", "address of the LIST_ENTRY", right=True),
    Column("Flink", _value, "the next entry; ?? = not in the dump", right=True),
    Column("In", lambda r: _text_of(r.pointee), "where the entry lies", flexible=30, wraps=True, style=_style),
)  # fmt: skip
