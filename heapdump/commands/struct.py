"""`struct [NAME [ADDRESS]]`: a structure of Windows, or of a PDB, decoded at an address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.addresses import place_of
from heapdump.commands.common.options import option
from heapdump.commands.common.pointees import pointees_of
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.commands.common.struct_page import LISTED, columns, listed_record, row_record, table_rows
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Lines, PageItem, Table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.by_hand.place import FramePlace
    from heapdump.analyses.by_hand.struct_types import Found
    from heapdump.analyses.by_hand.struct_view import SeenStruct
    from heapdump.process.model import View
    from heapdump.process.symbols.namer import Namer
    from heapdump.process.types import TypeSource
    from heapdump.snapshot import Snapshot


def split_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`dump`, `name` of a structure and `address` of [DUMP] [NAME [ADDRESS]].

    Raises:
        WrongUsage: too many of them.
    """
    if len(arguments) > 3:
        raise WrongUsage(f"a dump, a structure and an address, not {len(arguments)} arguments")
    has_dump = len(arguments) == 3 or bool(arguments and Path(arguments[0]).is_file())
    dump, rest = (Path(arguments[0]), arguments[1:]) if has_dump else (None, arguments)
    name, address = (*rest, None, None)[:2]
    return {"dump": dump, "name": name, "address": address}


_MOST_LINES = 8


@option("--arch", type=click.Choice(["x64", "x86"]), help="Whose structure, in a WOW64 process.")
@option(
    "--count", type=click.IntRange(1, 1 << 16), default=16, show_default=True, metavar="N",
    help="Elements shown of an array of structures.",
)  # fmt: skip
@dump_command("struct", takes_expressions=True, arguments=Arguments("[DUMP] [NAME [ADDRESS]]", split_arguments))
def command(request: Request, name: str | None, address: str | None, arch: str | None, count: int) -> int:
    """A structure at an address, as WinDbg's dt, and its meaning.

    Windows' own structures are known for the build of the dump, without symbols; with --symbols those of PDBs, too.
    Encoded structures are decoded, links of lists are checked.

    \b
    heapdump struct crash.dmp                      the names
    heapdump struct crash.dmp _HEAP                its members
    heapdump struct crash.dmp _HEAP 0x29fb0000
    heapdump struct crash.dmp _PEB peb
    heapdump struct crash.dmp app!Task poi(rcx+8) --symbols C:\\build
    """
    request.refuse_sorting("struct")
    with request.open() as snapshot:
        namer = snapshot.namer(request.image_path, request.symbol_path)
        asked = _StructQuestion(request, snapshot, namer, place_of(request, snapshot, namer, arch), count)
        if name is None:
            return request.emit(snapshot, asked.every_struct())
        return request.emit(snapshot, asked.one(name, address))


@dataclass(frozen=True)
class _StructQuestion:
    """The dump and the options."""

    request: Request
    snapshot: Snapshot
    namer: Namer
    place: FramePlace
    count: int

    def every_struct(self) -> Answer:
        """The structures that this build has."""
        source = self._layout(self._view(None), None)
        found = [struct for name in source.names() if (struct := source.struct(name)) is not None]
        rows = self.request.rows(found, listed_record)
        return Answer(
            "struct",
            data=lambda: [listed_record(row) for row in rows],
            records=lambda: (listed_record(row) for row in rows),
            page=lambda: [Table(LISTED, rows)],
        )

    def one(self, name: str, address: str | None) -> Answer:
        """The members of a structure, with their values where an address is given."""
        from heapdump.analyses.by_hand.expressions import Expressions
        from heapdump.analyses.by_hand.struct_types import find_struct

        at = None if address is None else Expressions(self.place).value(address)
        view = self._view(at)
        found = find_struct(self.snapshot.process, self._layout(view, at), self.namer.types, name)
        seen = self._seen(found, view, at)
        missing = f"the dump does not hold {text.plural(seen.missing_bytes, 'byte')} of the structure"
        return Answer(
            "struct",
            data=lambda: [row_record(row) for row in seen.rows],
            records=lambda: (row_record(row) for row in seen.rows),
            page=lambda: _page(found, at, seen),
            gaps=(missing,) if seen.missing_bytes else (),
            notes=seen.notes,
        )

    def _view(self, at: int | None) -> View:
        """The view that --arch names, else that of the address."""
        return self.place.view if at is None else self.place.view_at(at)

    def _layout(self, view: View, at: int | None) -> TypeSource:
        """The structures by the layout that verified on the heap at the address, else by that of the build."""
        from heapdump.analyses.by_hand.struct_view import windows_types

        return windows_types(view, self.snapshot.heap_at(at) if at is not None else None)

    def _seen(self, found: Found, view: View, at: int | None) -> SeenStruct:
        from heapdump.analyses.by_hand.struct_view import StructMemory, view_struct

        pointees = pointees_of(self.snapshot, self.namer)
        memory = StructMemory(self.snapshot.process, view, self.snapshot.decoded, pointees.at)
        return view_struct(memory, found, at, self.count)


def _page(found: Found, at: int | None, seen: SeenStruct) -> Iterator[PageItem]:
    where = "" if at is None else f" at {at:#x}"
    struct = found.struct
    yield Lines([[(f"{struct.name}{where}", "bold"), (f", {struct.size:#x} bytes ({struct.source})", "dim")]])
    if seen.notes or seen.broken:
        lines = [[(note, "dim")] for note in seen.notes[:_MOST_LINES]]
        lines += [[(line, "red")] for line in seen.broken[:_MOST_LINES]]
        hidden = len(seen.notes) + len(seen.broken) - len(lines)
        yield Lines([*lines, *([[(f"… {hidden} more lines like these", "dim")]] if hidden else [])])
    shown = table_rows(seen.rows)
    yield Table(columns(shown, has_memory=at is not None), shown, empty="no member is known")
