"""Precompiled instantiations of generic methods: section 109 of ready-to-run images (InstanceEntryPoints).

A NativeHashtable: u8 header (low 2 bits: log2 of the bytes of an offset, the rest: log2 of the number of buckets), an
offset for each bucket, then for each entry u8 of its hash and the relative place of its blob. A blob is a method's
signature and the number of its first RUNTIME_FUNCTION. Source: nativeformatreader.h, zapsig.cpp, readytorun.h of the
runtime.

    method  u flags: 04 method arguments, 10 member reference, 20 constrained, 40 owner type, 80 another module
            [40: type] u row of the MethodDef [04: u count, types]
    type    as in `signatures`
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.runtimes.dotnet.metadata import METHOD_DEF, Metadata
from heapdump.runtimes.dotnet.signatures import SignatureReader

_ARGUMENTS, _MEMBER_REFERENCE, _CONSTRAINED, _OWNER, _MODULE = 0x04, 0x10, 0x20, 0x40, 0x80
_MOST_BUCKETS, _MOST_ENTRIES = 1 << 20, 1 << 20


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


class _Signature(SignatureReader):
    """Reads one blob."""

    def method(self) -> tuple[int, Instance]:
        """(number of the first function, the instantiation)."""
        flags = self.number()
        if flags & _MODULE:
            self.number()
        owner = self.type(0) if flags & _OWNER else None
        row = self.number()
        arguments = [self.type(0) for _ in range(self.number())] if flags & _ARGUMENTS else []
        if flags & _CONSTRAINED:
            self.type(0)
        function, token = self._function(), METHOD_DEF << 24 | row
        declared = self.metadata.owner_of_method(token)
        name = self.metadata.type_name(declared) if declared else None
        is_own = owner in (None, name) or (owner or "").startswith(f"{name}<")
        if name is None or not is_own or flags & (_MEMBER_REFERENCE | _MODULE):
            return function, Instance(0, owner or "?", "")
        return function, Instance(token, owner or name, f"<{','.join(arguments)}>" if arguments else "")

    def _function(self) -> int:
        """The number of the function behind the signature: bit 0: fixups follow."""
        first = self.data[self.at]
        for length in range(4):
            if not first >> length & 1:
                value = int.from_bytes(self.data[self.at : self.at + length + 1], "little") >> (length + 1)
                break
        else:
            value = int(struct.unpack_from("<I", self.data, self.at + 1)[0])
        return value >> (2 if value & 1 else 1)
