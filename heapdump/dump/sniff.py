"""Identifies a file by its first bytes: a minidump, a packed file, or another file, which the message names."""

from __future__ import annotations

import struct

COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\0": "xz",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"MSCF": "cab",
}

_KERNEL = (
    "a Windows kernel dump{}; heapdump reads dumps of processes: "
    "open it in WinDbg, or capture the process with `procdump -ma <pid>`"
)
_OTHERS: dict[bytes, str] = {
    b"PAGEDU64": _KERNEL.format(" (64-bit)"),
    b"PAGEDUMP": _KERNEL.format(" (32-bit)"),
    b"PAGE": _KERNEL.format(""),
    b"USERDUMP": "an old-style user dump (before Windows XP); convert it with `dumpchk` or WinDbg's `.dump /ma`",
    b"MZ": "a Windows program (EXE or DLL), not a dump of one",
    b"Microsoft C/C++ MSF 7.00": "a PDB symbol file",
    b"\xcf\xfa\xed\xfe": "a Mach-O file (macOS program or core dump)",
    b"\xce\xfa\xed\xfe": "a Mach-O file (macOS program or core dump)",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"BZh": "a bzip2 file; unpack it first",
    b"PMDM": "a minidump with swapped byte order, which no Windows writes",
}
_ELF_KINDS = {1: "object file", 2: "program", 3: "shared library", 4: "core dump (Linux)"}
_PLATFORMS = {
    0x8101: "macOS",
    0x8102: "iOS",
    0x8201: "Linux",
    0x8202: "Solaris",
    0x8203: "Android",
    0x8204: "PlayStation 3",
    0x8205: "NaCl",
    0x8206: "Fuchsia",
}


def compression(first: bytes) -> str | None:
    """The name of the compression; None for a file that is not packed, or that heapdump cannot unpack."""
    return next((name for magic, name in COMPRESSED.items() if first.startswith(magic)), None)


def describe_other(first: bytes) -> str:
    """Names a file that is not a minidump, as the end of "<path> is …". `first`: its first 4096 bytes."""
    if not first:
        return "empty"
    if first.startswith(b"\x7fELF") and len(first) >= 18:
        (kind,) = struct.unpack_from("<H" if first[5] == 1 else ">H", first, 16)
        return f"an ELF {_ELF_KINDS.get(kind, 'file')}; heapdump reads Windows dumps"
    for magic, words in _OTHERS.items():
        if first.startswith(magic):
            return words
    if not first.strip(b"\0"):
        return "not a dump: it starts with nothing but zero bytes"
    if first.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or _is_text(first):
        return "a text file"
    return f"not a minidump: it starts with {first[:4].hex(' ')} instead of 4d 44 4d 50 (MDMP)"


def platform_name(platform_id: int) -> str | None:
    """The system that wrote the minidump where it is not Windows, else None (Breakpad's MD_OS_* numbers)."""
    return _PLATFORMS.get(platform_id, f"platform {platform_id:#x}" if platform_id >= 0x8000 else None)


def _is_text(first: bytes) -> bool:
    return all(byte >= 0x20 or byte in b"\t\r\n\f\x1b" for byte in first)
