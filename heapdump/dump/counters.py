"""Reads three streams: counters of the process's memory (22), of the system's memory (21), handle operations (18).

Layouts of minidumpapiset.h, which packs structures to 4 bytes. dbghelp writes 21 and 22 from Windows 10 on, also into
small dumps; 18 with Application Verifier's handle checks. A stream that its writer left empty is all zeros.
"""

from __future__ import annotations

import struct
from mmap import mmap

from heapdump.dump import limits
from heapdump.dump.directory import Directory, Stream, StreamType
from heapdump.dump.streams import HandleOperation, ProcessCounters, SystemMemory
from heapdump.wording import plural

_COUNTERS_1, _COUNTERS_2 = struct.Struct("<HxxI9Q"), struct.Struct("<HHI12Q")
_HAS_VIRTUAL_SIZE, _HAS_PRIVATE, _HAS_PRIVATE_WORKING_SET = 0x2, 0x4, 0x8
"""Flags of revision 2: the counters that the system filled in."""

_BASIC = struct.Struct("<HHIII")
_PERFORMANCE_AT, _PERFORMANCE = 116, struct.Struct("<4Q")
_HAS_PERFORMANCE = 0x2
_OPERATION, _MOST_FRAMES = struct.Struct("<QIIIIII"), 32


def read_process_counters(data: mmap, directory: Directory, remarks: list[str]) -> ProcessCounters | None:
    """Windows' memory counters of the process; None without the stream, or where it is empty."""
    stream = directory.first(StreamType.PROCESS_VM_COUNTERS)
    if stream is None or stream.present < _COUNTERS_1.size:
        return None
    revision, flags = struct.unpack_from("<HH", data, stream.offset)
    if revision == 1:
        faults, *values = _COUNTERS_1.unpack_from(data, stream.offset)[1:]
        flags, values = _HAS_PRIVATE, [*values[:8], 0, 0, values[8], 0]
    elif revision == 2 and stream.present >= _COUNTERS_2.size:
        faults, *values = _COUNTERS_2.unpack_from(data, stream.offset)[2:]
    else:
        remarks.append(_unusable(stream, revision))
        return None
    return ProcessCounters(
        page_faults=faults,
        peak_working_set=values[0],
        working_set=values[1],
        pagefile=values[6],
        peak_pagefile=values[7],
        peak_virtual=values[8] if flags & _HAS_VIRTUAL_SIZE else None,
        virtual=values[9] if flags & _HAS_VIRTUAL_SIZE else None,
        private=values[10] if flags & _HAS_PRIVATE else None,
        private_working_set=values[11] if flags & _HAS_PRIVATE_WORKING_SET else None,
    )


def read_system_memory(data: mmap, directory: Directory, remarks: list[str]) -> SystemMemory | None:
    """The memory of the whole system, in bytes; None without the stream, or where it is empty."""
    stream = directory.first(StreamType.SYSTEM_MEMORY_INFO)
    if stream is None or stream.present < _PERFORMANCE_AT:
        return None
    revision, flags, _, page, pages = _BASIC.unpack_from(data, stream.offset)
    if revision != 1 or not page:
        remarks.append(_unusable(stream, revision))
        return None
    counted: tuple[int | None, ...] = (None,) * 4
    if flags & _HAS_PERFORMANCE and stream.present >= _PERFORMANCE_AT + _PERFORMANCE.size:
        counted = tuple(n * page for n in _PERFORMANCE.unpack_from(data, stream.offset + _PERFORMANCE_AT))
    return SystemMemory(pages * page, *counted)


def read_handle_operations(data: mmap, directory: Directory, notes: list[str]) -> tuple[HandleOperation, ...]:
    """Openings and closings of handles that Application Verifier recorded, in file order."""
    stream = directory.first(StreamType.HANDLE_OPERATIONS)
    if stream is None or stream.present < 16:
        return ()
    head, each, count = struct.unpack_from("<III", data, stream.offset)
    if head < 16 or each < _OPERATION.size:
        notes.append(f"stream {stream.name} has entries of {each} bytes behind a header of {head}: not read")
        return ()
    readable = min(count, max(0, stream.present - head) // each, limits.MAX_HANDLE_OPERATIONS)
    if readable < count:
        notes.append(f"stream {stream.name} says {plural(count, 'entry')}, {readable:,} of them were read")
    return tuple(_operation(data, stream.offset + head + i * each, each) for i in range(readable))


def _operation(data: mmap, at: int, size: int) -> HandleOperation:
    """AVRF_HANDLE_OPERATION: handle, process, thread, operation, then depth and frames of the stack."""
    handle, process, thread, operation, _, depth, _ = _OPERATION.unpack_from(data, at)
    depth = min(depth, _MOST_FRAMES, (size - _OPERATION.size) // 8)
    frames = struct.unpack_from(f"<{depth}Q", data, at + _OPERATION.size)
    return HandleOperation(handle, process, thread, operation, frames)


def _unusable(stream: Stream, revision: int) -> str:
    if not revision:
        return f"stream {stream.name} is empty: its writer left it zero"
    return f"stream {stream.name} has revision {revision}, which is not known: not read"
