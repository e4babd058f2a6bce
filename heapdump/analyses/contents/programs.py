"""Formats of programs, documents, databases and fonts.

Sources: PE/COFF, ELF, the class file of the JVM, MS-CFB, PDF, SQLite, OpenType.
"""

from __future__ import annotations

import numpy as np

from heapdump.analyses.contents.first_bytes import FirstBytes, Format, Mask, all_of, one_of, within

_MACHINES = (0x14C, 0x8664, 0x1C0, 0x1C4, 0xAA64, 0x200, 0xEBC)
_MOST_TABLES = 64


def _is_pe(blocks: FirstBytes) -> Mask:
    """e_lfanew leads to `PE` and a machine that exists."""
    at = blocks.little_endian(60, 4)
    return all_of(at >= 64, blocks.further(at, 4) == 0x4550, one_of(blocks.further(at + 4, 2), *_MACHINES))


def _is_elf(blocks: FirstBytes) -> Mask:
    return all_of(
        within(blocks.little_endian(4, 1), 1, 2),
        within(blocks.little_endian(5, 1), 1, 2),
        blocks.little_endian(6, 1) == 1,
    )


def _is_java(blocks: FirstBytes) -> Mask:
    return all_of(blocks.big_endian(4, 2) <= 3, within(blocks.big_endian(6, 2), 45, 90), blocks.big_endian(8, 2) >= 8)


def _is_sqlite(blocks: FirstBytes) -> Mask:
    """The size of a page is a power of two, and fractions of it have the values of all_of version."""
    page = blocks.big_endian(16, 2)
    good: Mask = ((page == 1) | (within(page, 512, 32768) & (page & (page - 1) == 0))) & blocks.is_at(
        21, b"\x40\x20\x20"
    )
    return good


def _is_font(blocks: FirstBytes) -> Mask:
    """Search range and entry selector follow from the number of tables; the first tag is printable."""
    tables = blocks.big_endian(4, 2)
    power = np.floor(np.log2(np.maximum(tables, 1))).astype(np.int64)
    is_text = (blocks.raw[:, 12:16] >= 0x20) & (blocks.raw[:, 12:16] < 0x7F)
    good: Mask = (
        within(tables, 4, _MOST_TABLES)
        & (blocks.big_endian(6, 2) == 16 << power)
        & (blocks.big_endian(8, 2) == power)
        & is_text.all(axis=1)
    )
    return good


FORMATS = (
    Format("PE image", b"MZ", _is_pe),
    Format("ELF image", b"\x7fELF", _is_elf),
    Format("Java class file", b"\xca\xfe\xba\xbe", _is_java),
    Format("WebAssembly module", b"\0asm\x01\0\0\0"),
    Format("PDB", b"Microsoft C/C++ MSF 7.00\r\n\x1aDS\0"),
    Format("minidump", b"MDMP\x93\xa7"),
    Format("CLR metadata", b"BSJB\x01\0\x01\0"),
    Format("PDF document", b"%PDF-1."),
    Format("OLE compound document", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    Format("RTF document", b"{\\rtf1"),
    Format("SQLite database", b"SQLite format 3\0", _is_sqlite),
    Format(
        "registry hive",
        b"regf",
        lambda blocks: all_of(blocks.little_endian(20, 4) == 1, blocks.little_endian(28, 4) == 0),
    ),
    Format("HDF5 data", b"\x89HDF\r\n\x1a\n"),
    Format("Parquet data", b"PAR1\x15"),
    Format("OpenType font", b"\0\x01\0\0", _is_font),
    Format("OpenType font", b"OTTO", _is_font),
    Format("web font", b"wOFF", lambda blocks: blocks.big_endian(4, 4) >= 0x10000),
    Format("web font", b"wOF2", lambda blocks: blocks.big_endian(4, 4) >= 0x10000),
)
