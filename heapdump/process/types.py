"""Types of structures as a person reads them: members with nested structures, arrays, pointers, bit fields.

Layout files and PDBs give the same records; a `TypeSource` is either of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from heapdump.layouts import Struct
from heapdump.layouts.members import all_structs
from heapdump.process.model import View

_SCALAR = re.compile(r"([ui])(8|16|32|64)")
_BITS = re.compile(r"(.+):bits\((\d+),(\d+)\)")
_ARRAY = re.compile(r"(.+)\[(\d+)\]")
_DEEPEST = 8


class TypeKind(StrEnum):
    """The kind of a type. UNKNOWN: a structure whose size is not known."""

    UNSIGNED = "unsigned"
    SIGNED = "signed"
    FLOAT = "float"
    BOOL = "bool"
    CHAR = "char"
    WCHAR = "wchar"
    POINTER = "pointer"
    BITS = "bits"
    ENUM = "enum"
    ARRAY = "array"
    STRUCT = "struct"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Type:
    """A type. `size`: bytes, 0 where it is not known; `text`: as it is written.

    `target`: the structure's name, of a pointer the name of what it points to. `element`: of an array, or of a
    PDB's pointer what it points to; `count`: of an array; `bit`, `bits`: lowest bit and number of bits of a bit field
    in `size` bytes; `names`: (value, name) of an enumeration.
    """

    kind: TypeKind
    size: int
    text: str
    target: str = ""
    element: Type | None = None
    count: int = 1
    bit: int = 0
    bits: int = 0
    names: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Member:
    """A member: byte offset in its structure, and type."""

    name: str
    offset: int
    type: Type


@dataclass(frozen=True, slots=True)
class StructType:
    """A structure: size in bytes, members by offset. `source`, `confidence`: who says so, and how sure that is."""

    name: str
    size: int
    members: tuple[Member, ...]
    source: str
    confidence: str


class TypeSource(Protocol):
    """Structures by name."""

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""

    def struct(self, name: str) -> StructType | None:
        """The structure of that name; None where there is none."""

    def names(self) -> Sequence[str]:
        """The names of all structures, ascending."""


class LayoutTypes:
    """The structures of one build of Windows as types."""

    def __init__(self, structs: Mapping[str, Struct], pointer_bytes: int) -> None:
        """`structs`: by name, as `members.all_structs` gives them."""
        self._structs, self._pointer_bytes = structs, pointer_bytes

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self._pointer_bytes

    def names(self) -> Sequence[str]:
        """The names of all structures, ascending."""
        return sorted(self._structs)

    def struct(self, name: str) -> StructType | None:
        """The structure of that name; None where this build has none."""
        found = self._structs.get(name)
        if found is None:
            return None
        members = [Member(field, place.offset, self.type(place.type)) for field, place in found.fields.items()]
        members.sort(key=lambda member: (member.offset, -member.type.size, member.type.bit, member.name))
        return StructType(name, found.size, tuple(members), found.source, found.confidence)

    def type(self, text: str, depth: int = 0) -> Type:
        """A type as layout files write it: `u32`, `ptr:_HEAP`, `u16:bits(0,11)`, `_LIST_ENTRY[128]`."""
        if depth < _DEEPEST and (bits := _BITS.fullmatch(text)):
            storage = self.type(bits[1], depth + 1)
            shown = f"{storage.text}:{bits[3]}"
            return Type(TypeKind.BITS, storage.size, shown, bit=int(bits[2]), bits=int(bits[3]))
        if depth < _DEEPEST and (array := _ARRAY.fullmatch(text)):
            element, count = self.type(array[1], depth + 1), int(array[2])
            return Type(TypeKind.ARRAY, element.size * count, f"{element.text}[{count}]", element=element, count=count)
        if text == "ptr" or text.startswith("ptr:"):
            return self._pointer(text.partition(":")[2])
        if scalar := _SCALAR.fullmatch(text):
            kind = TypeKind.UNSIGNED if scalar[1] == "u" else TypeKind.SIGNED
            return Type(kind, int(scalar[2]) // 8, text)
        if text.startswith("enum "):
            return Type(TypeKind.UNSIGNED, 4, text)
        known = self._structs.get(text)
        if known is None:
            return Type(TypeKind.UNKNOWN, 0, text, target=text)
        return Type(TypeKind.STRUCT, known.size, text, target=text)

    def _pointer(self, target: str) -> Type:
        """`ptr:ptr:void` is a `void**`."""
        stars = "*"
        while target == "ptr" or target.startswith("ptr:"):
            target, stars = target.partition(":")[2], f"{stars}*"
        name = {"": "void", "pointer": "void*"}.get(target, target)
        return Type(TypeKind.POINTER, self._pointer_bytes, f"{name}{stars}", target=name if stars == "*" else "")


def types_of(view: View, layout: str | None = None) -> LayoutTypes:
    """The structures of Windows in a view, of the layout of that name; of None by the build."""
    return LayoutTypes(all_structs(layout or view.layout.name), view.pointer_bytes)
