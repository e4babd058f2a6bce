"""The streams of a minidump, one encoder each.

In: truth records (`dump_truth`) and a `Blob` that hands out file positions. Out: stream bodies. Every layout
is restated by hand on purpose, so that a mistake in the reader makes a test fail; nothing of the tool is
imported.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from .cpu_context import cpu_context
from .dump_truth import (
    Arch,
    ExceptionTruth,
    MiscTruth,
    ModuleTruth,
    RegionTruth,
    ThreadInfoTruth,
    ThreadTruth,
    UnloadedTruth,
)

STATES = {"MEM_COMMIT": 0x1000, "MEM_RESERVE": 0x2000, "MEM_FREE": 0x10000}
TYPES = {"": 0, "MEM_PRIVATE": 0x20000, "MEM_MAPPED": 0x40000, "MEM_IMAGE": 0x1000000}
_CPU = {"x86": 0, "x64": 9, "arm64": 12}

Locate = Callable[[int, int], int]
"""(address, size) -> file position of those bytes in the memory list, 0 when it has none."""


class Blob:
    """The part of the file between header and memory; `put` appends and tells the file position."""

    def __init__(self, start: int) -> None:
        """Begin at file position `start`."""
        self.start = start
        self.data = bytearray()

    @property
    def end(self) -> int:
        """File position behind the last byte."""
        return self.start + len(self.data)

    def put(self, data: bytes, align: int = 4) -> int:
        """Append the bytes at a multiple of `align`; returns their file position."""
        self.data += bytes(-self.end % align)
        position = self.end
        self.data += data
        return position

    def string(self, text: str) -> int:
        """Append a MINIDUMP_STRING (bytes of text, UTF-16, terminator); returns its file position."""
        encoded = text.encode("utf-16-le", "surrogatepass")
        return self.put(struct.pack("<I", len(encoded)) + encoded + b"\0\0")


def system_info(blob: Blob, arch: Arch, os: tuple[int, int, int]) -> bytes:
    """Stream 7: MINIDUMP_SYSTEM_INFO, 56 bytes."""
    major, minor, build = os
    name = blob.string("Service Pack 1" if build == 7601 else "")
    head = struct.pack("<HHHBB", _CPU[arch], 6, 0x3A09, 2, 1)
    cpu = struct.pack("<12sIII", b"GenuineIntel", 0x63A, 0x7FF, 0) if arch == "x86" else bytes(24)
    return head + struct.pack("<IIIIIHH", major, minor, build, 2, name, 0x100, 0) + cpu


def threads(blob: Blob, arch: Arch, items: Sequence[ThreadTruth], locate: Locate) -> bytes:
    """Stream 3: count and 48-byte MINIDUMP_THREADs; each context goes into the blob."""
    out = bytearray(struct.pack("<I", len(items)))
    for item in items:
        context = cpu_context(arch, item.ip, item.sp, dict(item.registers))
        position = blob.put(context, 16)
        start, size = item.stack
        out += struct.pack("<IIIIQ", item.tid, 0, 0x20, 8, item.teb)
        out += struct.pack("<QII", start, size, locate(start, size))
        out += struct.pack("<II", len(context), position)
    return bytes(out)


def modules(blob: Blob, items: Sequence[ModuleTruth]) -> bytes:
    """Stream 4: count and 108-byte MINIDUMP_MODULEs with fixed file info and CodeView record."""
    out = bytearray(struct.pack("<I", len(items)))
    for item in items:
        name = blob.string(item.path)
        out += struct.pack("<QIIII", item.base, item.size, item.checksum, item.timestamp, name)
        out += _fixed_file_info(item)
        if item.pdb:
            file, guid, age = item.pdb
            record = b"RSDS" + guid + struct.pack("<I", age) + file.encode("utf-8", "surrogatepass") + b"\0"
            out += struct.pack("<II", len(record), blob.put(record))
        else:
            out += bytes(8)
        out += bytes(8 + 16)  # MiscRecord, Reserved0, Reserved1
    return bytes(out)


def _fixed_file_info(item: ModuleTruth) -> bytes:
    if item.version is None:
        return bytes(52)
    a, b, c, d = item.version
    high, low = a << 16 | b, c << 16 | d
    kind = 1 if item.path.lower().endswith(".exe") else 2
    return struct.pack("<13I", 0xFEEF04BD, 0x10000, high, low, high, low, 0x3F, 0, 0x40004, kind, 0, 0, 0)


def regions(items: Sequence[RegionTruth]) -> bytes:
    """Stream 16: a 16-byte header and 48-byte MINIDUMP_MEMORY_INFOs."""
    out = bytearray(struct.pack("<IIQ", 16, 48, len(items)))
    for r in items:
        out += struct.pack(
            "<QQIIQIIII", r.base, r.allocation_base, r.allocation_protect, 0,
            r.size, STATES[r.state], r.protect, TYPES[r.type], 0,
        )  # fmt: skip
    return bytes(out)


def exception(blob: Blob, arch: Arch, item: ExceptionTruth) -> bytes:
    """Stream 6: MINIDUMP_EXCEPTION_STREAM, 168 bytes, with a context of its own."""
    context = cpu_context(arch, item.ip, item.sp, dict(item.registers))
    position = blob.put(context, 16)
    out = struct.pack("<II", item.tid, 0)
    out += struct.pack("<IIQQII", item.code, item.flags, 0, item.address, len(item.parameters), 0)
    out += struct.pack("<15Q", *(tuple(item.parameters) + (0,) * 15)[:15])
    return out + struct.pack("<II", len(context), position)


def misc_info(item: MiscTruth) -> bytes:
    """Stream 15: MINIDUMP_MISC_INFO of the wanted size; what is behind the 24 known bytes is zero."""
    times = 2 if item.create_time or item.user_time or item.kernel_time else 0
    head = struct.pack("<6I", item.size, 1 | times, item.pid, item.create_time, item.user_time, item.kernel_time)
    return head.ljust(item.size, b"\0")


def unloaded(blob: Blob, items: Sequence[UnloadedTruth]) -> bytes:
    """Stream 14: a 12-byte header and 24-byte MINIDUMP_UNLOADED_MODULEs."""
    out = bytearray(struct.pack("<III", 12, 24, len(items)))
    for item in items:
        name = blob.string(item.name)
        out += struct.pack("<QIIII", item.base, item.size, 0, item.timestamp, name)
    return bytes(out)


def thread_names(blob: Blob, items: Sequence[tuple[int, str]]) -> bytes:
    """Stream 24: count and packed 12-byte MINIDUMP_THREAD_NAMEs."""
    out = bytearray(struct.pack("<I", len(items)))
    for tid, name in items:
        out += struct.pack("<IQ", tid, blob.string(name))
    return bytes(out)


def thread_infos(items: Sequence[ThreadInfoTruth]) -> bytes:
    """Stream 17: a 12-byte header and 64-byte MINIDUMP_THREAD_INFOs."""
    out = bytearray(struct.pack("<III", 12, 64, len(items)))
    for item in items:
        out += struct.pack("<IIII", item.tid, 0, 0, 0x103)  # exit status: still active
        out += struct.pack("<6Q", item.create_time, 0, 0, 0, item.start_address, 3)
    return bytes(out)


def memory64(ranges: Sequence[tuple[int, int]], base: int) -> bytes:
    """Stream 9: count, file position of the first byte, 16-byte descriptors."""
    words = [word for pair in ranges for word in pair]
    return struct.pack("<QQ", len(ranges), base) + struct.pack(f"<{len(words)}Q", *words)


def memory32(ranges: Sequence[tuple[int, int]], base: int) -> bytes:
    """Stream 5: count and 16-byte descriptors that each carry a 32-bit file position."""
    out = bytearray(struct.pack("<I", len(ranges)))
    for address, size in ranges:
        out += struct.pack("<QII", address, size, base)
        base += size
    return bytes(out)
