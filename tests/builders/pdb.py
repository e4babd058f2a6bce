"""A PDB with types, and frame data of x86 code: an MSF file with the streams that hold them.

In: type records, added one by one; frame data. Out: the file's bytes. The layout is restated by hand (LLVM's docs on MSF, TPI, DBI and the named stream map);
nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class FrameStreams:
    """What a PDB says of frames: records of the two streams, and the string table that holds the programs."""

    fpo: bytes = b""
    new: bytes = b""
    strings: bytes = b"\0"

    def dbi(self, age: int) -> bytes:
        """The DBI stream with an optional debug header: FPO is stream 4, new FPO stream 5, the strings stream 6."""
        slots = [0xFFFF] * 11
        slots[0], slots[9] = (4 if self.fpo else 0xFFFF), (5 if self.new else 0xFFFF)
        head = struct.pack("<iII6H8iHHI", -1, 19990903, age, *[0xFFFF, 0] * 3, *[0] * 6, 22, 0, 0, 0x14C, 0)
        return head + struct.pack("<11H", *slots)

    def streams(self) -> list[bytes]:
        """Streams 4 to 6."""
        return [self.fpo, self.new, struct.pack("<III", 0xEFFEEFFE, 1, len(self.strings)) + self.strings]


def fpo(start: int, size: int, *, local_words: int, parameter_words: int, prolog: int, registers: int) -> bytes:
    """One `FPO_DATA`."""
    return struct.pack("<IIIHH", start, size, local_words, parameter_words, prolog | registers << 8)


def frame_data(start: int, size: int, program: int, *, local_bytes: int, parameter_bytes: int, saved: int) -> bytes:
    """One `FRAMEDATA`; `program`: offset in the string table."""
    return struct.pack("<6IHHI", start, size, local_bytes, parameter_bytes, 0, program, 0, saved, 4)


def pdb(types: bytes, guid: bytes, age: int, frames: FrameStreams | None = None) -> bytes:
    """The file: streams 0 (empty), 1 (info), 2 (types), 3 (symbols, none), with `frames` those of frame data."""
    named = struct.pack("<5I", 0, 0, 0, 0, 0)
    if frames is not None:  # one name, "/names": stream 6
        named = struct.pack("<I7s", 7, b"/names\0") + struct.pack("<7I", 1, 1, 1, 1, 0, 0, 6)
    info = struct.pack("<III", 20000404, 0x5F000000, age) + guid + named
    dbi = struct.pack("<iII", -1, 19990903, age) + bytes(52) if frames is None else frames.dbi(age)
    streams = [b"", info, types, dbi, *([] if frames is None else frames.streams())]
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
