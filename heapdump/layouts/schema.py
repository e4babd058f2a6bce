"""The types of struct layouts: where the members of a structure of Windows lie, with source and confidence."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

_SCALARS = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i32": "i"}


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a structure.

    Attributes:
        offset: bytes from the start of the structure.
        type: `u8`, `u16`, `u32`, `u64`, `i32`, `ptr`, an array `T[n]`, or the name of a structure.
    """

    offset: int
    type: str

    @property
    def count(self) -> int:
        """The number of elements of an array; 1 for other members."""
        return int(self.type[self.type.index("[") + 1 : -1]) if self.type.endswith("]") else 1


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """A structure of one range of builds. Two are equal only where they are the same object.

    Attributes:
        name: of the structure.
        size: in bytes.
        fields: name → member.
        source: where the facts come from.
        confidence: how certain they are, in words.
    """

    name: str
    size: int
    fields: Mapping[str, Field]
    source: str
    confidence: str

    def __contains__(self, field: str) -> bool:
        """True when this build's structure has the member."""
        return field in self.fields

    def offset(self, field: str) -> int:
        """The offset of a member, in bytes; raises KeyError where this build has no such member."""
        return self.fields[field].offset

    def decode(self, data: bytes, pointer_bytes: int) -> dict[str, int]:
        """Name → value of the scalar and pointer members in the bytes of a structure, as far as `data` reaches."""
        out: dict[str, int] = {}
        for end, names, reader in _readers(self, pointer_bytes):
            if end > len(data):
                return out | self._decode_prefix(data, pointer_bytes)
            out.update(zip(names, reader.unpack_from(data), strict=True))
        return out

    def _decode_prefix(self, data: bytes, pointer_bytes: int) -> dict[str, int]:
        """The same for `data` that is shorter than the structure."""
        out = {}
        for name, field in self.fields.items():
            code = _code(field, pointer_bytes)
            if code and field.offset + struct.calcsize(code) <= len(data):
                (out[name],) = struct.unpack_from(f"<{code}", data, field.offset)
        return out


def _code(field: Field, pointer_bytes: int) -> str | None:
    """The format character of module `struct` for a member; None for arrays and structures."""
    return ("Q" if pointer_bytes == 8 else "I") if field.type == "ptr" else _SCALARS.get(field.type)


@cache
def _readers(layout: Struct, pointer_bytes: int) -> list[tuple[int, list[str], struct.Struct]]:
    """(bytes needed, names of members, reader) of each reader; together they read every scalar.

    There is one reader, and one more for members that overlap (unions).
    """
    members = [
        (field.offset, name, code)
        for name, field in layout.fields.items()
        if (code := _code(field, pointer_bytes)) is not None
    ]
    readers = []
    while members:
        at, names, text, later = 0, [], "<", []
        for offset, name, code in sorted(members):
            if offset < at:
                later.append((offset, name, code))
                continue
            names.append(name)
            text += f"{offset - at}x{code}"
            at = offset + struct.calcsize(code)
        readers.append((at, names, struct.Struct(text)))
        members = later
    return readers


@dataclass(frozen=True, slots=True)
class Layout:
    """All structures of one processor and range of builds.

    Attributes:
        name: of the file.
        arch: `x64` or `x86`.
        first: the first (build, revision).
        last: the last (build, revision), which belongs to the range.
        structs: name → structure.
    """

    name: str
    arch: str
    first: tuple[int, int]
    last: tuple[int, int]
    structs: Mapping[str, Struct]

    def __getitem__(self, name: str) -> Struct:
        """The structure with this name; raises KeyError where this range of builds has none."""
        return self.structs[name]

    def __contains__(self, name: str) -> bool:
        """True when this range of builds has the structure."""
        return name in self.structs

    def covers(self, build: int, revision: int) -> bool:
        """True when the build lies inside the range."""
        return self.first <= (build, revision) <= self.last

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return 4 if self.arch == "x86" else 8


def parse_layout(name: str, text: str) -> Layout:
    """The layout in the text of a file: {"arch", "first", "last", "structs": {name: {size, source, confidence, …}}}."""
    document: dict[str, Any] = json.loads(text)
    structs = {
        struct_name: Struct(
            struct_name,
            body["size"],
            {field: Field(offset, kind) for field, (offset, kind) in body["fields"].items()},
            body["source"],
            body["confidence"],
        )
        for struct_name, body in document["structs"].items()
    }
    first, last = document["first"], document["last"]
    return Layout(name, document["arch"], (first[0], first[1]), (last[0], last[1]), structs)
