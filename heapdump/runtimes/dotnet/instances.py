"""Precompiled instantiations of generic methods: section 109 of ready-to-run images (InstanceEntryPoints).

A NativeHashtable: u8 header (low 2 bits: log2 of the bytes of an offset, the rest: log2 of the number of buckets), an
offset for each bucket, then for each entry u8 of its hash and the relative place of its blob. A blob is a method's
signature and the number of its first RUNTIME_FUNCTION. Source: nativeformatreader.h, zapsig.cpp, readytorun.h of the
runtime.

    method  u flags: 04 method arguments, 10 member reference, 20 constrained, 40 owner type, 80 another module
            [40: type] u row of the MethodDef [04: u count, types]
    type    ECMA-335 II.23.2.12, and 3B u variable, 3D type, 3E System.__Canon, 3F u module, type
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.runtimes.dotnet.metadata import METHOD_DEF, TYPE_DEF, Metadata

_ARGUMENTS, _MEMBER_REFERENCE, _CONSTRAINED, _OWNER, _MODULE = 0x04, 0x10, 0x20, 0x40, 0x80
_SIMPLE = dict(enumerate((
    "Void", "Boolean", "Char", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Single",
    "Double", "String",
), 1)) | {0x16: "TypedReference", 0x18: "IntPtr", 0x19: "UIntPtr", 0x1C: "Object", 0x3E: "__Canon"}  # fmt: skip
_MOST_BUCKETS, _MOST_ENTRIES, _DEPTH = 1 << 20, 1 << 20, 32


@dataclass(frozen=True, slots=True)
class Instance:
    """An instantiation: the token of its MethodDef, the type that declares it, and its own arguments.

    `token` 0: another assembly declares the method, or the metadata contradicts.
    """

    token: int
    type: str
    arguments: str


def instances(data: bytes, metadata: Metadata) -> dict[int, Instance]:
    """Number of the first RUNTIME_FUNCTION → instantiation."""
    out: dict[int, Instance] = {}
    for place in _entries(data):
        try:
            found = _Signature(data, place, metadata).method()
        except (IndexError, ValueError, struct.error):
            continue
        out[found[0]] = found[1]
    return out


def _entries(data: bytes) -> Iterator[int]:
    """The places of the blobs."""
    header = data[0] if data else 0
    buckets, width = 1 << (header >> 2), 1 << (header & 3)
    if not data or buckets > _MOST_BUCKETS or width > 4:
        return
    budget = _MOST_ENTRIES
    for bucket in range(buckets):
        at = 1 + bucket * width
        start, end = (1 + int.from_bytes(data[p : p + width], "little") for p in (at, at + width))
        while start < min(end, len(data) - 5) and budget:
            budget -= 1
            relative, following = _signed(data, start + 1)
            yield start + 1 + relative
            start = following


def _signed(data: bytes, at: int) -> tuple[int, int]:
    first = data[at]
    for length in range(4):
        if not first >> length & 1:
            raw = int.from_bytes(data[at : at + length + 1], "little", signed=True)
            return raw >> (length + 1), at + length + 1
    return int.from_bytes(data[at + 1 : at + 5], "little", signed=True), at + 5


class _Signature:
    """Reads one blob."""

    def __init__(self, data: bytes, at: int, metadata: Metadata) -> None:
        self._data, self._at, self._metadata = data, at, metadata
        if not 0 <= at < len(data):
            raise ValueError("a blob outside of its section")

    def _number(self) -> int:
        """A compressed unsigned number (II.23.2)."""
        data, at = self._data, self._at
        first = data[at]
        length = 1 if first < 0x80 else 2 if first < 0xC0 else 4
        self._at += length
        value = int.from_bytes(data[at : at + length], "big")
        return value & (0x7F, 0x3FFF, 0, 0x1FFFFFFF)[length - 1]

    def method(self) -> tuple[int, Instance]:
        """(number of the first function, the instantiation)."""
        flags = self._number()
        if flags & _MODULE:
            self._number()
        owner = self.type(0) if flags & _OWNER else None
        row = self._number()
        arguments = [self.type(0) for _ in range(self._number())] if flags & _ARGUMENTS else []
        if flags & _CONSTRAINED:
            self.type(0)
        function, token = self._function(), METHOD_DEF << 24 | row
        declared = self._metadata.owner_of_method(token)
        name = self._metadata.type_name(declared) if declared else None
        is_own = owner in (None, name) or (owner or "").startswith(f"{name}<")
        if name is None or not is_own or flags & (_MEMBER_REFERENCE | _MODULE):
            return function, Instance(0, owner or "?", "")
        return function, Instance(token, owner or name, f"<{','.join(arguments)}>" if arguments else "")

    def _function(self) -> int:
        """The number of the function behind the signature: bit 0: fixups follow."""
        first = self._data[self._at]
        for length in range(4):
            if not first >> length & 1:
                value = int.from_bytes(self._data[self._at : self._at + length + 1], "little") >> (length + 1)
                break
        else:
            value = int(struct.unpack_from("<I", self._data, self._at + 1)[0])
        return value >> (2 if value & 1 else 1)

    def type(self, depth: int) -> str:
        """The name of a type; `?` where only another module's metadata has it."""
        if depth > _DEPTH:
            raise ValueError("types nested too deep")
        kind = self._data[self._at]
        self._at += 1
        if kind in _SIMPLE:
            return f"System.{_SIMPLE[kind]}"
        if kind in (0x11, 0x12):
            return self._named(self._number())
        if kind == 0x15:
            self._at += 1
            name = self._named(self._number())
            return f"{name}<{','.join(self.type(depth + 1) for _ in range(self._number()))}>"
        if kind in (0x0F, 0x10, 0x1D):
            return self.type(depth + 1) + {0x0F: "*", 0x10: "&", 0x1D: "[]"}[kind]
        if kind in (0x13, 0x1E, 0x3B):
            return f"!{self._number()}"
        if kind in (0x3D, 0x3F):
            if kind == 0x3F:
                self._number()
            self.type(depth + 1)
            return "?"
        if kind == 0x14:
            return self._array(depth)
        raise ValueError(f"an element type {kind:#x}")

    def _array(self, depth: int) -> str:
        element, rank = self.type(depth + 1), self._number()
        for _ in range(2):
            for _ in range(self._number()):
                self._number()
        return f"{element}[{',' * (rank - 1)}]"

    def _named(self, coded: int) -> str:
        """A TypeDef or TypeRef by its coded token."""
        row = coded >> 2
        if coded & 3 == 0:
            return self._metadata.type_name(TYPE_DEF << 24 | row) or "?"
        return self._metadata.reference_name(row) or "?" if coded & 3 == 1 else "?"
