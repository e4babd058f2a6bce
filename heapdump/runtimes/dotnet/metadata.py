"""Names of an assembly by its metadata (ECMA-335 II.22, II.24): types, methods, fields, generic parameters.

In comes an image, out come names by token. The tables are read as columns; a row size follows from the row counts and
from the sizes of the heaps, as in the standard. Nothing is named that the dump does not hold.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.runtimes.dotnet.pe import CLR_HEADER, MappedImage

TYPE_REF, TYPE_DEF, FIELD, METHOD_DEF, PARAM, ASSEMBLY, NESTED_CLASS, GENERIC_PARAM = (
    0x01,
    0x02,
    0x04,
    0x06,
    0x08,
    0x20,
    0x29,
    0x2A,
)
_MOST_METADATA = 1 << 28
_LONGEST_NAME = 1024
_DEEPEST = 64
_SCOPE_IS_TYPE = 3
"""Tag of a ResolutionScope that is a TypeRef: a nested type."""

_CODED = {
    "TypeDefOrRef": (2, (0x02, 0x01, 0x1B)),
    "HasConstant": (2, (0x04, 0x08, 0x17)),
    "HasCustomAttribute": (
        5,
        (6, 4, 1, 2, 8, 9, 0xA, 0, 0xE, 0x17, 0x14, 0x11, 0x1A, 0x1B, 0x20, 0x23, 0x26, 0x27, 0x28, 0x2A, 0x2C, 0x2B),
    ),
    "HasFieldMarshal": (1, (0x04, 0x08)),
    "HasDeclSecurity": (2, (0x02, 0x06, 0x20)),
    "MemberRefParent": (3, (0x02, 0x01, 0x1A, 0x06, 0x1B)),
    "HasSemantics": (1, (0x14, 0x17)),
    "MethodDefOrRef": (1, (0x06, 0x0A)),
    "MemberForwarded": (1, (0x04, 0x06)),
    "Implementation": (2, (0x26, 0x23, 0x27)),
    "CustomAttributeType": (3, (0x06, 0x0A)),
    "ResolutionScope": (2, (0x00, 0x1A, 0x23, 0x01)),
    "TypeOrMethodDef": (1, (0x02, 0x06)),
}
"""Coded index → (tag bits, tables); II.24.2.6."""

_COLUMNS: dict[int, str] = {
    0x00: "2 S G G G", 0x01: "ResolutionScope S S", 0x02: "4 S S TypeDefOrRef #04 #06", 0x03: "#04", 0x04: "2 S B",
    0x05: "#06", 0x06: "4 2 2 S B #08", 0x07: "#08", 0x08: "2 2 S", 0x09: "#02 TypeDefOrRef",
    0x0A: "MemberRefParent S B",
    0x0B: "2 HasConstant B", 0x0C: "HasCustomAttribute CustomAttributeType B", 0x0D: "HasFieldMarshal B",
    0x0E: "2 HasDeclSecurity B", 0x0F: "2 4 #02", 0x10: "4 #04", 0x11: "B", 0x12: "#02 #14", 0x13: "#14",
    0x14: "2 S TypeDefOrRef", 0x15: "#02 #17", 0x16: "#17", 0x17: "2 S B", 0x18: "2 #06 HasSemantics",
    0x19: "#02 MethodDefOrRef MethodDefOrRef", 0x1A: "S", 0x1B: "B", 0x1C: "2 MemberForwarded S #1A", 0x1D: "4 #04",
    0x1E: "4 4", 0x1F: "4", 0x20: "4 2 2 2 2 4 B S S", 0x21: "4", 0x22: "4 4 4", 0x23: "2 2 2 2 4 B S S B",
    0x24: "4 #23", 0x25: "4 4 4 #23", 0x26: "4 S B", 0x27: "4 4 S S Implementation", 0x28: "4 4 S Implementation",
    0x29: "#02 #02", 0x2A: "2 2 TypeOrMethodDef S", 0x2B: "MethodDefOrRef B", 0x2C: "#2A TypeDefOrRef",
}  # fmt: skip
"""Table → its columns: bytes; S, G, B: an index into strings, GUIDs, blobs; #nn: into a table; or a coded index."""


