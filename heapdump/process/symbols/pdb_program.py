"""What a PDB says of the data of its module: variables with their types, and the classes whose vtables lie where.

In: symbol records, through purepdb. Out: `PdbProgram`. Public symbols `??_7Foo@ns@@6B@` name vtables, also of programs
without run-time type information.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from heapdump.dump.streams import PdbId
from heapdump.process.model import Module
from heapdump.process.symbols.msvc_names import undecorated
from heapdump.process.symbols.pdb import find_pdb
from heapdump.process.symbols.pdb_types import STREAM, PdbTypes
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.types import Type

_VTABLE, _END = "??_7", "@6B"


@dataclass(frozen=True, slots=True)
class PdbVariable:
    """A variable at a fixed place: global, or static in a file, function or class. `rva`: from the module's start."""

    rva: int
    name: str
    type: Type


@dataclass(frozen=True)
class PdbProgram:
    """The types, variables and vtables of one PDB.

    Attributes:
        types: all structures.
        variables: those of the module's data, ascending by RVA.
        vtables: RVA → class.
        stamp: size and time of the file, which is another one where they differ.
    """

    types: PdbTypes
    variables: tuple[PdbVariable, ...]
    vtables: dict[int, str]
    stamp: str

    def variable_at(self, rva: int) -> str | None:
        """`g_sessions`, or `g_table+0x10` for a place inside a variable; None where none of them lies."""
        place = bisect_right(self._rvas, rva) - 1
        if place < 0:
            return None
        found = self.variables[place]
        inside = rva - found.rva
        if inside >= max(found.type.size, 1):
            return None
        return f"{found.name}+{inside:#x}" if inside else found.name

    @cached_property
    def _rvas(self) -> list[int]:
        return [variable.rva for variable in self.variables]


def open_program(stores: str | SymbolStores, wanted: PdbId, notes: list[str], pointer_bytes: int) -> PdbProgram | None:
    """What the PDB with that GUID and age says, or None. `notes` gets a line for each file that cannot be used."""

    def read(path: Path) -> PdbProgram:
        """The program of a file."""
        from purepdb import PDB, MsfFile

        with MsfFile.open(str(path)) as file:
            types = PdbTypes(file.read_stream(STREAM), pointer_bytes)
        with PDB.open(str(path)) as pdb:
            places = [(pdb.to_rva(one.segment, one.offset), one.name, one.type_index) for one in pdb.data_symbols()]
            publics = [one for one in pdb.public_symbols() if one.name.startswith(_VTABLE)]
            vtables = {pdb.to_rva(one.segment, one.offset): class_of(one.name) for one in publics}
        known = sorted((rva, name, kind) for rva, name, kind in places if rva is not None)
        variables = tuple(PdbVariable(rva, name, types.type(kind)) for rva, name, kind in known)
        state = path.stat()
        named = {rva: name for rva, name in vtables.items() if rva is not None and name}
        return PdbProgram(types, variables, named, f"{state.st_size} {state.st_mtime_ns}")

    return find_pdb(stores, wanted, notes, read)


def is_of_windows(module: Module) -> bool:
    """True for modules below the Windows folder; their PDBs are not read for types and variables."""
    return "\\windows\\" in module.path.lower()


def class_of(vtable: str) -> str:
    """`??_7Foo@ns@@6B@` → `ns::Foo`; "" where it is not clear what the name is."""
    name = vtable.removeprefix(_VTABLE)
    for end in (i for i in range(len(name)) if name.startswith(_END, i)):
        found = undecorated(name[:end])
        if found != name[:end] or found.rstrip("@").isidentifier():
            return found
    return ""
