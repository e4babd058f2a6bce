"""Layout, Struct, Field: where the members of a Windows structure lie, as data with source and confidence."""

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
    """A member: byte offset in its struct, and its type: a scalar, `ptr`, an array `T[n]` or a struct's name."""

    offset: int
    type: str

    @property
    def count(self) -> int:
        """Elements of an array member, 1 for any other."""
        return int(self.type[self.type.index("[") + 1 : -1]) if self.type.endswith("]") else 1


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """A structure of one build: size in bytes, members by name, source and confidence. Equal to itself only."""

    name: str
    size: int
    fields: Mapping[str, Field]
    source: str
    confidence: str

    def __contains__(self, field: str) -> bool:
        """True when this build's structure has the member."""
        return field in self.fields

    def offset(self, field: str) -> int:
        """Byte offset of a member; KeyError where this build has none."""
        return self.fields[field].offset

    def decode(self, data: bytes, pointer_bytes: int) -> dict[str, int]:
        """The scalar and pointer members in the bytes of one structure; members past the end of `data` are left out."""
        out: dict[str, int] = {}
        for end, names, reader in _readers(self, pointer_bytes):
            if end > len(data):
                return out | self._decode_prefix(data, pointer_bytes)
            out.update(zip(names, reader.unpack_from(data), strict=True))
        return out

    def _decode_prefix(self, data: bytes, pointer_bytes: int) -> dict[str, int]:
        """The members that lie inside the bytes of a structure that is cut short."""
        out = {}
        for name, field in self.fields.items():
            code = _code(field, pointer_bytes)
            if code and field.offset + struct.calcsize(code) <= len(data):
                (out[name],) = struct.unpack_from(f"<{code}", data, field.offset)
        return out


def _code(field: Field, pointer_bytes: int) -> str | None:
    """The member's type in the words of `struct`; None for arrays and structures."""
    return ("Q" if pointer_bytes == 8 else "I") if field.type == "ptr" else _SCALARS.get(field.type)


@cache
def _readers(layout: Struct, pointer_bytes: int) -> list[tuple[int, list[str], struct.Struct]]:
    """(bytes needed, names, reader) that together read every scalar: one reader, and one more for members of unions."""
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
    """All structures of one processor and range of builds; `first` and `last` are (build, revision), inclusive."""

    name: str
    arch: str
    first: tuple[int, int]
    last: tuple[int, int]
    structs: Mapping[str, Struct]

    def __getitem__(self, name: str) -> Struct:
        """The structure; KeyError where this range of builds has none."""
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
    """One layout file: {"arch", "first", "last", "structs": {name: {size, source, confidence, fields}}}."""
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
