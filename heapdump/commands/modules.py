"""`modules`: the images of the process."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.commands.common.request import Request, dump_command
from heapdump.render import text
from heapdump.render.view import Answer, Column, Record, Table

if TYPE_CHECKING:
    from heapdump.process.model import Module


def version_words(module: Module) -> str | None:
    """`10.0.19041.508`, None where the file has no version."""
    return ".".join(map(str, module.version)) if module.version else None


def _date(timestamp: int) -> str:
    """The link time; reproducible builds store a hash there, which gives no plausible date."""
    when = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return when.strftime("%Y-%m-%d") if 1990 <= when.year <= 2035 else f"{timestamp:#x}"


def _pdb(module: Module) -> str | None:
    return f"{module.pdb.guid}{module.pdb.age:X}" if module.pdb else None


def _record(module: Module) -> Record:
    return {
        "name": module.name,
        "path": module.path,
        "address": hex(module.span.start),
        "size": module.span.size,
        "timestamp": module.timestamp,
        "checksum": module.checksum,
        "version": version_words(module),
        "pdb": {"path": module.pdb.path, "guid": module.pdb.guid, "age": module.pdb.age} if module.pdb else None,
    }


VIEW: tuple[Column[Module], ...] = (
    Column("Start", lambda m: f"{m.span.start:#x}", "first address (BaseOfImage)", right=True),
    Column("End", lambda m: f"{m.span.end:#x}", "first address behind the image", right=True, rank=2),
    Column("Size", lambda m: text.size(m.span.size), "SizeOfImage", right=True, rank=1),
    Column("Module", lambda m: m.name, "file name", style="green"),
    Column("Version", lambda m: version_words(m) or "-", "file version of its version resource; - where it has none"),
)
VERBOSE: tuple[Column[Module], ...] = (
    *VIEW,
    Column("Linked", lambda m: _date(m.timestamp), "TimeDateStamp of the PE header; hex where it is a hash (reproducible build)", rank=4),
    Column("Checksum", lambda m: f"{m.checksum:#x}", "CheckSum of the PE header", right=True, rank=5),
    Column("PDB", lambda m: _pdb(m) or "-", "GUID and age of its PDB, as symbol stores name it (CodeView RSDS record)", rank=3),
    Column("Path", lambda m: m.path, "where the file was on that machine", flexible=24, style="dim"),
)  # fmt: skip


@dump_command("modules")
def command(request: Request) -> int:
    """Every loaded image: address, size, version, PDB.

    \b
    heapdump modules crash.dmp --verbose          with path, link time, checksum and PDB
    heapdump modules crash.dmp --sort size --reverse
    """
    with request.open() as snapshot:
        rows = request.rows(snapshot.process.modules, _record)
        shown, hidden = request.shown(rows)
        columns = VERBOSE if request.verbosity > 0 else VIEW
        empty = "no module is known" if snapshot.dump.module_notes else "the dump has no module list"
        answer = Answer(
            "modules",
            data=lambda: [_record(module) for module in rows],
            records=lambda: (_record(module) for module in rows),
            page=lambda: [Table(columns, shown, hidden=hidden, empty=empty)],
            gaps=snapshot.dump.module_notes if rows or snapshot.dump.module_notes else (empty,),
            nested={"pdb": ("path", "guid", "age")},
        )
        return request.emit(snapshot, answer)
