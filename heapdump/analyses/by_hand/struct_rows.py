"""A structure in memory as rows: each member with its value; nested structures and arrays are opened."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from heapdump.analyses.by_hand.known_bytes import KnownBytes
from heapdump.blocks.decoded import Decoded
from heapdump.process.types import Member, StructType, Type, TypeKind, TypeSource
from heapdump.spans import Span

_MOST_ROWS, _DEEPEST = 20_000, 12
_INLINE = (
    "_LIST_ENTRY", "_UNICODE_STRING", "_STRING", "LIST_ENTRY", "UNICODE_STRING", "_HEAP_ENTRY", "_LARGE_INTEGER",
    "_ULARGE_INTEGER",
)  # fmt: skip
"""Structures that a table shows in one line."""

_OTHER_VIEWS = {
    "_HEAP_ENTRY": {
        "AgregateCode", "CompactHeader", "Code1", "Code2", "Code3", "Code4", "Code234", "InterceptorValue",
        "SubSegmentCode", "FunctionIndex", "ContextValue", "UnusedBytesLength", "EntryOffset", "LFHFlags",
        "ExtendedBlockSignature", "Reserved", "ReservedForAlignment",
    },
}  # fmt: skip
"""Structure → members that a table leaves out: other views of bytes that it shows."""

_SHOWN_BYTES = 16
_FEWEST_OVERLAID = 2
_FLOATS = {4: "<f", 8: "<d"}
Value = int | str | None


@dataclass(frozen=True, slots=True)
class StructRow:
    """One member. `field`: with the names of the structures around it, `Counters.TotalMemoryReserved`, `FreeLists[3]`.

    Attributes:
        offset: bytes from the start of the outermost structure.
        address: where it lies; the offset again where the structure is shown without memory.
        value: a number, or a text; None for a structure, for what is not known, and for what is not in the dump.
        is_missing: the dump lacks bytes of it.
        is_inner: a table may leave it out: the row of the structure around it says the same in one line.
    """

    offset: int
    field: str
    type: Type
    address: int
    value: Value = None
    is_missing: bool = False
    is_inner: bool = False
    owner: str = ""
    member: str = ""


@dataclass
class StructReader:
    """Reads structures of one memory into rows.

    Attributes:
        source: the types.
        decode: (name of a structure, address, bytes) → the structure decoded; None for one that is not encoded.
        elements: most elements of an array that get rows of their own.
        notes: collects sentences on how structures were decoded, and on what was left out.
    """

    source: TypeSource
    decode: Callable[[str, int, bytes], Decoded | None]
    elements: int = 16
    notes: list[str] = field(default_factory=list)
    _rows: int = 0

    def rows(self, struct_: StructType, memory: KnownBytes) -> Iterator[StructRow]:
        """The rows of a structure that begins where the memory does."""
        start = memory.span.start
        memory, is_plain = self._plain(struct_.name, "", memory, start)
        yield from self._members(struct_, memory, _StructPlace(start, 0, "", is_plain, False, 0))

    def _members(self, struct_: StructType, memory: KnownBytes, place: _StructPlace) -> Iterator[StructRow]:
        others = _overlays(struct_) | _OTHER_VIEWS.get(struct_.name, set())
        for member in struct_.members:
            inside = replace(place.inside(member), is_inner=place.is_inner or member.name in others)
            for row in self._rows_of(member.type, memory, inside):
                self._rows += 1
                if self._rows > _MOST_ROWS:
                    self._note(f"more than {_MOST_ROWS:,} members: the rest is left out")
                    return
                first = row.field == inside.path
                yield replace(row, owner=struct_.name, member=member.name) if first else row

    def _rows_of(self, type_: Type, memory: KnownBytes, place: _StructPlace) -> Iterator[StructRow]:
        if type_.kind is TypeKind.STRUCT and place.depth < _DEEPEST:
            yield from self._struct(type_, memory, place)
        elif type_.kind is TypeKind.ARRAY and type_.element is not None:
            yield from self._array(type_, type_.element, memory, place)
        else:
            yield place.row(type_, *scalar(type_, memory, place.address))

    def _struct(self, type_: Type, memory: KnownBytes, place: _StructPlace) -> Iterator[StructRow]:
        known = self.source.struct(type_.target)
        is_line = type_.target in _INLINE
        yield place.row(type_, None, is_missing=is_line and memory.piece(place.address, type_.size) is None)
        if known is None:
            return
        own = memory
        if not place.is_plain:
            own, is_plain = self._plain(type_.target, place.path, memory, place.address)
            place = replace(place, is_plain=is_plain)
        yield from self._members(known, own, replace(place, depth=place.depth + 1, is_inner=place.is_inner or is_line))

    def _array(self, type_: Type, element: Type, memory: KnownBytes, place: _StructPlace) -> Iterator[StructRow]:
        """Characters as a text, small numbers in one row, structures and pointers one by one."""
        opens = element.kind in (TypeKind.STRUCT, TypeKind.POINTER, TypeKind.ARRAY) and element.size
        data = memory.piece(place.address, type_.size) if opens else None
        is_zero = data is not None and not any(data)
        shown = "all zero" if is_zero else None
        yield place.row(type_, shown if opens else _listed(type_, element, memory, place.address))
        if not opens:
            return
        place = replace(place, is_inner=place.is_inner or is_zero)
        for i in range(min(type_.count, self.elements)):
            yield from self._rows_of(element, memory, place.element(i, i * element.size))
        if type_.count > self.elements:
            rest = place.element(self.elements, self.elements * element.size)
            path = f"{place.path}[{self.elements}…{type_.count - 1}]"
            yield replace(rest, path=path).row(type_, None)

    def _plain(self, name: str, path: str, memory: KnownBytes, address: int) -> tuple[KnownBytes, bool]:
        """The memory with the structure at an address decoded, where it is encoded; whether it is now."""
        known = self.source.struct(name)
        if known is None or path.rpartition(".")[2] == "Encoding":
            return memory, False
        data = memory.piece(address, known.size)
        found = self.decode(name, address, data) if data is not None else None
        if found is None:
            return memory, False
        check = {True: ", its check holds", False: ", its check does not hold", None: ""}[found.holds]
        self._note(f"{name} at {address:#x}: {found.words}{check}")
        at = address - memory.span.start
        plain = memory.data[:at] + found.data + memory.data[at + len(found.data) :]
        return KnownBytes(memory.span, plain, memory.missing), True

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


@dataclass(frozen=True, slots=True)
class _StructPlace:
    """A place in a structure. `is_plain`: the memory here is decoded already; `is_inner`: as in `StructRow`."""

    start: int
    offset: int
    path: str
    is_plain: bool
    is_inner: bool
    depth: int

    @property
    def address(self) -> int:
        """Address of the member."""
        return self.start + self.offset

    def inside(self, member: Member) -> _StructPlace:
        """A member of the structure here."""
        path = f"{self.path}.{member.name}" if self.path else member.name
        return replace(self, offset=self.offset + member.offset, path=path)

    def element(self, number: int, offset: int) -> _StructPlace:
        """An element of the array here."""
        return replace(self, offset=self.offset + offset, path=f"{self.path}[{number}]", depth=self.depth + 1)

    def row(self, type_: Type, value: Value, is_missing: bool = False) -> StructRow:
        """The row of this place."""
        return StructRow(self.offset, self.path, type_, self.address, value, is_missing, self.is_inner)


def _overlays(struct_: StructType) -> set[str]:
    """Names of nested structures that lie over two or more other members: the same bytes once more."""
    ends = [(member.offset, member.offset + member.type.size, member.name) for member in struct_.members]
    return {
        member.name
        for member in struct_.members
        if member.type.kind is TypeKind.STRUCT
        and sum(
            member.offset <= start and end <= member.offset + member.type.size and end > start and name != member.name
            for start, end, name in ends
        )
        >= _FEWEST_OVERLAID
    }


def scalar(type_: Type, memory: KnownBytes, address: int) -> tuple[Value, bool]:
    """(value, whether bytes of it are missing) of a number, a pointer, a bit field."""
    if not type_.size:
        return None, False
    if not memory.span.covers(Span(address, address + type_.size)):
        return None, bool(memory.data)
    data = memory.piece(address, type_.size)
    if data is None:
        return None, True
    if type_.kind is TypeKind.FLOAT and len(data) in _FLOATS:
        return f"{struct.unpack(_FLOATS[len(data)], data)[0]:g}", False
    value = int.from_bytes(data, "little", signed=type_.kind is TypeKind.SIGNED)
    if type_.kind is TypeKind.BITS:
        value = value >> type_.bit & (1 << type_.bits) - 1
    return value, False


def _listed(type_: Type, element: Type, memory: KnownBytes, address: int) -> str | None:
    """The first elements of an array of numbers or characters in one line; None where they are not known."""
    size = min(type_.size, memory.span.end - address) if address in memory.span else 0
    if element.kind in (TypeKind.CHAR, TypeKind.WCHAR):
        data = memory.piece(address, size)
        if data is None or not size:
            return None
        text = data.decode("utf-16-le" if element.kind is TypeKind.WCHAR else "latin-1", "replace")
        return text.partition("\0")[0]
    if not element.size or not size:
        return None
    count = min(type_.count, _SHOWN_BYTES // element.size or 1)
    values = [memory.integer(address + i * element.size, element.size) for i in range(count)]
    words = " ".join("??" if value is None else f"{value:0{2 * element.size}x}" for value in values)
    return words + (" …" if type_.count > count else "")
