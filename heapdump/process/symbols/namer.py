"""Names of code addresses: `module!export+0x8b` as well as the dump and the image files allow, each with its trust.

exact: the module and the offset in it are certain, or a PDB's function says so. derived: the nearest public symbol of a
PDB, or the export lies in the same function by the image's unwind data. guess: the nearest export below, on processors
whose images do not tell where functions end.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from heapdump.memory.regions import State
from heapdump.process.model import Module, Process
from heapdump.process.symbols.generated import GeneratedCode
from heapdump.process.symbols.images import Image, open_image
from heapdump.process.symbols.pdb import Symbols, open_symbols
from heapdump.spans import SpanMap
from heapdump.trust import Trust

_FARTHEST_GUESS = 0x4000
"""Bytes behind an export beyond which it names nothing where function bounds are not known: few functions are longer."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A code address with its name. `offset` counts from the symbol, or from the module where there is no symbol.

    `module` None: in no loaded module; `note` says what is there and why (unloaded module, .NET code …).
    """

    address: int
    module: str | None
    symbol: str | None
    offset: int | None
    file: str | None
    line: int | None
    trust: Trust
    note: str = ""

    def __str__(self) -> str:
        """`halcon!HXmalloc+0x8b`, `module+0x1234`, or `0x7fe83e3bcf6`."""
        if self.module is None:
            return f"{self.address:#x}{f' ({self.note})' if self.note else ''}"
        if self.symbol is None:
            return f"{self.module}+{self.offset:#x}{f' ({self.note})' if self.note else ''}"
        where = f"{self.module}!{self.symbol}" + (f"+{self.offset:#x}" if self.offset else "")
        where += f" ({self.note})" if self.note else ""
        return f"{where} [{self.file}:{self.line}]" if self.file else where


class Namer:
    """Names addresses; parses only the images of modules that are asked for, each once."""

    def __init__(
        self, process: Process, image_path: Path | None = None, symbol_path: str = "", notes: list[str] | None = None
    ) -> None:
        """`image_path`: folder of image files for modules whose memory is not in the dump; `symbol_path`: of PDBs.

        `notes` gets a line for each PDB that cannot be used.
        """
        self._process, self._image_path, self._symbol_path = process, image_path, symbol_path
        self.notes: list[str] = [] if notes is None else notes
        self._symbols = cache(self._read_symbols)
        self.returns: dict[tuple[str, int], bool] = {}
        self._unloaded = SpanMap((module.span, module) for module in process.unloaded)
        self.image = cache(self._image)
        self.name = cache(self._name)
        self._generated = GeneratedCode(process, self.image)

    def frame(self, address: int) -> Frame:
        """The frame of a return address: the call before it counts, which may be the last of its function."""
        return self.name(address, 1)

    def frames(self, address: int) -> tuple[Frame, ...]:
        """The frames of a return address, innermost first: functions that a PDB says were inlined there, and its own."""
        own = self.frame(address)
        module = self._process.module_map.at(address - 1)
        symbols = self._symbols(module) if module and own.symbol else None
        if module is None or symbols is None:
            return (own,)
        names = symbols.inlined_at(address - 1 - module.span.start)
        return (*(Frame(address, module.name, name, None, None, None, Trust.DERIVED, "inline") for name in names), own)

    def _image(self, module: Module) -> Image | None:
        return open_image(self._process.space, module, self._image_path)

    def _name(self, address: int, back: int) -> Frame:
        """`back`: bytes before the address at which the function is looked up."""
        module = self._process.module_map.at(address - back)
        if module is None:
            return self._elsewhere(address)
        rva = address - module.span.start
        symbols = self._symbols(module)
        known = symbols.function_at(rva - back) if symbols else None
        if symbols is not None and known is not None:
            name, start, is_sure = known
            file, line = symbols.line_at(rva - back, start) or (None, None)
            return Frame(address, module.name, name, rva - start, file, line, Trust.EXACT if is_sure else Trust.DERIVED)
        found = self._export(module, rva - back)
        if found is None:
            return Frame(address, module.name, None, rva, None, None, Trust.EXACT)
        name, start, trust = found
        return Frame(address, module.name, name, rva - start, None, None, trust)

    def _read_symbols(self, module: Module) -> Symbols | None:
        if not self._symbol_path or module.pdb is None:
            return None
        return open_symbols(self._symbol_path, module.pdb, self.notes)

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
        gone = self._unloaded.at(address)
        if gone is not None:
            offset = address - gone.span.start
            return Frame(address, gone.name, None, offset, None, None, Trust.DERIVED, "unloaded")
        found = self._generated.at(address)
        if found is not None:
            return Frame(address, None, None, None, None, None, found.trust, found.note)
        regions = self._process.regions
        i = regions.index_at(address)
        is_free = regions.is_complete_map and (i is None or regions.state[i] != State.MEM_COMMIT)
        return Frame(address, None, None, None, None, None, Trust.EXACT, "no memory" if is_free else "")
