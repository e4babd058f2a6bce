"""Functions and lines of a PDB, through purepdb; found by GUID and age in the stores of a symbol path (`store.py`)."""

from __future__ import annotations

import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from heapdump.dump.streams import PdbId
from heapdump.process.symbols.frame_data import FrameRecord, read_frame_data
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.symbols.stored_files import wanted_pdb

T = TypeVar("T")
_FARTHEST_LINE = 0x10000
_LONGEST_NAME = 4096
_CALL = re.compile(r"\b__(?:cdecl|stdcall|thiscall|fastcall|vectorcall|clrcall|regcall|pascal) ")


class PdbSymbols:
    """The code symbols of one PDB, by RVA."""

    def __init__(self, path: Path) -> None:
        """Reads names and lines once.

        Raises:
            PdbError, OSError, ValueError, struct.error, IndexError: no PDB, or a damaged one.
        """
        from purepdb import PDB

        with PDB.open(str(path)) as pdb:
            self._frame_data = read_frame_data(pdb)
            found = sorted((f.rva, f.code_size or 0, f.name) for f in pdb.functions() if f.rva is not None)
            records = pdb.lines()  # type: ignore[no-untyped-call]
            lines = sorted((line.rva, line.line, line.file) for line in records if line.rva is not None)
            inlined = sorted(
                (site.rva + offset - site.ranges[0][0], length, site.name)
                for site in pdb.inline_sites()
                if site.rva is not None and site.name
                for offset, length in site.ranges
            )
        self._starts = np.array([rva for rva, _, _ in found], np.int64)
        self._functions = found
        self._line_starts = np.array([rva for rva, _, _ in lines], np.int64)
        self._lines = lines
        self._inline_starts = np.array([start for start, _, _ in inlined], np.int64)
        self._inlined = inlined
        self._longest = max((length for _, length, _ in inlined), default=0)

    def function_at(self, rva: int) -> tuple[str, int, bool] | None:
        """(name as in the source, its RVA, True where its length is known) of the function that holds an RVA.

        Public symbols have no length: of those the nearest below.
        """
        i = int(np.searchsorted(self._starts, rva, side="right")) - 1
        if i < 0:
            return None
        start, size, name = self._functions[i]
        return (undecorated(name), start, size > 0) if not size or rva < start + size else None

    def rva_of(self, name: str) -> int | None:
        """The RVA of the function with that name, decorated or as in the source; None without one."""
        return next((rva for rva, _, known in self._functions if name in (known, undecorated(known))), None)

    def frame_record_at(self, rva: int) -> FrameRecord | None:
        """How the x86 code at an RVA finds its caller; None where the PDB does not say it."""
        return self._frame_data.at(rva)

    def inlined_at(self, rva: int) -> list[str]:
        """Names of the functions that were inlined where an RVA lies, innermost first."""
        last = int(np.searchsorted(self._inline_starts, rva, side="right"))
        first = int(np.searchsorted(self._inline_starts, rva - self._longest, side="right"))
        around = [(length, -start, name) for start, length, name in self._inlined[first:last] if rva < start + length]
        return [undecorated(name) for _, _, name in sorted(around)]

    def line_at(self, rva: int, function: int) -> tuple[str, int] | None:
        """(file, line) of the line record at an RVA, else of the last one below it.

        None where that record lies below `function`, the RVA of the function's start, or 64 KiB or more below the RVA.
        """
        # of several records at one address the first is meant by it, the last by what follows (as llvm-symbolizer says)
        first = int(np.searchsorted(self._line_starts, rva, side="left"))
        exact = first < len(self._lines) and self._lines[first][0] == rva
        i = first if exact else first - 1
        if i < 0:
            return None
        start, line, file = self._lines[i]
        return (file, line) if start >= function and rva - start < _FARTHEST_LINE and line else None


def open_symbols(stores: str | SymbolStores, wanted: PdbId, notes: list[str]) -> PdbSymbols | None:
    """The symbols of the PDB with that GUID and age, or None. `notes` gets a line for each file that cannot be used."""
    return find_pdb(stores, wanted, notes, PdbSymbols)


