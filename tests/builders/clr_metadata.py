"""Metadata of an assembly (ECMA-335 II.24) with the tables that names need, and images that hold it.

Layouts are restated by hand on purpose; nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CLR_HEADER_RVA, METADATA_RVA = 0x1000, 0x1100
FLAT_RAW = 0x400
"""Where the section of a flat image lies in the file."""


@dataclass
class MetadataBuilder:
    """An assembly in the making. Types get tokens in the order of the calls; methods and fields belong to the last type."""

    name: str
    types: list[tuple[str, str, int, int]] = field(default_factory=list)
    methods: list[str] = field(default_factory=list)
    fields: list[str] = field(default_factory=list)
    nested: list[tuple[int, int]] = field(default_factory=list)
    generics: list[tuple[int, int]] = field(default_factory=list)
    strings: bytearray = field(default_factory=lambda: bytearray(b"\0"))
    signatures: dict[int, bytes] = field(default_factory=dict)
    """Token of a method → its signature (II.23.2.1); `instance void ()` where none is given."""

    references: list[tuple[str, str]] = field(default_factory=list)
    """Namespace and name of TypeRefs."""

    parameter_names: dict[tuple[int, int], str] = field(default_factory=dict)
    """(token of the owner, number) → name of a generic parameter; `T` where none is given."""

    method_parameters: list[int] = field(default_factory=list)
    """Tokens of generic methods with one parameter."""

    def type(
        self, space: str, name: str, methods: Sequence[str] = (), fields: Sequence[str] = (), *,
        outer: int | None = None, parameters: int = 0,
    ) -> tuple[int, list[int], list[int]]:  # fmt: skip
        """Add a type: its token, those of its methods and of its fields. `outer`: token of the enclosing type."""
        self.types.append((space, name, len(self.fields) + 1, len(self.methods) + 1))
        row = len(self.types)
        if outer is not None:
            self.nested.append((row, outer & 0xFFFFFF))
        self.generics += [(number, row << 1) for number in range(parameters)]
        first, first_field = len(self.methods) + 1, len(self.fields) + 1
        self.methods += methods
        self.fields += fields
        return (
            0x02000000 | row,
            [0x06000000 | first + i for i in range(len(methods))],
            [0x04000000 | first_field + i for i in range(len(fields))],
        )

    def _string(self, text: str) -> int:
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def build(self) -> bytes:
        """The metadata root with #~, #Strings, #GUID and #Blob."""
        s = self._string
        blobs = bytearray(b"\0")
        places = []
        for row in range(1, len(self.methods) + 1):
            signature = self.signatures.get(0x06000000 | row, b"\x20\0\x01")
            places.append(len(blobs))
            blobs += bytes([len(signature)]) + signature
        generics = [(number, owner, 0x02000000 | owner >> 1) for number, owner in self.generics]
        generics += [(0, (token & 0xFFFFFF) << 1 | 1, token) for token in self.method_parameters]
        tables: dict[int, list[bytes]] = {
            0x00: [struct.pack("<5H", 0, s(self.name + ".dll"), 1, 0, 0)],
            0x01: [struct.pack("<3H", 0, s(name), s(space)) for space, name in self.references],
            0x02: [
                struct.pack("<I5H", 1, s(name), s(space) if space else 0, 0, f, m) for space, name, f, m in self.types
            ],
            0x04: [struct.pack("<3H", 1, s(name), 1) for name in self.fields],
            0x06: [
                struct.pack("<IHHHHH", 0x2050, 0, 0, s(name), at, 1)
                for name, at in zip(self.methods, places, strict=True)
            ],
            0x20: [struct.pack("<I4HIHHH", 0x8004, 1, 0, 0, 0, 0, 0, s(self.name), 0)],
            0x29: [struct.pack("<2H", inner, outer) for inner, outer in self.nested],
            0x2A: [
                struct.pack("<4H", number, 0, owner, s(self.parameter_names.get((token, number), "T")))
                for number, owner, token in sorted(generics, key=lambda row: (row[1], row[0]))
            ],
        }
        tables = {number: rows for number, rows in tables.items() if rows}
        valid = sum(1 << number for number in tables)
        head = struct.pack("<IBBBBQQ", 0, 2, 0, 0, 1, valid, 0)
        stream = head + b"".join(struct.pack("<I", len(rows)) for rows in tables.values())
        stream += b"".join(row for rows in tables.values() for row in rows)
        streams = {b"#~": stream, b"#Strings": bytes(self.strings), b"#GUID": bytes(16), b"#Blob": bytes(blobs)}
        streams = {name: data + bytes(-len(data) % 4) for name, data in streams.items()}
        version = b"v4.0.30319\0\0"
        directory = sum(8 + len(name) + 1 + (-(len(name) + 1) % 4) for name in streams)
        at = 16 + len(version) + 4 + directory
        root = b"BSJB" + struct.pack("<HHII", 1, 1, 0, len(version)) + version + struct.pack("<HH", 0, len(streams))
        body = b""
        for name, data in streams.items():
            padded = name + b"\0" + bytes(-(len(name) + 1) % 4)
            root += struct.pack("<II", at + len(body), len(data)) + padded
            body += data
        return root + body


