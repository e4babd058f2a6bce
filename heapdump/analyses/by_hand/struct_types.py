"""Structures by the name that a person gives: of the build's layouts, or of the PDBs that are at hand."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from heapdump.errors import WrongUsage
from heapdump.process.model import Module, Process
from heapdump.process.types import StructType, TypeSource

_SYSTEM = ("nt", "ntdll", "ntdll.dll")


@dataclass(frozen=True, slots=True)
class Found:
    """A structure, and the source that has the types of its members."""

    struct: StructType
    source: TypeSource


def find_struct(
    process: Process, layout: TypeSource, types_of: Callable[[Module], TypeSource | None], name: str
) -> Found:
    """The structure that a name means: `_HEAP`, `heap`, `nt!_HEAP`, or `app!ns::Task` of a PDB.

    `types_of`: the types of a module's PDB. Without a module the layouts come first, then the PDBs of the program's own
    modules, then those of Windows.

    Raises:
        WrongUsage: no structure has that name; the message names similar ones.
    """
    module, bang, own = name.rpartition("!")
    places: Iterable[TypeSource | None] = [layout]
    if bang and module.lower() not in _SYSTEM:
        places = [types_of(_module(process, module))]
    elif not bang:
        places = itertools.chain(places, (types_of(one) for one in _own_first(process)))
    near: list[str] = []
    for source in places:
        if source is None:
            continue
        found = _named(source, own)
        if found is not None:
            return Found(found, source)
        near += _similar(own, source.names())
    raise WrongUsage(f"no structure {name!r}{_suggestion(near)}; heapdump struct lists those that there are")


def _suggestion(near: Sequence[str]) -> str:
    return f"; did you mean {', '.join(near[:3])}?" if near else ""


def _module(process: Process, name: str) -> Module:
    lower = name.lower()
    for module in process.modules:
        if lower in (module.name.lower(), module.name.lower().rpartition(".")[0]):
            return module
    raise WrongUsage(f"no module {name!r}; heapdump modules lists those that there are")


def _own_first(process: Process) -> list[Module]:
    """Modules outside the Windows folder first."""
    return sorted(process.modules, key=lambda module: "\\windows\\" in module.path.lower())


def _named(source: TypeSource, name: str) -> StructType | None:
    """The structure of a source: with or without the underscore, in any case."""
    for spelling in (name, f"_{name}"):
        if (found := source.struct(spelling)) is not None:
            return found
    lower = name.lower().lstrip("_")
    alike = next((known for known in source.names() if known.lower().lstrip("_") == lower), None)
    return source.struct(alike) if alike else None


def _similar(name: str, names: Sequence[str]) -> list[str]:
    return difflib.get_close_matches(name if name.startswith("_") else f"_{name}", names, 3)
