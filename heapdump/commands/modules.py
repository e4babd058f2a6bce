"""`modules`: the images of the process."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from heapdump.commands.common.addresses import place_of
from heapdump.commands.common.module_page import HOOK_GROUPS, detail_page, detail_record, hook_records
from heapdump.commands.common.next_command import arrow
from heapdump.commands.common.options import option
from heapdump.commands.common.request import Arguments, Request, dump_command
from heapdump.errors import WrongUsage
from heapdump.render import text
from heapdump.render.view import Answer, Column, Lines, PageItem, Record, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from heapdump.analyses.by_hand.module_detail import ModuleDetail
    from heapdump.process.model import Module
    from heapdump.process.symbols.pdb import PdbSource
    from heapdump.snapshot import Snapshot


def version_words(module: Module) -> str | None:
    """`10.0.19041.508`, None where the file has no version."""
    return ".".join(map(str, module.version)) if module.version else None


def _date(timestamp: int) -> str:
    """The link time; reproducible builds store a hash there, which gives no plausible date."""
    when = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return when.strftime("%Y-%m-%d") if 1990 <= when.year <= 2035 else f"{timestamp:#x}"


def _pdb(module: Module) -> str | None:
    return f"{module.pdb.guid}{module.pdb.age:X}" if module.pdb else None


def _record(module: Module, source: PdbSource | None = None) -> Record:
    pdb: Record | None = None
    if module.pdb:
        found = {"source": source.source, "reason": source.reason} if source else {}
        pdb = {"path": module.pdb.path, "guid": module.pdb.guid, "age": module.pdb.age, **found}
    return {
        "name": module.name,
        "path": module.path,
        "address": hex(module.span.start),
        "size": module.span.size,
        "timestamp": module.timestamp,
        "checksum": module.checksum,
        "version": version_words(module),
        "pdb": pdb,
    }


VIEW: tuple[Column[Module], ...] = (
    Column("Start", lambda m: f"{m.span.start:#x}", "first address (BaseOfImage)", right=True),
    Column("End", lambda m: f"{m.span.end:#x}", "first address behind the image", right=True, rank=2),
    size_column("Size", lambda m: m.span.size, "SizeOfImage", rank=1),
    Column("Module", lambda m: m.name, "file name", style="green"),
    Column("Version", lambda m: version_words(m) or "-", "file version of its version resource; - where it has none"),
)
VERBOSE: tuple[Column[Module], ...] = (
    *VIEW,
    Column("Linked", lambda m: _date(m.timestamp), "TimeDateStamp of the PE header; hex where it is a hash (reproducible build)", rank=4),
    Column("Checksum", lambda m: f"{m.checksum:#x}", "CheckSum of the PE header", right=True, rank=5),
    Column("PDB", lambda m: _pdb(m) or "-", "GUID and age of its PDB, as symbol stores name it (CodeView RSDS record)", rank=3),
    Column("Path", lambda m: m.path, "where the file was on that machine", flexible=24, wraps=True, style="dim"),
)  # fmt: skip


WIDE: tuple[Column[Module], ...] = (*VERBOSE[:-1], replace(VERBOSE[-1], rank=6))
"""Without --verbose the path is shown where there is room for it."""


def pdb_column(source_of: Callable[[Module], PdbSource | None]) -> Column[Module]:
    """Where each PDB came from, or why there is none."""

    def words(module: Module) -> str:
        """The URL or path, else the reason."""
        source = source_of(module)
        return "-" if source is None else source.source or f"none: {source.reason}"

    return Column("PDBFrom", words, "where the stores of --symbols had its PDB, or why not", flexible=24, rank=2)


def split_arguments(arguments: tuple[str, ...]) -> dict[str, Any]:
    """`dump` and `name` of [DUMP] [NAME]: one argument is the dump where a file of that name exists.

    Raises:
        WrongUsage: too many arguments.
    """
    if len(arguments) > 2:
        raise WrongUsage(f"a dump and a module, not {len(arguments)} arguments")
    if len(arguments) == 1 and not Path(arguments[0]).exists() and not _looks_like_a_dump(arguments[0]):
        return {"dump": None, "name": arguments[0]}
    dump, name = (*arguments, None, None)[:2]
    return {"dump": Path(dump) if dump else None, "name": name}


def _looks_like_a_dump(argument: str) -> bool:
    """True for a path or an ending of dumps: a dump that does not exist is no module."""
    return "/" in argument or ".dmp" in argument.lower() or argument.lower().endswith((".mdmp", ".hdmp"))


@option(
    "--imports", type=click.Choice(["all", "memory"]), is_flag=False, flag_value="all",
    help="Imports and where their slots point; memory: only functions that allocate, map, protect or load.",
)  # fmt: skip
@option("--exports", is_flag=True, help="Exports.")
@option("--sections", is_flag=True, help="Sections.")
@option("--strings", is_flag=True, help="Texts in its memory, as far as the dump holds it.")
@dump_command("modules", takes_expressions=True, arguments=Arguments("[DUMP] [NAME]", split_arguments))
def command(
    request: Request, name: str | None, imports: str | None, exports: bool, sections: bool, strings: bool
) -> int:
    """Every loaded image, or one in depth.

    In depth: version texts, headers, sections, imports, exports, hooks. Images on no list are found by their headers.

    \b
    heapdump modules crash.dmp --verbose       with path, link time and PDB
    heapdump modules crash.dmp --sort size
    heapdump modules crash.dmp ntdll              one module in depth
    heapdump modules crash.dmp app --imports memory
    """
    flags = {"imports": imports is not None, "exports": exports, "sections": sections, "strings": strings}
    wanted = {word for word, is_wanted in flags.items() if is_wanted}
    with request.open() as snapshot:
        if name is not None or wanted:
            return request.emit(snapshot, _in_depth(request, snapshot, name, wanted, memory_only=imports == "memory"))
        return request.emit(snapshot, _list(request, snapshot))


def _in_depth(request: Request, snapshot: Snapshot, name: str | None, wanted: set[str], *, memory_only: bool) -> Answer:
    """The modules of that name, or all of them. Without options all but the texts."""
    from heapdump.analyses.by_hand.expressions import Expressions
    from heapdump.analyses.by_hand.module_detail import every_module, modules_named

    namer = snapshot.namer(request.image_path, request.symbol_path)
    found = every_module(snapshot.process, namer)
    if name is not None:
        found = modules_named(found, Expressions(place_of(request, snapshot, namer)), name)
    members = wanted or {"sections", "imports", "exports"}

    def record(detail: ModuleDetail) -> Record:
        """The record of the list, and what is known in depth."""
        return _record(detail.module, namer.pdb_source(detail.module)) | detail_record(
            detail, members, memory_only=memory_only
        )

    rows = request.rows(found, lambda detail: _record(detail.module))
    shown = wanted or {"sections"}
    missing = [
        f"{one.module.name} (headers)"
        if one.image is None
        else f"{one.module.name} ({', '.join(one.unreadable_tables)})"
        for one in found
        if one.image is None or one.unreadable_tables
    ]
    missing_words = f"parts of {text.plural(len(missing), 'module')} are not in the dump: {', '.join(missing[:5])}"
    return Answer(
        "modules",
        data=lambda: [record(detail) for detail in rows],
        records=lambda: (record(detail) for detail in rows),
        page=lambda: (item for one in rows for item in detail_page(request, one, shown, memory_only=memory_only)),
        gaps=(f"{missing_words}{' …' if len(missing) > 5 else ''}",) if missing else (),
        nested={"pdb": ("path", "guid", "age", "source", "reason")},
    )


def _list(request: Request, snapshot: Snapshot) -> Answer:
    """Every image, and the hooks in them by where they lead."""
    from heapdump.analyses.by_hand.module_detail import every_module, hook_groups

    namer = snapshot.namer(request.image_path, request.symbol_path)
    details = {one.module: one for one in every_module(snapshot.process, namer)}
    unlisted = {module for module, one in details.items() if not one.is_listed}

    def record(module: Module) -> Record:
        """The JSON record."""
        return _record(module, namer.pdb_source(module)) | {
            "listed": module not in unlisted,
            "hooks": hook_records(details[module]),
        }

    def page() -> Iterator[PageItem]:
        """The images, and the hooks where there are any."""
        yield Table(columns, shown, hidden=hidden, empty=empty)
        groups = hook_groups([details[module] for module in rows])
        if groups:
            yield Table(HOOK_GROUPS, groups, title="Hooks")
            yield Lines([[("each of them", "dim"), arrow(snapshot, ("modules", groups[0].module.name))]])

    rows = request.rows(list(details), _record)
    shown, hidden = request.shown(rows)
    columns = WIDE
    if request.verbosity > 0:
        columns = (*VERBOSE, pdb_column(namer.pdb_source)) if request.symbol_path else VERBOSE
    if unlisted:
        mark: Column[Module] = Column(
            "", lambda m: "in no list" if m in unlisted else "", "found by its headers, in no module list", style="red"
        )
        columns = (*columns, mark)
    empty = "no module is known" if snapshot.dump.module_notes else "the dump has no module list"
    return Answer(
        "modules",
        data=lambda: [record(module) for module in rows],
        records=lambda: (record(module) for module in rows),
        page=page,
        gaps=snapshot.dump.module_notes if rows or snapshot.dump.module_notes else (empty,),
        nested={"pdb": ("path", "guid", "age", "source", "reason")},
    )