def assembly_image(
    metadata: bytes, *, wide: bool, flat: bool = False, native: Mapping[int, bytes] | None = None
) -> bytes:
    """An image with a CLR header. `flat`: as it lies in the file; `native`: RVA → bytes, the first is the native header."""
    section = bytearray(max(0x3000, METADATA_RVA - 0x1000 + len(metadata) + 0x1000))
    at = min(native) if native else 0
    header = (
        struct.pack("<IHHII", 72, 2, 5, METADATA_RVA, len(metadata))
        + bytes(48)
        + struct.pack("<II", at, 0x100 if at else 0)
    )
    section[: len(header)] = header
    section[METADATA_RVA - 0x1000 : METADATA_RVA - 0x1000 + len(metadata)] = metadata
    for rva, data in (native or {}).items():
        section[rva - 0x1000 : rva - 0x1000 + len(data)] = data
    head = pe_header(0x1000 + len(section), wide=wide, directories={14: (CLR_HEADER_RVA, 72)})
    return (head[:FLAT_RAW] if flat else head) + bytes(section)


def pe_header(size: int, *, wide: bool, directories: Mapping[int, tuple[int, int]]) -> bytes:
    """A page of headers: one section from RVA 0x1000 on, which lies in the file at FLAT_RAW."""
    page = bytearray(0x1000)
    page[0:2] = b"MZ"
    struct.pack_into("<I", page, 0x3C, 0x80)
    optional = 0xF0 if wide else 0xE0
    page[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<HHIIIHH", page, 0x84, 0x8664 if wide else 0x14C, 1, 0x5F000000, 0, 0, optional, 0x2022)
    struct.pack_into("<H", page, 0x98, 0x20B if wide else 0x10B)
    struct.pack_into("<I", page, 0x98 + 56, size)
    first = 0x98 + (112 if wide else 96)
    struct.pack_into("<I", page, first - 4, 16)
    for index, pair in directories.items():
        struct.pack_into("<II", page, first + 8 * index, *pair)
    struct.pack_into("<8sIIII", page, 0x98 + optional, b".text", size - 0x1000, 0x1000, size - 0x1000, FLAT_RAW)
    return bytes(page)


def exports(rva: int, symbols: Mapping[str, int]) -> bytes:
    """An export directory at an RVA: names (sorted) → RVAs."""
    names = sorted(symbols)
    count = len(names)
    functions, table, ordinals = rva + 40, rva + 40 + 4 * count, rva + 40 + 8 * count
    at = ordinals + 2 * count
    places, text = [], b""
    for name in names:
        places.append(at + len(text))
        text += name.encode() + b"\0"
    head = struct.pack("<IIHHIIIIIII", 0, 0, 0, 0, 0, 1, count, count, functions, table, ordinals)
    return (
        head + b"".join(struct.pack("<I", symbols[name]) for name in names)
        + b"".join(struct.pack("<I", place) for place in places)
        + b"".join(struct.pack("<H", i) for i in range(count)) + text
    )  # fmt: skip


def resource(rva: int, name: str, data: bytes) -> bytes:
    """A resource directory at an RVA with one RCDATA resource."""
    text = struct.pack("<H", len(name)) + name.encode("utf-16-le")
    kinds, named, language, leaf, place = 0, 24, 48, 72, 88
    out = struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, 10, 1 << 31 | named)
    out += struct.pack("<IIHHHHII", 0, 0, 0, 0, 1, 0, 1 << 31 | place, 1 << 31 | language)
    out += struct.pack("<IIHHHHII", 0, 0, 0, 0, 0, 1, 1033, leaf)
    text += bytes(-len(text) % 8)
    out += struct.pack("<IIII", rva + place + len(text), len(data), 0, 0)
    assert len(out) == place and kinds == 0
    return out + text + data