class Metadata:
    """The metadata of one assembly. Tokens are (table << 24 | row), rows count from 1."""

    def __init__(self, tables: bytes, strings: bytes, blobs: bytes = b"") -> None:
        """`tables`: the stream #~ (or #-), `strings`: #Strings, `blobs`: #Blob.

        Raises:
            ValueError, struct.error: the streams are too short, or their header is not possible.
        """
        self._strings, self._blobs = strings, blobs
        heap_sizes, valid = tables[6], int.from_bytes(tables[8:16], "little")
        present = [i for i in range(64) if valid >> i & 1]
        counts = struct.unpack_from(f"<{len(present)}I", tables, 24)
        self.rows = dict(zip(present, counts, strict=True))
        self._heap_sizes = heap_sizes
        self._data = tables
        self._places: dict[int, int] = {}
        at = 24 + 4 * len(present) + (4 if heap_sizes & 0x40 else 0)
        for table in present:
            if table not in _COLUMNS:
                break  # tables of portable PDBs; none that is read lies behind
            self._places[table] = at
            at += self.rows[table] * self._row_size(table)
        if at > len(tables):
            raise ValueError("tables reach over the end of the stream")
        self.type_name = cache(self._type_name)
        self.reference_name = cache(self._reference_name)

    @cached_property
    def _sizes(self) -> dict[str, int]:
        return {
            "S": 4 if self._heap_sizes & 1 else 2,
            "G": 4 if self._heap_sizes & 2 else 2,
            "B": 4 if self._heap_sizes & 4 else 2,
        }

    def _column_size(self, column: str) -> int:
        if column.isdigit():
            return int(column)
        if column in self._sizes:
            return self._sizes[column]
        if column[0] == "#":
            return 4 if self.rows.get(int(column[1:], 16), 0) > 0xFFFF else 2
        bits, tables = _CODED[column]
        most = max(self.rows.get(table, 0) for table in tables)
        return 4 if most >= 1 << (16 - bits) else 2

    def _row_size(self, table: int) -> int:
        return sum(map(self._column_size, _COLUMNS[table].split()))

    @cache  # noqa: B019 - lives as long as the metadata
    def column(self, table: int, number: int) -> NDArray[np.uint32]:
        """A column of a table, (n,) uint32; empty where the assembly has no such table."""
        if table not in self._places:
            return np.empty(0, np.uint32)
        sizes = [self._column_size(column) for column in _COLUMNS[table].split()]
        count, stride, offset = self.rows[table], sum(sizes), sum(sizes[:number])
        raw = np.frombuffer(self._data, np.uint8, count * stride, self._places[table]).reshape(count, stride)
        cells = np.ascontiguousarray(raw[:, offset : offset + sizes[number]])
        return cells.view(f"<u{sizes[number]}").reshape(-1).astype(np.uint32)

    def text(self, index: int) -> str:
        """A string of the heap #Strings."""
        end = self._strings.find(b"\0", index, index + _LONGEST_NAME)
        return self._strings[index : end if end >= 0 else index + _LONGEST_NAME].decode("utf-8", "replace")

    @cached_property
    def assembly_name(self) -> str | None:
        """The simple name of the assembly; None for a module without a manifest."""
        names = self.column(ASSEMBLY, 7)
        return self.text(int(names[0])) if len(names) else None

    @cached_property
    def _first_methods(self) -> list[int]:
        return list(map(int, self.column(TYPE_DEF, 5)))

    @cached_property
    def _first_fields(self) -> list[int]:
        return list(map(int, self.column(TYPE_DEF, 4)))

    @cached_property
    def _enclosing(self) -> dict[int, int]:
        return dict(zip(self.column(NESTED_CLASS, 0).tolist(), self.column(NESTED_CLASS, 1).tolist(), strict=True))

    @cached_property
    def _generic_counts(self) -> dict[int, int]:
        owners, counts = np.unique(self.column(GENERIC_PARAM, 2), return_counts=True)
        return dict(zip(owners.tolist(), counts.tolist(), strict=True))

    def owner_of_method(self, token: int) -> int | None:
        """The token of the type that declares a method; None for no method of this assembly."""
        return self._owner(token, METHOD_DEF, self._first_methods)

    def owner_of_field(self, token: int) -> int | None:
        """The token of the type that declares a field; None for no field of this assembly."""
        return self._owner(token, FIELD, self._first_fields)

    def _owner(self, token: int, table: int, firsts: list[int]) -> int | None:
        row = token & 0xFFFFFF
        if token >> 24 != table or not 1 <= row <= self.rows.get(table, 0):
            return None
        found = bisect_right(firsts, row)  # of types without members the last one with the same first row owns it
        return TYPE_DEF << 24 | found if found else None

    def method_name(self, token: int) -> str | None:
        """The name of a MethodDef; None for no method of this assembly."""
        return self._member_name(token, METHOD_DEF, 3)

    def field_name(self, token: int) -> str | None:
        """The name of a Field; None for no field of this assembly."""
        return self._member_name(token, FIELD, 1)

    def _member_name(self, token: int, table: int, column: int) -> str | None:
        row = token & 0xFFFFFF
        if token >> 24 != table or not 1 <= row <= self.rows.get(table, 0):
            return None
        return self.text(int(self.column(table, column)[row - 1])) or None

    def generic_parameters(self, token: int) -> int:
        """The number of generic parameters of a type or method, those of enclosing types included."""
        table, row = token >> 24, token & 0xFFFFFF
        return self._generic_counts.get(row << 1 | (table == METHOD_DEF), 0)

    def parameter_name(self, token: int, number: int) -> str | None:
        """The name of a generic parameter of a type or method, by its number."""
        return self._parameter_names.get(((token & 0xFFFFFF) << 1 | (token >> 24 == METHOD_DEF), number))

    @cached_property
    def _parameter_names(self) -> dict[tuple[int, int], str]:
        """(owner as a coded index, number) → name."""
        owners, numbers, names = (self.column(GENERIC_PARAM, i).tolist() for i in (2, 0, 3))
        return {(owner, number): self.text(name) for owner, number, name in zip(owners, numbers, names, strict=True)}

    def signature(self, token: int) -> bytes | None:
        """The signature of a MethodDef; None for no method, or where the dump does not hold #Blob."""
        row = token & 0xFFFFFF
        if token >> 24 != METHOD_DEF or not 1 <= row <= self.rows.get(METHOD_DEF, 0):
            return None
        at = int(self.column(METHOD_DEF, 4)[row - 1])
        head = self._blobs[at : at + 4].ljust(4, b"\0")
        length, width = (head[0], 1) if head[0] < 0x80 else (int.from_bytes(head[:2], "big") & 0x3FFF, 2)
        return self._blobs[at + width : at + width + length] or None

    def _reference_name(self, row: int) -> str | None:
        """`Namespace.Outer+Inner` of a TypeRef, without generic arity; None for no row of the table."""
        pieces = list[str]()
        while len(pieces) < _DEEPEST:
            if not 1 <= row <= self.rows.get(TYPE_REF, 0):
                return None
            pieces.append(self._plain(TYPE_REF, row, 1))
            scope = int(self.column(TYPE_REF, 0)[row - 1])
            if scope & 3 != _SCOPE_IS_TYPE:
                return "+".join(reversed(pieces))
            row = scope >> 2
        return None

    def _plain(self, table: int, row: int, column: int) -> str:
        """Namespace and name of a row; the name is in `column`, the namespace behind. Without generic arity."""
        name, space = (self.text(int(self.column(table, column + i)[row - 1])) for i in (0, 1))
        head, tick, arity = name.rpartition("`")
        name = head if tick and arity.isdigit() else name
        return f"{space}.{name}" if space else name

    def _type_name(self, token: int) -> str | None:
        """`Namespace.Outer+Inner` of a TypeDef, without generic arity; None for no type of this assembly."""
        row, pieces = token & 0xFFFFFF, list[str]()
        while token >> 24 == TYPE_DEF and len(pieces) < _DEEPEST:
            if not 1 <= row <= self.rows.get(TYPE_DEF, 0):
                return None
            pieces.append(self._plain(TYPE_DEF, row, 1))
            if row not in self._enclosing:
                return "+".join(reversed(pieces))
            row = self._enclosing[row]
        return None


