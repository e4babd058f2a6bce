"""Layout, Struct, Field: where the members of a Windows structure lie, as data with source and confidence."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_SCALARS = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i32": 4}


@dataclass(frozen=True, slots=True)
class Field:
    """A member: byte offset in its struct, and its type: a scalar, `ptr`, an array `T[n]` or a struct's name."""

    offset: int
    type: str

    @property
    def count(self) -> int:
        """Elements of an array member, 1 for any other."""
        return int(self.type[self.type.index("[") + 1 : -1]) if self.type.endswith("]") else 1


@dataclass(frozen=True, slots=True)
class Struct:
    """A structure of one build: its size in bytes, its members by name, and who says so."""

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
        """The scalar and pointer members found in the bytes of one structure (members past its end are left out)."""
        out = {}
        for name, field in self.fields.items():
            size = pointer_bytes if field.type == "ptr" else _SCALARS.get(field.type)
            if size is not None and field.offset + size <= len(data):
                raw = data[field.offset : field.offset + size]
                out[name] = int.from_bytes(raw, "little", signed=field.type[0] == "i")
        return out


@dataclass(frozen=True, slots=True)
class Layout:
    """All structures of one processor and range of builds; `first` and `last` are (build, revision), inclusive."""

    name: str
    arch: str
    first: tuple[int, int]
    last: tuple[int, int]
    structs: Mapping[str, Struct]

    def __getitem__(self, struct: str) -> Struct:
        """The structure; KeyError where this range of builds has none."""
        return self.structs[struct]

    def __contains__(self, struct: str) -> bool:
        """True when this range of builds has the structure."""
        return struct in self.structs

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
        struct: Struct(
            struct,
            body["size"],
            {field: Field(offset, kind) for field, (offset, kind) in body["fields"].items()},
            body["source"],
            body["confidence"],
        )
        for struct, body in document["structs"].items()
    }
    first, last = document["first"], document["last"]
    return Layout(name, document["arch"], (first[0], first[1]), (last[0], last[1]), structs)
