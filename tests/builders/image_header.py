"""The first page of a loaded image: DOS, PE and section headers of an otherwise empty file.

In: machine, size and time stamp. Out: one page. The layout is restated by hand on purpose; nothing of the
tool under test is imported.
"""

from __future__ import annotations

import struct
from typing import Literal

PAGE = 0x1000
DATA_BYTES = 0x2000
"""Writable section at the end of every built image."""


def image_header(arch: Literal["x64", "x86"], size: int, timestamp: int, checksum: int = 0) -> bytes:
    """Header page of an image of `size` bytes: .text from 0x1000, .data in its last 0x2000 bytes."""
    x64 = arch == "x64"
    page = bytearray(PAGE)
    page[0:2] = b"MZ"
    struct.pack_into("<I", page, 0x3C, 0x80)
    optional = 0xF0 if x64 else 0xE0
    page[0x80:0x84] = b"PE\0\0"
    machine, kind = (0x8664, 0x2022) if x64 else (0x14C, 0x2102)
    struct.pack_into("<HHIIIHH", page, 0x84, machine, 2, timestamp, 0, 0, optional, kind)
    at = 0x98
    text = size - PAGE - DATA_BYTES
    struct.pack_into("<HBBIIII", page, at, 0x20B if x64 else 0x10B, 14, 0, text, DATA_BYTES, 0, PAGE)
    struct.pack_into("<II", page, at + 32, PAGE, 0x200)  # section and file alignment
    struct.pack_into("<HH", page, at + 48, 6, 0)  # subsystem version
    struct.pack_into("<IIIHH", page, at + 56, size, 0x400, checksum, 3, 0x8160)
    struct.pack_into("<I", page, at + (108 if x64 else 92), 16)  # data directories, all empty
    sections = ((b".text", PAGE, text, 0x60000020), (b".data", size - DATA_BYTES, DATA_BYTES, 0xC0000040))
    for i, (name, address, length, flags) in enumerate(sections):
        row = at + optional + 40 * i
        struct.pack_into("<8sIIII", page, row, name, length, address, length, 0x400 + address - PAGE)
        struct.pack_into("<I", page, row + 36, flags)
    return bytes(page)
