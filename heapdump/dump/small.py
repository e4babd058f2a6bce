"""The small streams, through the `minidump` package: one stream at a time, on a bounded view, each call guarded.

The package trusts counts and lengths: a fuzzed file of 789 KB made it use 23 GB. So a count that is too large for its
stream is corrected in the view, and the view refuses reads beyond the limits. A failure is a note, never an error:
memory can be read without these streams.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from mmap import mmap
from types import SimpleNamespace
from typing import Any

from heapdump.dump import limits
from heapdump.dump.directory import Directory, Stream, StreamType
from heapdump.dump.lists import Strings, counted
from heapdump.dump.streams import MiscInfo, ThreadInfo, UnloadedModule
from heapdump.spans import Span
from heapdump.wording import plural

_TOP = 1 << 64


class _StreamView:
    """A seekable view of the file with the body of one stream replaced; each read, and their sum, has a limit."""

    def __init__(self, data: mmap, stream: Stream, body: bytes) -> None:
        self._data, self._stream, self._body = data, stream, body
        self._at, self._left = 0, limits.MAX_STREAM_BYTES

    def seek(self, offset: int, whence: int = 0) -> int:
        """As of files; `whence` 0 or 1."""
        self._at = offset if whence == 0 else self._at + offset
        return self._at

    def tell(self) -> int:
        """As of files."""
        return self._at

    def read(self, size: int) -> bytes:
        """At most `size` bytes; ValueError beyond the limits."""
        if size > self._left:
            raise ValueError(f"{size:,} bytes at {self._at:#x} are more than a small stream may have")
        if self._at == self._stream.offset and size == len(self._body):
            found = self._body
        else:
            found = bytes(self._data[self._at : self._at + size])
        self._left -= len(found)
        self._at += len(found)
        return found


def _parse(data: mmap, stream: Stream, parser: Callable[[Any, Any], Any], body: bytes, notes: list[str]) -> Any:
    where = SimpleNamespace(Location=SimpleNamespace(Rva=stream.offset, DataSize=len(body)))
    try:
        return parser(where, _StreamView(data, stream, body))
    except Exception as error:  # noqa: BLE001  # a hostile stream can make the package raise anything
        notes.append(f"stream {stream.name} is damaged and could not be read ({type(error).__name__}: {error})")
        return None


def _body(data: mmap, stream: Stream) -> bytes:
    return bytes(data[stream.offset : stream.offset + min(stream.present, limits.MAX_STREAM_BYTES)])


def _counted_body(data: mmap, stream: Stream, entry_bytes: int, maximum: int, notes: list[str]) -> bytes:
    """The body of a stream {u32 header size, u32 entry size, u32 count}, its count cut to the entries that it holds.

    The package supports one header size and one entry size: b"" with a note where the stream has others.
    """
    body = bytearray(_body(data, stream))
    if len(body) < 12:
        return b""
    head, each, count = struct.unpack_from("<III", body)
    if (head, each) != (12, entry_bytes):
        notes.append(f"stream {stream.name} has entries of {each} bytes behind a header of {head}: not read")
        return b""
    fits = (len(body) - head) // each
    readable = min(count, fits, maximum)
    if count > readable:
        notes.append(f"stream {stream.name} says {plural(count, 'entry')}, {readable:,} of them were read")
    struct.pack_into("<I", body, 8, readable)
    return bytes(body)


def read_misc_info(data: mmap, directory: Directory, notes: list[str]) -> MiscInfo | None:
    """Process id and times; None without the stream."""
    from minidump.streams.MiscInfoStream import MinidumpMiscInfo

    stream = directory.first(StreamType.MISC_INFO)
    if stream is None or stream.present < 24:
        return None
    parsed = _parse(data, stream, MinidumpMiscInfo.parse, _body(data, stream), notes)
    if parsed is None:
        return None
    return MiscInfo(parsed.ProcessId, parsed.ProcessCreateTime, parsed.ProcessUserTime, parsed.ProcessKernelTime)


def read_unloaded_modules(data: mmap, directory: Directory, notes: list[str]) -> tuple[UnloadedModule, ...]:
    """Modules unloaded before the dump, in file order."""
    from minidump.streams.UnloadedModuleListStream import MinidumpUnloadedModuleList

    stream = directory.first(StreamType.UNLOADED_MODULES)
    if stream is None:
        return ()
    body = _counted_body(data, stream, 24, limits.MAX_UNLOADED_MODULES, notes)
    parsed = _parse(data, stream, MinidumpUnloadedModuleList.parse, body, notes) if body else None
    return tuple(
        UnloadedModule(Span(m.baseaddress, min(m.baseaddress + m.size, _TOP)), m.name, m.timestamp)
        for m in (parsed.modules if parsed else ())
    )


def read_thread_infos(data: mmap, directory: Directory, notes: list[str]) -> tuple[ThreadInfo, ...]:
    """Start addresses of threads, in file order."""
    from minidump.streams.ThreadInfoListStream import MinidumpThreadInfoList

    stream = directory.first(StreamType.THREAD_INFO_LIST)
    if stream is None:
        return ()
    body = _counted_body(data, stream, 64, limits.MAX_THREADS, notes)
    parsed = _parse(data, stream, MinidumpThreadInfoList.parse, body, notes) if body else None
    return tuple(ThreadInfo(i.ThreadId, i.StartAddress) for i in (parsed.infos if parsed else ()))


def read_comments(data: mmap, directory: Directory, notes: list[str]) -> tuple[str, ...]:
    """The texts of the comment streams (procdump writes its command line there)."""
    from minidump.streams.CommentStreamA import CommentStreamA
    from minidump.streams.CommentStreamW import CommentStreamW

    parsers = {StreamType.COMMENT_A: CommentStreamA.parse, StreamType.COMMENT_W: CommentStreamW.parse}
    out: list[str] = []
    streams = [stream for stream in directory.streams if stream.number in parsers and stream.present]
    for stream in streams[: limits.MAX_COMMENTS]:
        parser = parsers[StreamType(stream.number)]
        if stream.present > limits.MAX_COMMENT_BYTES:
            notes.append(f"a comment of {plural(stream.present, 'byte')} is too long and was left out")
            continue
        parsed = _parse(data, stream, parser, _body(data, stream), notes)
        if parsed is not None:
            out.append(str(parsed.data).rstrip("\0\r\n "))
    if len(streams) > limits.MAX_COMMENTS:
        notes.append(f"{plural(len(streams), 'comment')} in the dump, the first {limits.MAX_COMMENTS} were read")
    return tuple(out)


def read_thread_names(data: mmap, directory: Directory, strings: Strings, notes: list[str]) -> dict[int, str]:
    """Thread names by id (stream 24; the package has no reader): {u32 id, u64 file offset} each, 12 bytes."""
    stream = directory.first(StreamType.THREAD_NAMES)
    if stream is None:
        return {}
    first, count = counted(data, stream, 12, limits.MAX_MEMORY_RANGES, "thread name", notes)
    if count > limits.MAX_THREADS:
        notes.append(f"{plural(count, 'thread name')} in the dump, the first {limits.MAX_THREADS:,} were read")
        count = limits.MAX_THREADS
    rows = (struct.unpack_from("<IQ", data, first + i * 12) for i in range(count))
    return {tid: name for tid, at in rows if (name := strings.at(at))}
