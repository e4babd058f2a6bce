"""What pointers of a program lead to, by the declarations in its PDBs: for each type its size and its own pointers.

In: the types of PDBs. Out: `DeclaredShapes`, numbers of types that blocks can have: structures, arrays of
pointers, arrays of numbers. Types of bytes and characters tell less than the bytes themselves and are left out, like
functions and void.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from heapdump.process.model import Module, Process
from heapdump.process.symbols.pdb_program import PdbProgram, is_of_windows
from heapdump.process.types import Type, TypeKind

_MOST_FIELDS, _DEEPEST, _MOST_SHAPES = 4096, 8, 1 << 16
_CLASSES = (
    (re.compile(r"(?:class|struct) (.+) \((.+)\)"), "{}"),
    (re.compile(r"control block and (.+) \((.+)\)"), "std::_Ref_count_obj2<{}>"),
    (re.compile(r"control block of a (.+) \((.+)\)"), "std::_Ref_count<{}>"),
)
"""Labels, and the class that each is of."""

_NUMBERS = (TypeKind.UNSIGNED, TypeKind.SIGNED, TypeKind.FLOAT)


@dataclass(frozen=True, slots=True)
class DeclaredShape:
    """A type that blocks can have. `label`: its name for tables; `size`: bytes of one; `module`: number of its module.

    `is_struct`: False for elements of arrays of pointers or numbers.
    """

    label: str
    size: int
    module: int
    type: Type
    is_struct: bool


Fields = tuple[tuple[int, int], ...]
"""(offset in bytes, number of the shape that the pointer there leads to)."""


class DeclaredShapes:
    """The shapes of the PDBs of a process, made when they are asked for."""

    def __init__(self, programs: list[tuple[Module, PdbProgram]]) -> None:
        """`programs`: the modules with a PDB."""
        self.programs = programs
        self._shapes: list[DeclaredShape] = []
        self._numbers: dict[tuple[int, str], int | None] = {}
        self._fields: dict[int, Fields] = {}
        self._of_struct: dict[tuple[int, str, int], list[tuple[int, Type]]] = {}

    def __getitem__(self, number: int) -> DeclaredShape:
        """The shape of a number."""
        return self._shapes[number]

    def __len__(self) -> int:
        """The number of shapes so far."""
        return len(self._shapes)

    @property
    def key(self) -> str:
        """A text that is another one where other PDBs are read, for answers that are kept."""
        return "\n".join(
            f"{place.name} {place.span.start:#x} {place.pdb} {program.stamp}" for place, program in self.programs
        )

    def width(self, module: int) -> int:
        """Bytes of a pointer of a module."""
        return self.programs[module][1].types.pointer_bytes

    @cached_property
    def roots(self) -> list[tuple[int, int, int]]:
        """(address of a pointer, number of the shape it leads to, module) of all variables."""
        out = []
        for module, (place, program) in enumerate(self.programs):
            for variable in program.variables:
                fields = self._own_fields(module, variable.type)
                out += [(place.span.start + variable.rva + offset, number, module) for offset, number in fields]
        return out

    def of_class(self, module: int, name: str) -> int | None:
        """The shape of the class of that name, blanks aside; None where the PDB does not define it."""
        known = self._class_names[module].get(_squeezed(name))
        found = self.programs[module][1].types.struct(known) if known else None
        return (
            None if found is None else self._number(module, Type(TypeKind.STRUCT, found.size, found.name, found.name))
        )

    @cached_property
    def _class_names(self) -> list[dict[str, str]]:
        return [{_squeezed(name): name for name in program.types.names()} for _, program in self.programs]

    @cached_property
    def vtables(self) -> dict[int, str]:
        """Address of a vtable → the label of its class."""
        out = {}
        for module, (place, program) in enumerate(self.programs):
            for rva, name in program.vtables.items():
                known = self._class_names[module].get(_squeezed(name), name)
                keyword = program.types.keyword(known) or "class"
                out[place.span.start + rva] = f"{keyword} {name} ({place.name})"
        return out

    def of_label(self, label: str) -> int | None:
        """The shape of the class of a label, `class ns::Foo (camera.dll)`; None for other labels."""
        for pattern, form in _CLASSES:
            found = pattern.fullmatch(label)
            places = [i for i, (place, _) in enumerate(self.programs) if found and place.name == found[2]]
            if found and places:
                return self.of_class(places[0], form.format(found[1]))
        return None

    def place(self, address: int) -> str | None:
        """`app.exe!g_sessions+0x10` for an address in a variable; None elsewhere."""
        for place, program in self.programs:
            if place.span.start <= address < place.span.end:
                name = program.variable_at(address - place.span.start)
                return f"{place.name}!{name}" if name else None
        return None

    def fields(self, number: int) -> Fields:
        """The pointers of one element of a shape."""
        if number not in self._fields:
            shape = self[number]
            self._fields[number] = self._own_fields(shape.module, shape.type)
        return self._fields[number]

    def has_functions(self, number: int) -> bool:
        """True for a class with virtual functions: its objects begin with a vtable."""
        shape = self[number]
        return shape.is_struct and self._begins_with_vtable(shape.module, shape.type.target, 0)

    def _begins_with_vtable(self, module: int, name: str, depth: int) -> bool:
        found = self.programs[module][1].types.struct(name)
        if found is None or depth > _DEEPEST:
            return False
        first = [member for member in found.members if member.offset == 0]
        return any(
            member.name == "(vtable)"
            or (member.name.startswith("(") and self._begins_with_vtable(module, member.type.target, depth + 1))
            for member in first
        )

    def _own_fields(self, module: int, kind: Type) -> Fields:
        """Pointers to two kinds of things at one place, of a union for instance, are none."""
        found: dict[int, set[int | None]] = {}
        for offset, pointee in self._pointers(module, kind, 0):
            found.setdefault(offset, set()).add(self._number(module, pointee))
        single = ((offset, next(iter(numbers))) for offset, numbers in sorted(found.items()) if len(numbers) == 1)
        return tuple((offset, number) for offset, number in single if number is not None)

    def _pointers(self, module: int, kind: Type, depth: int) -> list[tuple[int, Type]]:
        """(offset, type of what is pointed to) of the pointers in a variable, the first thousands."""
        element = kind.element
        if depth > _DEEPEST or (element is None and kind.kind is not TypeKind.STRUCT):
            return []
        if kind.kind is TypeKind.STRUCT:
            key = (module, kind.target, depth)
            if key not in self._of_struct:
                self._of_struct[key] = self._members(module, kind.target, depth)
            return self._of_struct[key]
        if element is not None and kind.kind is TypeKind.POINTER:
            return [(0, element)]
        own = self._pointers(module, element, depth + 1) if element is not None and element.size else []
        count = min(kind.count, _MOST_FIELDS // max(1, len(own))) if own and element is not None else 0
        size = element.size if element is not None else 0
        return [(i * size + offset, pointee) for i in range(count) for offset, pointee in own]

    def _members(self, module: int, name: str, depth: int) -> list[tuple[int, Type]]:
        """Likewise of a structure."""
        found = self.programs[module][1].types.struct(name)
        out: list[tuple[int, Type]] = []
        for member in found.members if found else ():
            own = self._pointers(module, member.type, depth + 1)
            out += [(member.offset + offset, pointee) for offset, pointee in own[: _MOST_FIELDS - len(out)]]
        return out

    def _number(self, module: int, kind: Type) -> int | None:
        """The number of the shape of a type; None for one that tells nothing."""
        key = (module, kind.text)
        if key not in self._numbers:
            made = self._made(module, kind) if len(self._shapes) < _MOST_SHAPES else None
            self._numbers[key] = None if made is None else len(self._shapes)
            self._shapes += [] if made is None else [made]
        return self._numbers[key]

    def _made(self, module: int, kind: Type) -> DeclaredShape | None:
        place, program = self.programs[module]
        if kind.size <= 0:
            return None
        if kind.kind is TypeKind.STRUCT:
            keyword = program.types.keyword(kind.target) or "struct"
            return DeclaredShape(f"{keyword} {kind.text} ({place.name})", kind.size, module, kind, is_struct=True)
        is_pointer = kind.kind is TypeKind.POINTER and kind.element is not None
        if is_pointer or (kind.kind in _NUMBERS and kind.size > 1):
            return DeclaredShape(f"{kind.text}[] ({place.name})", kind.size, module, kind, is_struct=False)
        return None


def shapes_of(process: Process, program: Callable[[Module], PdbProgram | None]) -> DeclaredShapes | None:
    """The shapes of the process; None where no module of its own has a PDB. Those of Windows are not asked for."""
    own = [module for module in process.modules if not is_of_windows(module)]
    found = [(module, one) for module in own if (one := program(module)) is not None]
    return DeclaredShapes(found) if found else None


def _squeezed(name: str) -> str:
    return name.replace(" ", "")
