"""Readers of the long lists: modules, threads, memory ranges, MemoryInfo; and of the exception.

Each reader takes the mapped file and a stream, and cuts the count to the entries that the stream holds. A count above
`limits` is an error. An entry that is left out adds a sentence to `notes`. Addresses are as in the file;
`process/load.py` cuts the sign-extended ones of 32-bit dumps.
"""

from __future__ import annotations

import struct
import uuid
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from heapdump.dump import limits
from heapdump.dump.directory import Stream
from heapdump.dump.streams import ExceptionRecord, ModuleRecord, PdbId, SystemInfo, ThreadRecord
from heapdump.spans import Span
from heapdump.wording import plural

_MODULE = struct.Struct("<QIIII13IIIIIQQ")
_THREAD = struct.Struct("<IIIIQQIIII")
_U32 = struct.Struct("<I")
_FIXED_FILE_INFO = 0xFEEF04BD
_TOP = 1 << 64

RANGE = np.dtype([("start", "<u8"), ("size", "<u8"), ("offset", "<u8")])
"""One memory range: `size` bytes of the process from `start` on, at file offset `offset`."""

REGION = np.dtype(
    [
        ("base", "<u8"),
        ("allocation_base", "<u8"),
        ("size", "<u8"),
        ("state", "<u4"),
        ("protect", "<u4"),
        ("type", "<u4"),
    ]
)
"""One MemoryInfo entry, values as VirtualQuery gives them."""


class Strings:
    """Reads MINIDUMP_STRINGs, the string at each offset once, up to a limit for all together."""

    def __init__(self, data: mmap, notes: list[str]) -> None:
        """`notes` gets a sentence for the first string that exceeds a limit."""
        self._data, self._notes = data, notes
        self._has_noted = False
        self._known: dict[int, str] = {}
        self._left = limits.MAX_STRINGS_TOTAL_BYTES

    def at(self, offset: int) -> str:
        """The string at a file offset; "" where it lies outside the file or is longer than the limits."""
        if offset not in self._known:
            self._known[offset] = self._read(offset)
        return self._known[offset]

    def _read(self, offset: int) -> str:
        if not 0 < offset <= len(self._data) - 4:
            return ""
        (size,) = _U32.unpack_from(self._data, offset)
        if size > min(limits.MAX_STRING_BYTES, len(self._data) - offset - 4, self._left):
            if not self._has_noted:
                self._notes.append(
                    f"strings are too long and left out, the first at file offset {offset:#x} ({size:,} bytes)"
                )
            self._has_noted = True
            return ""
        self._left -= size
        return self._data[offset + 4 : offset + 4 + size].decode("utf-16-le", errors="replace")


