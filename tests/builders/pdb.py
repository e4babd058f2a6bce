"""A PDB with types only: an MSF file with the info stream and the type stream.

In: type records, added one by one. Out: the file's bytes. The layout is restated by hand (LLVM's docs on MSF and TPI);
nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct

_BLOCK = 0x1000
_MAGIC = b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0\0\0"
FIRST = 0x1000
"""Type index of the first record."""


def number(value: int) -> bytes:
    """A number as records hold it."""
    return struct.pack("<H", value) if 0 <= value < 0x8000 else struct.pack("<HI", 0x8004, value)


def text(value: str) -> bytes:
    """A zero-ended name."""
    return value.encode() + b"\0"


def padded(data: bytes) -> bytes:
    """The data with LF_PAD bytes up to a multiple of 4."""
    rest = -len(data) % 4
    return data + bytes(0xF0 | i for i in range(rest, 0, -1))


class TypeStream:
    """Type records in the making; each call gives the type index of its record."""

    def __init__(self) -> None:
        """No record yet."""
        self._records: list[bytes] = []

    def record(self, kind: int, data: bytes) -> int:
        """Any record."""
        body = padded(data)
        self._records.append(struct.pack("<HH", len(body) + 2, kind) + body)
        return FIRST + len(self._records) - 1

    def fields(self, *members: bytes) -> int:
        """A field list of members."""
        return self.record(0x1203, b"".join(padded(member) for member in members))

    def structure(self, name: str, size: int, fields: int = 0, *, forward: bool = False, union: bool = False) -> int:
        """A structure or a union; `forward`: only its declaration."""
        head = struct.pack("<HHI", 1, 0x80 if forward else 0, fields)
        if union:
            return self.record(0x1506, head + number(size) + text(name))
        return self.record(0x1505, head + struct.pack("<II", 0, 0) + number(size) + text(name))

    def pointer(self, target: int, size: int = 8) -> int:
        """A pointer."""
        return self.record(0x1002, struct.pack("<II", target, 0xC | size << 13))

    def array(self, element: int, size: int) -> int:
        """An array of `size` bytes."""
        return self.record(0x1503, struct.pack("<II", element, 0x23) + number(size) + text(""))

    def bits(self, storage: int, count: int, first: int) -> int:
        """A bit field."""
        return self.record(0x1205, struct.pack("<IBB", storage, count, first))

    def enumeration(self, name: str, *names: str) -> int:
        """An enumeration of int, from 0 on."""
        fields = self.fields(*(struct.pack("<HH", 0x1502, 3) + number(i) + text(one) for i, one in enumerate(names)))
        return self.record(0x1507, struct.pack("<HHII", len(names), 0, 0x74, fields) + text(name))

    def build(self) -> bytes:
        """The bytes of the type stream."""
        records = b"".join(self._records)
        end = FIRST + len(self._records)
        return struct.pack("<5IHH2IiIiIiI", 20040203, 56, FIRST, end, len(records), *[0] * 10)[:56] + records


def member(name: str, offset: int, kind: int) -> bytes:
    """A data member."""
    return struct.pack("<HHI", 0x150D, 3, kind) + number(offset) + text(name)


def base(offset: int, kind: int) -> bytes:
    """A base class."""
    return struct.pack("<HHI", 0x1400, 3, kind) + number(offset)


def method(name: str, kind: int = 0x1000, *, introduces_virtual: bool = False) -> bytes:
    """A method, perhaps with its offset in the vtable."""
    attributes = 3 | (4 << 2 if introduces_virtual else 0)
    return struct.pack("<HHI", 0x1511, attributes, kind) + (bytes(4) if introduces_virtual else b"") + text(name)


def pdb(types: bytes, guid: bytes, age: int) -> bytes:
    """The file: streams 0 (empty), 1 (info), 2 (types), 3 (symbols, none)."""
    info = struct.pack("<III", 20000404, 0x5F000000, age) + guid + struct.pack("<5I", 0, 0, 0, 0, 0)
    dbi = struct.pack("<iII", -1, 19990903, age) + bytes(52)
    streams = [b"", info, types, dbi]
    blocks: list[bytes] = [b"", bytes(_BLOCK), bytes(_BLOCK)]  # the super block, two free block maps
    places = []
    for stream in streams:
        own = []
        for at in range(0, len(stream), _BLOCK):
            own.append(len(blocks))
            blocks.append(stream[at : at + _BLOCK].ljust(_BLOCK, b"\0"))
        places.append(own)
    directory = struct.pack(f"<I{len(streams)}I", len(streams), *map(len, streams))
    directory += b"".join(struct.pack(f"<{len(own)}I", *own) for own in places)
    blocks.append(directory.ljust(_BLOCK, b"\0"))
    blocks.append(struct.pack("<I", len(blocks) - 1).ljust(_BLOCK, b"\0"))
    head = _MAGIC + struct.pack("<6I", _BLOCK, 1, len(blocks), len(directory), 0, len(blocks) - 1)
    blocks[0] = head.ljust(_BLOCK, b"\0")
    return b"".join(blocks)
