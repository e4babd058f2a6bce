"""One module in depth: its JSON record, and the lines and tables of its page."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

from heapdump.render import text
from heapdump.render.view import Column, Lines, PageItem, Record, StyledLine, Table, size_column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from heapdump.analyses.by_hand.hooks import ImportState, InlineHook
    from heapdump.analyses.by_hand.images import ImageText
    from heapdump.analyses.by_hand.module_detail import Export, HookGroup, ModuleDetail
    from heapdump.commands.common.request import Request

_VERSION_TEXTS = (
    "CompanyName", "ProductName", "FileDescription", "ProductVersion", "FileVersion", "OriginalFilename", "InternalName",
    "LegalCopyright",
)  # fmt: skip
"""The texts that a page shows, in this order."""

IMPORTS: tuple[Column[ImportState], ...] = (
    Column("Slot", lambda i: f"{i.slot:#x}", "address of its pointer", right=True, rank=1),
    Column("DLL", lambda i: i.entry.dll, "the DLL that the image names", flexible=14),
    Column("Function", lambda i: i.entry.name or "-", "its name, or its ordinal", flexible=20),
    Column("Target", lambda i: "??" if i.target is None else i.name, "where the slot points now; ?? = not in the dump", flexible=24, style=lambda i: "red" if i.is_hook else "green"),
    Column("", lambda i: "hook" if i.is_hook else "", "hook: the target is not in the named DLL, nor in one that stands for it", style="red"),
)  # fmt: skip
EXPORTS: tuple[Column[Export], ...] = (
    Column("Address", lambda e: text.address(e.address), "- for one that is forwarded", right=True),
    Column("Export", lambda e: e.name, "its name"),
    Column("Forwarded", lambda e: e.forwarder, "the DLL and function that it is forwarded to", rank=1, style="dim"),
)
SECTIONS: tuple[Column[Record], ...] = (
    Column("Section", lambda s: s["name"], "its name", style="green"),
    Column("Start", lambda s: s["address"], "its first address", right=True),
    size_column("Size", lambda s: s["size"], "bytes in memory"),
    size_column("InFile", lambda s: s["file_size"], "bytes in the file", rank=2),
    Column("Access", lambda s: s["access"], "r, w, x by its characteristics"),
    size_column("InDump", lambda s: s["bytes_in_dump"], "bytes of it that the dump holds", rank=1),
)
INLINE: tuple[Column[InlineHook], ...] = (
    Column("Entry", lambda h: f"{h.address:#x}", "address of the function", right=True),
    Column("Function", lambda h: h.function, "the export that begins with a jump", flexible=20, style="red"),
    Column("LeadsTo", lambda h: h.name, "where the jump leads", flexible=24, style="red"),
    Column(
        "Trust", lambda h: h.trust.value, "derived: the file has other bytes; guess: by the shape of the code", rank=1
    ),
)
HOOK_GROUPS: tuple[Column[HookGroup], ...] = (
    Column("Module", lambda g: g.module.name, "whose import slots or exports are hooked", style="green"),
    Column("Hooks", lambda g: text.count(len(g.functions)), "import slots and exports that lead elsewhere", right=True),
    Column("LeadInto", lambda g: g.owner.name if g.owner else "no module", "the module that they lead into", style="red"),
    Column("Functions", lambda g: ", ".join(g.functions), "the hooked functions", flexible=20, wraps=True),
)  # fmt: skip
TEXTS: tuple[Column[ImageText], ...] = (
    Column("Address", lambda t: f"{t.address:#x}", "of its first character", right=True),
    Column("", lambda t: "u" if t.is_wide else "a", "a: ASCII, u: UTF-16"),
    Column("Text", lambda t: t.text, "6 printable characters or more", flexible=30),
)


def detail_record(detail: ModuleDetail, wanted: set[str], *, memory_only: bool) -> Record:
    """The members that a module in depth has beside those of the list."""
    out: Record = {
        "listed": detail.is_listed,
        "versions": [{"name": name, "value": value} for name, value in detail.versions.items()],
        "headers": _headers_record(detail),
        "hooks": hook_records(detail),
    }
    if "sections" in wanted:
        out["sections"] = sections(detail)
    if "imports" in wanted:
        imports = detail.memory_imports() if memory_only else detail.imports
        out["imports"] = [_import_record(one) for one in imports]
    if "exports" in wanted:
        out["exports"] = [
            {"name": one.name, "address": _hex(one.address), "forwarder": one.forwarder or None}
            for one in detail.exports
        ]
    if "strings" in wanted:
        out["strings"] = [{"address": hex(one.address), "text": one.text} for one in detail.texts()]
    return out


def hook_records(detail: ModuleDetail) -> list[Record]:
    """The hooked imports of a module, then its exports that begin with a jump elsewhere."""
    return [*map(_import_hook, detail.import_hooks), *map(_inline_hook, detail.inline_hooks)]


def _hex(value: int | None) -> str | None:
    return None if value is None else hex(value)


def _headers_record(detail: ModuleDetail) -> Record | None:
    from heapdump.analyses.by_hand.module_detail import MACHINES, SUBSYSTEMS

    if detail.image is None:
        return None
    own = detail.image.headers
    return {
        "machine": MACHINES.get(own.machine, hex(own.machine)),
        "subsystem": SUBSYSTEMS.get(own.subsystem, str(own.subsystem)),
        "subsystem_version": ".".join(map(str, own.subsystem_version)),
        "linker": ".".join(map(str, own.linker)),
        "entry_point": hex(detail.module.span.start + own.entry) if own.entry else None,
        "image_base": hex(own.image_base),
        "size": own.size,
        "timestamp": own.timestamp,
        "checksum": own.checksum,
        "characteristics": detail.characteristics,
        "source": detail.image.source,
    }


def sections(detail: ModuleDetail) -> list[Record]:
    """The section table as records."""
    base, present = detail.module.span.start, detail.process.space.mapped
    return [
        {
            "name": one.name, "address": hex(base + one.rva), "size": one.size, "file_size": one.file_size,
            "access": one.access, "characteristics": hex(one.characteristics),
            "bytes_in_dump": present.count_present(base + one.rva, base + one.rva + one.size),
        }
        for one in detail.sections
    ]  # fmt: skip


def _import_record(one: ImportState) -> Record:
    return {
        "dll": one.entry.dll, "name": one.entry.name, "slot": hex(one.slot), "target": _hex(one.target),
        "target_name": one.name or None, "module": one.owner.name if one.owner else None, "hook": one.is_hook,
        "delayed": one.entry.is_delayed,
    }  # fmt: skip


def _import_hook(one: ImportState) -> Record:
    return {
        "kind": "import", "function": f"{one.entry.dll}!{one.entry.name}", "address": hex(one.slot),
        "target": _hex(one.target), "target_name": one.name, "trust": "derived",
    }  # fmt: skip


def _inline_hook(one: InlineHook) -> Record:
    return {
        "kind": "inline", "function": one.function, "address": hex(one.address), "target": hex(one.target),
        "target_name": one.name, "trust": one.trust.value,
    }  # fmt: skip


def detail_page(request: Request, detail: ModuleDetail, wanted: set[str], *, memory_only: bool) -> Iterator[PageItem]:
    """The module's lines, then the tables that were asked for, and its hooks."""
    yield Lines(list(_head_lines(detail)))
    hooks = detail.import_hooks
    if hooks and "imports" not in wanted:
        shown, hidden = request.shown(hooks)
        yield Table(IMPORTS, shown, title="Hooked imports", hidden=hidden)
    if detail.inline_hooks:
        shown_inline, hidden = request.shown(detail.inline_hooks)
        yield Table(INLINE, shown_inline, title="Exports that begin with a jump elsewhere", hidden=hidden)
    yield from _tables(request, detail, wanted, memory_only=memory_only)