def counted(
    data: mmap, stream: Stream, record_bytes: int, maximum: int, name: str, notes: list[str]
) -> tuple[int, int]:
    """(file offset of the first record, number of records) of a stream that begins with a u32 count.

    Breakpad pads the count to 8 bytes in some lists; such a stream is 4 bytes larger.
    """
    if stream.present < 4:
        return stream.offset, 0
    (count,) = _U32.unpack_from(data, stream.offset)
    first = 8 if stream.size == 8 + count * record_bytes else 4
    fits = max(0, (stream.present - first) // record_bytes)
    if count > fits:
        notes.append(f"the {name} list says {plural(count, 'entry')}, its stream holds {fits:,}: the rest is missing")
        count = fits
    limits.require(f"entries of the {name} list", count, maximum)
    return stream.offset + first, count


def read_system_info(data: mmap, stream: Stream, strings: Strings) -> SystemInfo | None:
    """The system information; None where the stream is shorter than its fixed part."""
    if stream.present < 32:
        return None
    processor, _, _, processors, product = struct.unpack_from("<HHHBB", data, stream.offset)
    major, minor, build, platform, service_pack = struct.unpack_from("<5I", data, stream.offset + 8)
    return SystemInfo(processor, processors, product, (major, minor, build), platform, strings.at(service_pack))


def read_modules(data: mmap, stream: Stream, strings: Strings, notes: list[str]) -> tuple[ModuleRecord, ...]:
    """The modules in file order, without those of size 0 or that reach over 2**64."""
    first, count = counted(data, stream, _MODULE.size, limits.MAX_MODULES, "module", notes)
    out, impossible = [], 0
    for i in range(count):
        values = _MODULE.unpack_from(data, first + i * _MODULE.size)
        base, size, checksum, timestamp, name = values[:5]
        version_info, (cv_size, cv_offset) = values[5:18], values[18:20]
        if size == 0 or base + size >= _TOP:
            impossible += 1
            continue
        pdb = _read_pdb(data, cv_offset, cv_size)
        out.append(
            ModuleRecord(Span(base, base + size), strings.at(name), _version(version_info), checksum, timestamp, pdb)
        )
    if impossible:
        notes.append(f"{plural(impossible, 'module entry')} of the module list with an impossible extent left out")
    return tuple(out)


def _version(info: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    if info[0] != _FIXED_FILE_INFO:
        return None
    return info[2] >> 16, info[2] & 0xFFFF, info[3] >> 16, info[3] & 0xFFFF


def _read_pdb(data: mmap, offset: int, size: int) -> PdbId | None:
    """An RSDS record (Microsoft's PDB 7.0 debug directory data): magic, GUID, age, NUL-terminated UTF-8 path."""
    size = min(size, limits.MAX_CODEVIEW_BYTES, max(0, len(data) - offset))
    if size < 24 or data[offset : offset + 4] != b"RSDS":
        return None
    raw = data[offset : offset + size]
    guid = uuid.UUID(bytes_le=raw[4:20]).hex.upper()
    path = raw[24:].split(b"\0", 1)[0].decode("utf-8", errors="replace")
    return PdbId(path, guid, _U32.unpack_from(raw, 20)[0])


def context_bytes(data: mmap, size: int, offset: int) -> bytes:
    """The bytes of the fixed part of the CONTEXT at a file offset; fewer at the end of the file."""
    return bytes(data[offset : offset + min(size, limits.MAX_CONTEXT_BYTES)])


def read_threads(data: mmap, stream: Stream, notes: list[str]) -> tuple[ThreadRecord, ...]:
    """The threads in file order; of several with one id only the first, and a note with the number of the others."""
    first, count = counted(data, stream, _THREAD.size, limits.MAX_THREADS, "thread", notes)
    out: dict[int, ThreadRecord] = {}
    for i in range(count):
        tid, suspend, _, _, teb, start, size, _, ctx_size, ctx = _THREAD.unpack_from(data, first + i * _THREAD.size)
        stack = Span(start, max(start, min(start + size, _TOP - 1)))
        out.setdefault(tid, ThreadRecord(tid, suspend, teb, stack, context_bytes(data, ctx_size, ctx)))
    if len(out) < count:
        left = plural(count - len(out), "thread entry")
        notes.append(f"{left} of the thread list with the id of an earlier one left out")
    return tuple(out.values())


def read_exception(data: mmap, stream: Stream) -> ExceptionRecord | None:
    """The exception; None where the stream is shorter than its fixed part."""
    if stream.present < 168:
        return None
    tid, _, code, flags, _, address, count = struct.unpack_from("<IIIIQQI", data, stream.offset)
    parameters = struct.unpack_from("<15Q", data, stream.offset + 40)[: min(count, 15)]
    ctx_size, ctx = struct.unpack_from("<II", data, stream.offset + 160)
    return ExceptionRecord(tid, code, flags, address, parameters, context_bytes(data, ctx_size, ctx))


def read_memory64(data: mmap, stream: Stream, notes: list[str]) -> NDArray[np.void]:
    """Memory64List as (n,) RANGE, in file order; the bytes of all ranges follow each other in the file."""
    if stream.present < 16:
        return np.empty(0, RANGE)
    count, at = struct.unpack_from("<QQ", data, stream.offset)
    fits = (stream.present - 16) // 16
    if count > fits:
        notes.append(f"the memory list says {count:,} ranges, its stream holds {fits:,}: the rest is missing")
        count = fits
    limits.require("ranges of the memory list", count, limits.MAX_MEMORY_RANGES)
    raw = np.frombuffer(data[stream.offset + 16 : stream.offset + 16 + count * 16], "<u8").reshape(-1, 2)
    out = np.empty(count, RANGE)
    out["start"], out["size"] = raw[:, 0], raw[:, 1]
    out["offset"] = np.uint64(at)
    if count:
        # sizes may be hostile: cut each to the size of the file, so that the sum of offsets cannot wrap
        sizes = np.minimum(out["size"], np.uint64(len(data)))
        out["offset"][1:] = np.uint64(min(at, len(data))) + np.cumsum(sizes)[:-1]
    return out


def read_memory32(data: mmap, stream: Stream, notes: list[str]) -> NDArray[np.void]:
    """MemoryList as (n,) RANGE, in file order; each range has a file offset of its own."""
    first, count = counted(data, stream, 16, limits.MAX_MEMORY_RANGES, "memory", notes)
    raw = np.frombuffer(data[first : first + count * 16], np.dtype([("a", "<u8"), ("s", "<u4"), ("o", "<u4")]))
    out = np.empty(count, RANGE)
    out["start"], out["size"], out["offset"] = raw["a"], raw["s"], raw["o"]
    return out


def read_regions(data: mmap, stream: Stream, notes: list[str]) -> NDArray[np.void]:
    """MemoryInfoList as (n,) REGION in file order; empty where the sizes in its header are too small."""
    if stream.present < 16:
        return np.empty(0, REGION)
    head, each, count = struct.unpack_from("<IIQ", data, stream.offset)
    if each < 48 or head < 16:
        notes.append(f"the memory info list has entries of {each} bytes behind a header of {head}: not read")
        return np.empty(0, REGION)
    fits = max(0, (stream.present - head) // each)
    if count > fits:
        notes.append(f"the memory info list says {count:,} regions, its stream holds {fits:,}: the rest is missing")
        count = fits
    if not count:
        return np.empty(0, REGION)
    limits.require("regions of the memory info list", count, limits.MAX_REGIONS)
    offsets = {"base": 0, "allocation_base": 8, "size": 24, "state": 32, "protect": 36, "type": 40}
    names = list(offsets)
    stored = np.dtype(
        {
            "names": names,
            "formats": [REGION[n] for n in names],
            "offsets": [offsets[n] for n in names],
            "itemsize": each,
        }
    )
    start = stream.offset + head
    raw = np.frombuffer(data[start : start + count * each], stored)
    out = np.empty(count, REGION)
    for name in names:
        out[name] = raw[name]
    return out