def find_pdb(stores: str | SymbolStores, wanted: PdbId, notes: list[str], read: Callable[[Path], T]) -> T | None:
    """The result of `read` for the first PDB with that GUID and age that it can read; None without one.

    `stores`: those of a symbol path, or its text. `notes` gets a line for each file that cannot be used.
    """
    found = stores if isinstance(stores, SymbolStores) else SymbolStores(stores, notes)
    file = wanted_pdb(wanted)
    if file is None:
        return None
    for candidate in found.candidates(file, lambda path: _refusal(path, wanted)):
        try:
            return read(candidate.path)
        except _unreadable() as error:
            found.note(file, f"{candidate.path} cannot be read as a PDB: {error}")
    return None


@dataclass(frozen=True, slots=True)
class PdbSource:
    """Where the PDB of a module was found.

    Attributes:
        source: URL or path that it came from; None where it was not found.
        reason: why it was not found; None where it was.
    """

    source: str | None
    reason: str | None


def source_of(stores: SymbolStores, wanted: PdbId) -> PdbSource:
    """Where the PDB with that GUID and age is, by the stores; servers among them are asked."""
    file = wanted_pdb(wanted)
    if file is None:
        reason = "its name is no file name" if wanted.path.strip("\0 ") else "the image names no file"
        return PdbSource(None, reason)
    if not stores:
        return PdbSource(None, "no symbol path was given")
    candidate = next(stores.candidates(file, lambda path: _refusal(path, wanted)), None)
    return PdbSource(candidate.source, None) if candidate else PdbSource(None, stores.reason(file))


def _unreadable() -> tuple[type[Exception], ...]:
    """What purepdb raises for a damaged file."""
    from purepdb import PdbError

    return (PdbError, OSError, ValueError, struct.error, IndexError, KeyError, EOFError)


def _refusal(path: Path, wanted: PdbId) -> str:
    """Why a file is not the PDB, or ""."""
    try:
        return "" if _is_wanted(path, wanted) else "is another build's: its GUID or age is not the module's"
    except _unreadable() as error:
        return f"cannot be read as a PDB: {error}"


def _is_wanted(path: Path, wanted: PdbId) -> bool:
    """The image's age is that of the last link; the PDB's own may be higher."""
    from purepdb import PDB

    with PDB.open(str(path)) as pdb:
        info = pdb.info()
    return uuid.UUID(bytes_le=bytes(info.guid)).hex.upper() == wanted.guid.upper() and info.age >= wanted.age


def undecorated(name: str) -> str:
    """A decorated name as in the source, without its parameters; itself where pycxxfilt is not installed.

    Long names stay as they are: the demangler is native code that recurses as deep as the name says.
    """
    if not name.startswith("?") or len(name) > _LONGEST_NAME:
        return name
    try:
        import pycxxfilt
    except ImportError:
        return name
    try:
        plain = pycxxfilt.msvc_demangle(name)
    except ValueError:
        return name
    return _bare(plain) or name if plain else name


def _bare(plain: str) -> str:
    """`public: void __cdecl at::Tensor::foo(int)` → `at::Tensor::foo`; "" where it is not clear what the name is."""
    depth = 0
    for i, letter in enumerate(plain):
        depth += (letter in "(<`") - (letter in ")>'")
        if depth == 0 and (call := _CALL.match(plain, i)):
            return _name_of(plain[call.end() :])
    return ""


def _name_of(text: str) -> str:
    """The text before the parameters. `<`, `>` and `()` of operator names are no brackets."""
    depth = 0
    for i, letter in enumerate(text):
        if depth == 0 and text.startswith("operator", i) and (i == 0 or text[i - 1] == ":"):
            end = text.find("(", i + len("operator") + (2 if text.startswith("operator()", i) else 0))
            return text[:end] if end > 0 else ""
        if depth == 0 and letter == "(":
            return text[:i]
        depth += (letter in "<`") - (letter in ">'")
    return ""