def read_metadata(image: MappedImage) -> Metadata | None:
    """The metadata of an image; None where it has none, or where the dump does not hold it."""
    rva, size = image.directory(CLR_HEADER)
    header = image.read(rva, 72) if size >= 72 else None
    if header is None:
        return None
    at, length = struct.unpack_from("<II", header, 8)
    root = image.read(at, 32)
    if root is None or root[:4] != b"BSJB" or length > _MOST_METADATA:
        return None
    try:
        return _streams(image, at, length)
    except (ValueError, struct.error, IndexError):
        return None


def _streams(image: MappedImage, at: int, length: int) -> Metadata | None:
    head = image.read(at, min(length, 0x400)) or b""
    place = 16 + int.from_bytes(head[12:16], "little")
    count = int.from_bytes(head[place + 2 : place + 4], "little")
    place += 4
    found: dict[str, bytes] = {}
    for _ in range(min(count, 16)):
        offset, size = struct.unpack_from("<II", head, place)
        end = head.index(b"\0", place + 8)
        name = head[place + 8 : end].decode("latin-1")
        place = place + 8 + (end - place - 8 + 4 & ~3)
        if name in ("#~", "#-", "#Strings", "#Blob") and offset + size <= length:
            found[name] = image.read(at + offset, size) or b""
    tables = found.get("#~") or found.get("#-")
    return Metadata(tables, found["#Strings"], found.get("#Blob", b"")) if tables and found.get("#Strings") else None