def _tables(request: Request, detail: ModuleDetail, wanted: set[str], *, memory_only: bool) -> Iterator[PageItem]:
    if "sections" in wanted:
        yield Table(SECTIONS, sections(detail), title="Sections", empty="no section is known")
    if "imports" in wanted:
        imports = detail.memory_imports() if memory_only else detail.imports
        shown, hidden = request.shown(imports)
        title = "Imports that allocate, map, protect or load" if memory_only else "Imports"
        yield Table(IMPORTS, shown, title=title, hidden=hidden, empty="none is known")
    if "exports" in wanted:
        shown_exports, hidden = request.shown(detail.exports)
        yield Table(EXPORTS, shown_exports, title="Exports", hidden=hidden, empty="none is known")
    if "strings" in wanted:
        shown_texts, hidden = request.shown(list(detail.texts()))
        yield Table(TEXTS, shown_texts, title="Texts", hidden=hidden, empty="none in the dump")


def _head_lines(detail: ModuleDetail) -> Iterator[StyledLine]:
    from heapdump.analyses.by_hand.module_detail import MACHINES, SUBSYSTEMS

    module = detail.module
    size = f"  {module.span.start:#x}..{module.span.end:#x}, {text.size(module.span.size)}"
    yield [(module.name, "bold"), (size, ""), ("" if detail.is_listed else "  in no module list", "red")]
    if module.path:
        yield [(module.path, "dim")]
    yield from _pdb_line(detail)
    for name in _VERSION_TEXTS:
        if detail.versions.get(name):
            yield [(f"{name}: ", "dim"), (detail.versions[name], "green" if name == "CompanyName" else "")]
    if detail.image is None:
        yield [("its headers are neither in the dump nor under --image-path", "yellow")]
        return
    own = detail.image.headers
    entry = f", entry point {module.span.start + own.entry:#x}" if own.entry else ""
    machine, kind = MACHINES.get(own.machine, hex(own.machine)), SUBSYSTEMS.get(own.subsystem, str(own.subsystem))
    yield [(f"{machine}, {kind}, linker {own.linker[0]}.{own.linker[1]}, linked {_date(own.timestamp)}{entry}", "")]
    yield [(", ".join(detail.characteristics), "dim")]
    if detail.unreadable_tables:
        yield [
            (
                f"not in the dump: {', '.join(detail.unreadable_tables)}; --image-path DIR names the folder of its file",
                "yellow",
            )
        ]
    dlls = len({one.entry.dll.lower() for one in detail.imports})
    imports = f"{text.plural(len(detail.imports), 'import')} of {text.plural(dlls, 'DLL')}"
    hooked = len(detail.import_hooks) + len(detail.inline_hooks)
    counts = f"{imports}, {text.plural(len(detail.exports), 'export')}"
    yield [(counts, ""), (f", {text.plural(hooked, 'hook')}" if hooked else "", "red")]


def _pdb_line(detail: ModuleDetail) -> Iterator[StyledLine]:
    """The PDB that the image names, and where it came from."""
    pdb, found = detail.module.pdb, detail.namer.pdb_source(detail.module)
    if pdb is None or found is None:
        return
    where = f"from {found.source}" if found.source else f"not found: {found.reason}"
    yield [
        ("PDB: ", "dim"),
        (f"{pdb.path} {pdb.guid}{pdb.age:X}, ", ""),
        (where, "green" if found.source else "yellow"),
    ]


def _date(timestamp: int) -> str:
    """The link time; reproducible builds store a hash there, which gives no plausible date."""
    when = datetime.datetime.fromtimestamp(timestamp, datetime.UTC)
    return when.strftime("%Y-%m-%d") if 1990 <= when.year <= 2035 else f"{timestamp:#x}"
