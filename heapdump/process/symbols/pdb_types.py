"""Structures and classes of a PDB: the type stream (TPI, stream 2), read by hand; purepdb gives its bytes.

A record is {length u16, kind u16, data}; record n has the type index `first + n`, indices below 0x1000 are built-in
types. Members of a structure are one or more field lists. Source: cvinfo.h of microsoft-pdb, LLVM's docs on TPI.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path

from heapdump.dump.streams import PdbId
from heapdump.process.symbols.pdb import find_pdb
from heapdump.process.symbols.store import SymbolStores
from heapdump.process.types import Member, StructType, Type, TypeKind

STREAM, _HEADER_BYTES = 2, 56
_MOST_RECORDS, _DEEPEST = 1 << 24, 16
_MODIFIER, _POINTER, _PROCEDURE, _MEMBER_FUNCTION = 0x1001, 0x1002, 0x1008, 0x1009
_FIELD_LIST, _BIT_FIELD = 0x1203, 0x1205
_ARRAY, _CLASS, _STRUCTURE, _UNION, _ENUM = 0x1503, 0x1504, 0x1505, 0x1506, 0x1507
_BASE, _VIRTUAL_BASE, _INDIRECT_BASE, _INDEX, _VTABLE = 0x1400, 0x1401, 0x1402, 0x1404, 0x1409
_ENUMERATE, _DATA, _STATIC, _METHODS, _NESTED, _METHOD = 0x1502, 0x150D, 0x150E, 0x150F, 0x1510, 0x1511
_COMPOUNDS = (_CLASS, _STRUCTURE, _UNION)
_KEYWORDS = {_CLASS: "class", _STRUCTURE: "struct", _UNION: "union"}
_FORWARD = 0x80
"""A declaration: another record of that name has the members."""

_NUMBERS = {
    0x8000: "<b", 0x8001: "<h", 0x8002: "<H", 0x8003: "<i", 0x8004: "<I", 0x8009: "<q", 0x800A: "<Q",
}  # fmt: skip
"""Kind of a number of 0x8000 and more → how it is stored. Smaller ones are the number itself."""

_POINTER_64 = 6
_VIRTUAL_METHODS = (4, 6)
"""Kinds of a method with an offset in the vtable behind it."""

_SIMPLE = {
    0x03: (TypeKind.UNKNOWN, 0, "void"), 0x08: (TypeKind.SIGNED, 4, "HRESULT"),
    0x10: (TypeKind.CHAR, 1, "char"), 0x20: (TypeKind.UNSIGNED, 1, "unsigned char"), 0x68: (TypeKind.SIGNED, 1, "int8"),
    0x69: (TypeKind.UNSIGNED, 1, "uint8"), 0x70: (TypeKind.CHAR, 1, "char"), 0x71: (TypeKind.WCHAR, 2, "wchar_t"),
    0x7A: (TypeKind.WCHAR, 2, "char16_t"), 0x7B: (TypeKind.UNSIGNED, 4, "char32_t"),
    0x7C: (TypeKind.CHAR, 1, "char8_t"),
    0x11: (TypeKind.SIGNED, 2, "short"), 0x21: (TypeKind.UNSIGNED, 2, "unsigned short"),
    0x72: (TypeKind.SIGNED, 2, "short"), 0x73: (TypeKind.UNSIGNED, 2, "unsigned short"),
    0x12: (TypeKind.SIGNED, 4, "long"), 0x22: (TypeKind.UNSIGNED, 4, "unsigned long"),
    0x74: (TypeKind.SIGNED, 4, "int"), 0x75: (TypeKind.UNSIGNED, 4, "unsigned int"),
    0x13: (TypeKind.SIGNED, 8, "int64"), 0x23: (TypeKind.UNSIGNED, 8, "uint64"),
    0x76: (TypeKind.SIGNED, 8, "int64"), 0x77: (TypeKind.UNSIGNED, 8, "uint64"),
    0x30: (TypeKind.BOOL, 1, "bool"), 0x31: (TypeKind.BOOL, 2, "bool16"), 0x32: (TypeKind.BOOL, 4, "bool32"),
    0x40: (TypeKind.FLOAT, 4, "float"), 0x41: (TypeKind.FLOAT, 8, "double"),
}  # fmt: skip
"""Low byte of a built-in type → kind, bytes, name. Bits 8-11 say that it is a pointer to that."""


class DamagedTypes(ValueError):
    """The type stream contradicts itself."""


class PdbTypes:
    """The structures of one type stream. Records are located once; members are read when they are asked for."""

    def __init__(self, stream: bytes, pointer_bytes: int) -> None:
        """`stream`: the bytes of the type stream.

        Raises:
            DamagedTypes: it is too short, or its header is not possible.
        """
        if len(stream) < _HEADER_BYTES:
            raise DamagedTypes("a type stream without a header")
        _, header, self._first, end, size = struct.unpack_from("<5I", stream)
        if not _HEADER_BYTES <= header <= len(stream) or not 0 <= end - self._first <= _MOST_RECORDS:
            raise DamagedTypes("the header of the type stream makes no sense")
        self._data, self._pointer_bytes = stream[: header + size], pointer_bytes
        self._places = list(self._records(header))
        self.type = cache(self._type)

    def _records(self, at: int) -> Iterator[int]:
        """Offsets of all records, ascending."""
        while at + 4 <= len(self._data):
            (length,) = struct.unpack_from("<H", self._data, at)
            if length < 2 or at + 2 + length > len(self._data):
                return
            yield at
            at += 2 + length

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self._pointer_bytes

    def names(self) -> Sequence[str]:
        """The names of all structures, classes and unions, ascending."""
        return self._named[0]

    def struct(self, name: str) -> StructType | None:
        """The structure of that name; None where there is none with members."""
        names, places = self._named
        i = bisect_left(names, name)
        if i == len(names) or names[i] != name:
            return None
        kind, body = self._record(places[i])
        size, _ = _number(body, 8 if kind == _UNION else 16)
        members = tuple(self._members(_u32(body, 4)))
        return StructType(name, size, members, "PDB", "by the program's own symbols")

    def keyword(self, name: str) -> str:
        """`class`, `struct` or `union`, as the structure of that name is declared; "" for an unknown one."""
        names, places = self._named
        i = bisect_left(names, name)
        known = i < len(names) and names[i] == name
        return _KEYWORDS.get(self._record(places[i])[0], "") if known else ""

    @cached_property
    def _named(self) -> tuple[list[str], list[int]]:
        """(names ascending, type index of each), of definitions."""
        found: dict[str, int] = {}
        for i, at in enumerate(self._places):
            kind, properties = struct.unpack_from("<HxxH", self._data, at + 2) if at + 8 <= len(self._data) else (0, 0)
            if kind in _COMPOUNDS and not properties & _FORWARD:
                body = self._record(self._first + i)[1]
                _, end = _number(body, 8 if kind == _UNION else 16)
                found.setdefault(_text(body, end), self._first + i)
        names = sorted(found)
        return names, [found[name] for name in names]

    def _record(self, index: int) -> tuple[int, bytes]:
        """(kind, data) of a type; (0, b"") where the stream has none of that index."""
        place = index - self._first
        if not 0 <= place < len(self._places):
            return 0, b""
        at = self._places[place]
        length, kind = struct.unpack_from("<HH", self._data, at)
        return kind, self._data[at + 4 : at + 2 + length]

    def _members(self, index: int) -> Iterator[Member]:
        """The data members of a field list and of those that continue it, base classes first as members."""
        seen = {0}
        while index not in seen:
            seen.add(index)
            kind, body = self._record(index)
            if kind != _FIELD_LIST:
                return
            index, at = 0, 0
            while at + 2 <= len(body):
                member, following, at = self._member(body, at)
                if member is not None:
                    yield member
                index = following or index

    def _member(self, body: bytes, at: int) -> tuple[Member | None, int, int]:
        """(data member or None, index of the list that goes on, offset of the next member) at an offset of a list."""
        (leaf,) = struct.unpack_from("<H", body, at)
        member, following = None, 0
        if leaf == _DATA:
            offset, end = _number(body, at + 8)
            name, end = _text(body, end), _behind_text(body, end)
            member = Member(name, offset, self.type(_u32(body, at + 4)))
        elif leaf == _BASE:
            offset, end = _number(body, at + 8)
            base = self.type(_u32(body, at + 4))
            member = Member(f"({base.text})", offset, base)
        elif leaf == _VTABLE:
            end = at + 8
            member = Member("(vtable)", 0, Type(TypeKind.POINTER, self._pointer_bytes, "vtable*", target="vtable"))
        elif leaf == _INDEX:
            end, following = at + 8, _u32(body, at + 4)
        else:
            end = self._behind_other(leaf, body, at)
        while end < len(body) and body[end] > 0xF0:  # padding: 0xF1 … 0xF3
            end += 1
        return member, following, end

    def _behind_other(self, leaf: int, body: bytes, at: int) -> int:
        """The offset behind a member without data; the end of the list for an unknown one."""
        if leaf in (_STATIC, _NESTED, _METHODS):
            return _behind_text(body, at + 8)
        if leaf == _METHOD:
            attributes = int.from_bytes(body[at + 2 : at + 4], "little") >> 2 & 7
            return _behind_text(body, at + 8 + (4 if attributes in _VIRTUAL_METHODS else 0))
        if leaf == _ENUMERATE:
            return _behind_text(body, _number(body, at + 4)[1])
        if leaf in (_VIRTUAL_BASE, _INDIRECT_BASE):
            return _number(body, _number(body, at + 12)[1])[1]
        return len(body)

    def _type(self, index: int, depth: int = 0) -> Type:
        """The type of an index."""
        if index < 0x1000:
            return self._simple(index)
        kind, body = self._record(index)
        if depth > _DEEPEST or len(body) < 6:
            return Type(TypeKind.UNKNOWN, 0, "unknown type")
        if kind == _MODIFIER:
            return self._type(_u32(body, 0), depth + 1)
        if kind == _POINTER:
            target, attributes = _u32(body, 0), _u32(body, 4)
            pointed = self._type(target, depth + 1)
            size = attributes >> 13 & 0x3F or self._pointer_bytes
            return Type(TypeKind.POINTER, size, f"{pointed.text}*", target=pointed.target, element=pointed)
        if kind == _BIT_FIELD:
            storage = self._type(_u32(body, 0), depth + 1)
            return Type(TypeKind.BITS, storage.size, f"{storage.text}:{body[4]}", bit=body[5], bits=body[4])
        if kind in (_PROCEDURE, _MEMBER_FUNCTION):
            return Type(TypeKind.UNKNOWN, 0, "function", target="function")
        return self._named_type(kind, body, depth)

    def _named_type(self, kind: int, body: bytes, depth: int) -> Type:
        """An array, a structure or an enumeration."""
        if kind == _ARRAY:
            element = self._type(_u32(body, 0), depth + 1)
            size, _ = _number(body, 8)
            count = size // element.size if element.size else 0
            return Type(TypeKind.ARRAY, size, f"{element.text}[{count}]", element=element, count=count)
        if kind == _ENUM:
            storage = self._type(_u32(body, 4), depth + 1)
            names = tuple(self._enumerators(_u32(body, 8)))
            return Type(TypeKind.ENUM, storage.size, _text(body, 12), names=names)
        if kind in _COMPOUNDS:
            size, end = _number(body, 8 if kind == _UNION else 16)
            name = _text(body, end)
            known = self._size_of(name) if body[2] & _FORWARD else size
            return Type(TypeKind.STRUCT, known, name, target=name)
        return Type(TypeKind.UNKNOWN, 0, f"type {kind:#x}")

    def _size_of(self, name: str) -> int:
        """Bytes of a structure by its name; 0 where the PDB has only its declaration."""
        names, places = self._named
        i = bisect_left(names, name)
        if i == len(names) or names[i] != name:
            return 0
        kind, body = self._record(places[i])
        return _number(body, 8 if kind == _UNION else 16)[0]

    def _enumerators(self, index: int) -> Iterator[tuple[int, str]]:
        """(value, name) of each enumerator."""
        kind, body = self._record(index)
        at = 0
        while kind == _FIELD_LIST and at + 4 <= len(body) and struct.unpack_from("<H", body, at)[0] == _ENUMERATE:
            value, end = _number(body, at + 4)
            yield value, _text(body, end)
            at = self._member(body, at)[2]

    def _simple(self, index: int) -> Type:
        kind, size, name = _SIMPLE.get(index & 0xFF, (TypeKind.UNKNOWN, 0, f"type {index:#x}"))
        mode = index >> 8 & 0xF
        if not mode:
            return Type(kind, size, name)
        pointed = Type(kind, size, name)
        return Type(TypeKind.POINTER, 8 if mode == _POINTER_64 else 4, f"{name}*", target=name, element=pointed)


def _u32(body: bytes, at: int) -> int:
    return int.from_bytes(body[at : at + 4], "little")


def _number(body: bytes, at: int) -> tuple[int, int]:
    """(number, offset behind it) of a number as the format stores it."""
    word = int.from_bytes(body[at : at + 2], "little")
    code = _NUMBERS.get(word)
    if word < 0x8000 or code is None or at + 2 + struct.calcsize(code) > len(body):
        return (word if word < 0x8000 else 0), at + 2
    return int(struct.unpack_from(code, body, at + 2)[0]), at + 2 + struct.calcsize(code)


def _behind_text(body: bytes, at: int) -> int:
    end = body.find(b"\0", at)
    return len(body) if end < 0 else end + 1


def _text(body: bytes, at: int) -> str:
    """The zero-ended text at an offset."""
    return body[at : max(at, _behind_text(body, at) - 1)].decode("utf-8", "replace")


def open_types(stores: str | SymbolStores, wanted: PdbId, notes: list[str], pointer_bytes: int) -> PdbTypes | None:
    """The types of the PDB with that GUID and age, or None. `notes` gets a line for each file that cannot be used."""

    def read(path: Path) -> PdbTypes:
        """The types of a file."""
        from purepdb import MsfFile

        with MsfFile.open(str(path)) as file:
            return PdbTypes(file.read_stream(STREAM), pointer_bytes)

    return find_pdb(stores, wanted, notes, read)
