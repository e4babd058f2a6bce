"""The first page of a loaded image: DOS, PE and section headers of an otherwise empty file.

In: machine, size and time stamp. Out: one page. The layout is restated by hand on purpose; nothing of the
tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

PAGE = 0x1000
DATA_BYTES = 0x2000
"""Writable section at the end of every built image."""


IMPORTS_AT = 0x600
"""Where the import table begins, behind the section headers."""


@dataclass(frozen=True)
class ImageFacts:
    """What a header may say besides: ImageBase (0: not said), flags, (DLL, functions) pairs of the import table, and
    (number, RVA, size) of data directories whose tables lie elsewhere in the image; `data`: the start of
    the writable section."""

    image_base: int = 0
    dynamic_base: bool = True
    large_address_aware: bool = False
    imports: tuple[tuple[str, tuple[str, ...]], ...] = ()
    directories: tuple[tuple[int, int, int], ...] = ()
    data: bytes = b""


def image_header(
    arch: Literal["x64", "x86"], size: int, timestamp: int, checksum: int = 0, facts: ImageFacts | None = None
) -> bytes:
    """Header page of an image of `size` bytes: .text from 0x1000, .data in its last 0x2000 bytes."""
    facts = facts or ImageFacts()
    x64 = arch == "x64"
    page = bytearray(PAGE)
    page[0:2] = b"MZ"
    struct.pack_into("<I", page, 0x3C, 0x80)
    optional = 0xF0 if x64 else 0xE0
    page[0x80:0x84] = b"PE\0\0"
    machine, kind = (0x8664, 0x2022) if x64 else (0x14C, 0x2102)
    kind |= 0x20 * facts.large_address_aware
    struct.pack_into("<HHIIIHH", page, 0x84, machine, 2, timestamp, 0, 0, optional, kind)
    at = 0x98
    text = size - PAGE - DATA_BYTES
    struct.pack_into("<HBBIIII", page, at, 0x20B if x64 else 0x10B, 14, 0, text, DATA_BYTES, 0, PAGE)
    struct.pack_into("<Q" if x64 else "<I", page, at + (24 if x64 else 28), facts.image_base)
    struct.pack_into("<II", page, at + 32, PAGE, 0x200)  # section and file alignment
    struct.pack_into("<HH", page, at + 48, 6, 0)  # subsystem version
    struct.pack_into("<IIIHH", page, at + 56, size, 0x400, checksum, 3, 0x8120 | 0x40 * facts.dynamic_base)
    struct.pack_into("<I", page, at + (108 if x64 else 92), 16)  # data directories, all empty
    for number, rva, length in facts.directories:
        struct.pack_into("<II", page, at + (112 if x64 else 96) + 8 * number, rva, length)
    if facts.imports:
        table = _import_table(facts.imports, 8 if x64 else 4)
        struct.pack_into("<II", page, at + (120 if x64 else 104), IMPORTS_AT, len(table))
        page[IMPORTS_AT : IMPORTS_AT + len(table)] = table
    sections = ((b".text", PAGE, text, 0x60000020), (b".data", size - DATA_BYTES, DATA_BYTES, 0xC0000040))
    for i, (name, address, length, flags) in enumerate(sections):
        row = at + optional + 40 * i
        struct.pack_into("<8sIIII", page, row, name, length, address, length, 0x400 + address - PAGE)
        struct.pack_into("<I", page, row + 36, flags)
    return bytes(page)


def _import_table(imports: tuple[tuple[str, tuple[str, ...]], ...], width: int) -> bytes:
    """Descriptors, tables of names and names; functions of the form `#7` are imported by ordinal."""
    descriptors = 20 * (len(imports) + 1)
    out = bytearray(descriptors + sum(width * (len(functions) + 1) for _, functions in imports))
    slot = descriptors

    def put(text: str, hint: bytes = b"") -> int:
        """Appends a name; its RVA."""
        at = len(out)
        out.extend(hint + text.encode() + b"\0")
        return IMPORTS_AT + at

    for i, (dll, functions) in enumerate(imports):
        struct.pack_into("<IIIII", out, 20 * i, IMPORTS_AT + slot, 0, 0, put(dll), 0x1000)
        for name in functions:
            value = int(name[1:]) | 1 << 8 * width - 1 if name.startswith("#") else put(name, b"\0\0")
            out[slot : slot + width] = value.to_bytes(width, "little")
            slot += width
        slot += width
    return bytes(out)
