"""Names of code addresses: `module!symbol+0x8b`, by PDBs and by exports of images, each with its trust.

exact: module and offset without a symbol, or a function of a PDB with its length. derived: the nearest public symbol
of a PDB, or an export in the same function by the image's unwind data. guess: the nearest export below, on x86, whose
images do not say where functions end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from heapdump.memory.regions import State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.foreign_code import ForeignCode, NoForeignCode
from heapdump.process.symbols.frame_data import FrameRecord
from heapdump.process.symbols.generated import GeneratedCode
from heapdump.process.symbols.images import Image, file_image, open_image
from heapdump.process.symbols.imports import Import
from heapdump.process.symbols.pdb import PdbSource, PdbSymbols, open_symbols, source_of
from heapdump.process.symbols.pdb_program import PdbProgram, is_of_windows, open_program
from heapdump.process.symbols.pdb_types import open_types
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.types import TypeSource
from heapdump.spans import SpanMap
from heapdump.trust import Trust

_FARTHEST_GUESS = 0x4000
"""Bytes behind an export in which it names code where function bounds are not known; few functions are longer."""


_NAMESPACES = re.compile(r"(?:\w+\.)+(?=\w)")


@dataclass(frozen=True, slots=True)
class Frame:
    """A code address with its name.

    Attributes:
        address: the address.
        module: name of the module without extension; None for an address in no loaded module.
        symbol: name of the function; None where none is known.
        offset: bytes from the start of the symbol, or of the module where there is no symbol; None without a module.
        file: source file; None where no PDB says it.
        line: line in that file, from 1 on; None as `file`.
        trust: in the name.
        note: kind of code outside of modules: unloaded module, .NET code …; "" for none.
        signature: types of a managed method's parameters, `(System.Int32, T)`; None where they are not known.
    """

    address: int
    module: str | None
    symbol: str | None
    offset: int | None
    file: str | None
    line: int | None
    trust: Trust
    note: str = ""
    signature: str | None = None

    def __str__(self) -> str:
        """`halcon!HXmalloc+0x8b`, `Acme!Acme.Gate.Park(Int32)+0x1a`, `module+0x1234`, or `0x7fe83e3bcf6`."""
        if self.module is None:
            return f"{self.address:#x}{f' ({self.note})' if self.note else ''}"
        if self.symbol is None:
            return f"{self.module}+{self.offset:#x}{f' ({self.note})' if self.note else ''}"
        where = f"{self.module}!{self.symbol}{_short(self.signature)}" + (f"+{self.offset:#x}" if self.offset else "")
        where += f" ({self.note})" if self.note else ""
        return f"{where} [{self.file}:{self.line}]" if self.file else where


def _short(signature: str | None) -> str:
    """A signature without the namespaces of its types."""
    return _NAMESPACES.sub("", signature or "")


class Namer:
    """Names addresses. Parses the image of a module when an address in it is first named."""

    def __init__(
        self,
        process: Process,
        images: SymbolStores | None = None,
        symbol_path: str | SymbolStores = "",
        notes: list[str] | None = None,
        *,
        code: ForeignCode | None = None,
    ) -> None:
        """`images`: stores of image files for modules whose memory is not in the dump.

        `symbol_path`: the stores of PDBs and images, or the text that names them.
        `notes` gets a line for each PDB that cannot be used. `code`: of the runtimes of the process.
        """
        self.code: ForeignCode = NoForeignCode() if code is None else code
        self._process, self._images = process, images
        self.notes: list[str] = [] if notes is None else notes
        self._stores = SymbolStores(symbol_path, self.notes) if isinstance(symbol_path, str) else symbol_path
        self._symbols = cache(self._read_symbols)
        self.return_addresses: dict[tuple[str, int], int] = {}
        """(arch, address) → `Returns` of process/stacks as a number, as far as that was asked."""
        self.types = cache(self._types)
        self.program = cache(self._program)
        self._import_slots = cache(self._slots)
        self._unloaded = SpanMap((module.span, module) for module in process.unloaded)
        self.image = cache(self._image)
        self.name = cache(self._name)
        self._generated = GeneratedCode(process, self.image)

    def frame(self, address: int) -> Frame:
        """The frame of a return address: the call before it counts, which may be the last of its function."""
        return self.name(address, 1)

    def frames(self, address: int) -> tuple[Frame, ...]:
        """The frames of a return address, innermost first: functions inlined there (PDB), then the function itself."""
        own = self.frame(address)
        module = self._process.module_map.at(address - 1)
        symbols = self._symbols(module) if module and own.symbol else None
        if module is None or symbols is None:
            return (own,)
        names = symbols.inlined_at(address - 1 - module.span.start)
        return (*(Frame(address, module.name, name, None, None, None, Trust.DERIVED, "inline") for name in names), own)

    def import_at(self, address: int) -> str | None:
        """`kernel32.dll!VirtualAlloc` for the slot of an import address table; None elsewhere."""
        module = self._process.module_map.at(address)
        if module is None:
            return None
        slots = self._import_slots(module)
        found = slots.get(address - module.span.start)
        return f"{found.dll}!{found.name}" if found and found.name else None

    def _slots(self, module: Module) -> dict[int, Import]:
        image = self.image(module)
        return {one.slot: one for one in image.imports} if image else {}

    def frame_record(self, address: int) -> FrameRecord | None:
        """How the x86 code at an address finds its caller, by the PDB of its module; None where none says it."""
        module = self._process.module_map.at(address)
        symbols = self._symbols(module) if module else None
        return symbols.frame_record_at(address - module.span.start) if module and symbols else None

    def file_of(self, module: Module) -> Image | None:
        """The image of the module's file under the image path; None where it is not there."""
        return file_image(module, self._images) if self._images else None

    def pdb_source(self, module: Module) -> PdbSource | None:
        """Where the module's PDB came from, or why it was not found; None for a module that names none."""
        return source_of(self._stores, module.pdb) if module.pdb else None

    def address_of(self, module: Module, symbol: str) -> int | None:
        """The address of an export, or of a function of the module's PDB; None without one of that name."""
        image, symbols = self.image(module), self._symbols(module)
        rva = image.exports.rva_of(symbol) if image else None
        if rva is None and symbols is not None:
            rva = symbols.rva_of(symbol)
        return None if rva is None else module.span.start + rva

    def variable_at(self, address: int) -> str | None:
        """`app.exe!g_sessions+0x10` for an address in a variable of the program's own, by its PDB; None elsewhere."""
        module = self._process.module_map.at(address)
        program = None if module is None or is_of_windows(module) else self.program(module)
        name = program.variable_at(address - module.span.start) if module and program else None
        return f"{module.name}!{name}" if module and name else None

    def _types(self, module: Module) -> TypeSource | None:
        """The types of the module's PDB; None where no store of the symbol path has it."""
        if not self._stores or module.pdb is None:
            return None
        return open_types(self._stores, module.pdb, self.notes, self._pointer_bytes(module))

    def _program(self, module: Module) -> PdbProgram | None:
        """The types, variables and vtables of the module's PDB; None where no store of the symbol path has it."""
        if not self._stores or module.pdb is None:
            return None
        return open_program(self._stores, module.pdb, self.notes, self._pointer_bytes(module))

    def _pointer_bytes(self, module: Module) -> int:
        return 8 if self._process.arch == "x64" or module.span.start >> 32 > 0 else 4

    def _image(self, module: Module) -> Image | None:
        return open_image(self._process.space, module, self._images, lambda: file_image(module, self._stores))

    def _name(self, address: int, back: int) -> Frame:
        """The frame of an address, by the function that holds `address - back`."""
        module = self._process.module_map.at(address - back)
        managed = self.code.name(address - back)
        if managed is not None and managed.symbol is not None:
            symbol, offset = managed.symbol, managed.offset + back
            signature = managed.signature
            return Frame(address, managed.module, symbol, offset, None, None, managed.trust, managed.note, signature)
        if managed is not None:
            name, rva = (module.name, address - module.span.start) if module else (None, None)
            return Frame(address, name, None, rva, None, None, managed.trust, managed.note)
        if module is None:
            return self._elsewhere(address)
        rva = address - module.span.start
        symbols = self._symbols(module)
        known = symbols.function_at(rva - back) if symbols else None
        if symbols is not None and known is not None:
            name, start, is_exact = known
            file, line = symbols.line_at(rva - back, start) or (None, None)
            return Frame(
                address, module.name, name, rva - start, file, line, Trust.EXACT if is_exact else Trust.DERIVED
            )
        found = self._export(module, rva - back)
        if found is None:
            return Frame(address, module.name, None, rva, None, None, Trust.EXACT)
        name, start, trust = found
        return Frame(address, module.name, name, rva - start, None, None, trust)

    def _read_symbols(self, module: Module) -> PdbSymbols | None:
        if not self._stores or module.pdb is None:
            return None
        return open_symbols(self._stores, module.pdb, self.notes)

    def _export(self, module: Module, rva: int) -> tuple[str, int, Trust] | None:
        """(export, its RVA, trust) for code at an RVA; None where the nearest export is another function's."""
        image = self.image(module)
        found = image.exports.at(rva) if image else None
        if image is None or found is None:
            return None
        name, start = found
        if image.is_x64 and len(image.functions):
            function = image.function_at(rva)
            inside = start == rva if function is None else function[0] <= start
            return (name, start, Trust.DERIVED) if inside else None
        return (name, start, Trust.GUESS) if rva - start < _FARTHEST_GUESS else None

    def _elsewhere(self, address: int) -> Frame:
        """The frame of an address in no loaded module."""
        unloaded = self._unloaded.at(address)
        if unloaded is not None:
            offset = address - unloaded.span.start
            return Frame(address, unloaded.name, None, offset, None, None, Trust.DERIVED, "unloaded")
        found = self._generated.at(address)
        if found is not None:
            return Frame(address, None, None, None, None, None, found.trust, found.note)
        regions = self._process.regions
        i = regions.index_at(address)
        is_free = regions.is_complete_map and (i is None or regions.state[i] != State.MEM_COMMIT)
        return Frame(address, None, None, None, None, None, Trust.EXACT, "no memory" if is_free else "")
