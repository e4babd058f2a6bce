"""Reads the minidump header and its stream directory, with checks of all bounds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from mmap import mmap

from heapdump.dump import limits
from heapdump.errors import NotAMinidump, TruncatedDump

MAGIC = b"MDMP"
_HEADER = struct.Struct("<4sIIIIIQ")
_ENTRY = struct.Struct("<III")


class StreamType(IntEnum):
    """MINIDUMP_STREAM_TYPE: the streams that heapdump reads or names."""

    UNUSED = 0
    THREAD_LIST = 3
    MODULE_LIST = 4
    MEMORY_LIST = 5
    EXCEPTION = 6
    SYSTEM_INFO = 7
    THREAD_EX_LIST = 8
    MEMORY64_LIST = 9
    COMMENT_A = 10
    COMMENT_W = 11
    HANDLE_DATA = 12
    FUNCTION_TABLE = 13
    UNLOADED_MODULES = 14
    MISC_INFO = 15
    MEMORY_INFO_LIST = 16
    THREAD_INFO_LIST = 17
    HANDLE_OPERATIONS = 18
    TOKEN = 19
    JAVASCRIPT_DATA = 20
    SYSTEM_MEMORY_INFO = 21
    PROCESS_VM_COUNTERS = 22
    IPT_TRACE = 23
    THREAD_NAMES = 24


FLAG_WORDS = {
    0x1: "data segments",
    0x2: "full memory",
    0x4: "handle data",
    0x8: "filtered memory",
    0x10: "scanned memory",
    0x20: "unloaded modules",
    0x40: "indirectly referenced memory",
    0x80: "filtered module paths",
    0x100: "process and thread data",
    0x200: "private read-write memory",
    0x400: "without optional data",
    0x800: "full memory info",
    0x1000: "thread info",
    0x2000: "code segments",
    0x4000: "without auxiliary state",
    0x8000: "full auxiliary state",
    0x10000: "private write-copy memory",
    0x20000: "ignoring inaccessible memory",
    0x40000: "token information",
    0x80000: "module headers",
    0x100000: "filtered triage",
    0x200000: "AVX state",
    0x400000: "Intel PT trace",
    0x800000: "scanning inaccessible partial pages",
}
"""MINIDUMP_TYPE bits in words (minidumpapiset.h)."""


@dataclass(frozen=True, slots=True)
class DumpHeader:
    """The members of MINIDUMP_HEADER.

    Attributes:
        version: Version.
        timestamp: TimeDateStamp, seconds since 1970.
        flags: Flags, MINIDUMP_TYPE bits.
    """

    version: int
    timestamp: int
    flags: int

    @property
    def flag_words(self) -> tuple[str, ...]:
        """The dump type in words, lowest bit first; unknown bits as hex; "normal contents" where no bit is set."""
        words = [word for bit, word in FLAG_WORDS.items() if self.flags & bit]
        unknown = self.flags & ~sum(FLAG_WORDS)
        return (*words, *([f"{unknown:#x}"] if unknown else [])) or ("normal contents",)


@dataclass(frozen=True, slots=True)
class Stream:
    """One entry of the directory.

    Attributes:
        number: stream type.
        size: bytes of the stream.
        offset: its offset in the file.
        present: how many of its bytes lie inside the file.
    """

    number: int
    size: int
    offset: int
    present: int

    @property
    def name(self) -> str:
        """The content of the stream in words; the number of an unknown stream as hex."""
        if self.number in (StreamType.COMMENT_A, StreamType.COMMENT_W):
            return "comment"
        try:
            return StreamType(self.number).name.replace("_", " ").lower()
        except ValueError:
            return f"{self.number:#x}"


@dataclass(frozen=True, slots=True)
class Directory:
    """The header and the directory.

    Attributes:
        header: the header.
        streams: the entries in file order, without UNUSED ones.
        notes: a sentence for each damaged entry.
    """

    header: DumpHeader
    streams: tuple[Stream, ...]
    notes: tuple[str, ...]

    def first(self, number: int) -> Stream | None:
        """The first stream of type `number` that is not empty; None for none."""
        return next((s for s in self.streams if s.number == number and s.present), None)


def read_directory(data: mmap) -> Directory:
    """Reads header and directory.

    Raises:
        NotAMinidump: the magic is not MDMP.
        TruncatedDump: the header or the first directory entry lies outside the file, or no entry names a stream.
        HostileDump: the file holds more than `limits.MAX_STREAMS` entries.
    """
    if data[:4] != MAGIC:
        raise NotAMinidump("the file does not start with MDMP")
    if len(data) < _HEADER.size:
        raise TruncatedDump(f"the file ends inside the minidump header ({len(data)} of {_HEADER.size} bytes)")
    _, version, count, offset, _, timestamp, flags = _HEADER.unpack_from(data, 0)
    fits = max(0, (len(data) - offset) // _ENTRY.size)
    notes = []
    if count and not fits:
        raise TruncatedDump(f"the stream directory at offset {offset:#x} lies behind the end of the file")
    if count > fits:
        notes.append(f"the directory says {count:,} streams, the file has room for {fits:,}")
        count = fits
    limits.require("streams in the directory", count, limits.MAX_STREAMS)
    streams = []
    for i in range(count):
        number, size, at = _ENTRY.unpack_from(data, offset + i * _ENTRY.size)
        present = max(0, min(size, len(data) - at))
        if number == StreamType.UNUSED:
            continue
        streams.append(Stream(number, size, at, present))
        if present < size:
            notes.append(f"stream {streams[-1].name} ends at the end of the file: {present:,} of {size:,} bytes")
    if not streams:
        raise TruncatedDump(
            f"the directory names no stream ({count:,} empty entries): the writer of the dump did not finish"
        )
    return Directory(DumpHeader(version, timestamp, flags), tuple(streams), tuple(notes))
