"""Opens a dump file: identifies it, unpacks a packed one, maps it, reads header and streams."""

from __future__ import annotations

import contextlib
import mmap
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from heapdump import system
from heapdump.available_memory import is_shortage
from heapdump.dump import counters, limits, lists, small, sniff
from heapdump.dump.directory import MAGIC, Directory, StreamType, read_directory
from heapdump.dump.handles import handle_count
from heapdump.dump.mapped_file import MappedFile
from heapdump.dump.stamp import stamp_of
from heapdump.dump.streams import (
    PROCESSOR_NAMES,
    ExceptionRecord,
    HandleOperation,
    MiscInfo,
    ModuleRecord,
    ProcessCounters,
    SystemInfo,
    SystemMemory,
    ThreadInfo,
    ThreadRecord,
    UnloadedModule,
)
from heapdump.dump.unpack import Progress, unpack
from heapdump.errors import DumpError, NotAMinidump, TruncatedDump, UnsupportedDump

_WINDOWS_CONTEXT_BYTES = {0x2CC: 0, 0x4D0: 9}
"""Bytes of a CONTEXT → PROCESSOR_ARCHITECTURE_* of the processor."""


_HEAD_BYTES = 4096


def _quiet(done: int, total: int) -> None:
    """Shows no progress."""


class Minidump:
    """A mapped minidump; each stream is read once, at its first use.

    Close it (or use it as a context manager) to free the space of an unpacked dump.

    Attributes:
        path: the file as the user named it.
        read_at: see `MappedFile.read_at`.
        data: the mapped (unpacked) minidump.
        directory: header and streams.
        stamp: a name for the content of the file (`stamp.stamp_of`).
        notes: sentences about missing and damaged streams and records, except those of modules and threads.
        module_notes: the same for the list of modules.
        thread_notes: the same for the list of threads.
        remarks: sentences about unusual things through which nothing is missing.
    """

    def __init__(self, path: Path, file: MappedFile, directory: Directory, stamp: str) -> None:
        """Use `open_minidump`. `path`: the file that the user named, for messages."""
        self.path = path
        self.data = file.data
        self._file = file
        self.read_at = file.read_at  # bound once: called a million times a second
        self.directory = directory
        self.notes: list[str] = list(directory.notes)
        self.remarks: list[str] = []
        self.module_notes: list[str] = []
        self.thread_notes: list[str] = []
        self.stamp = stamp
        self._strings = lists.Strings(self.data, self.notes)

    @property
    def file_bytes(self) -> int:
        """Size of the (unpacked) minidump in bytes."""
        return len(self.data)

    def view_at(self, offset: int, size: int) -> memoryview:
        """The mapped bytes of the file themselves, for sweeps. Drop the view before `close`.

        Raises:
            TruncatedDump: the file is shorter than when it was opened.
        """
        return self._file.view_at(offset, size)

    def stamp_whole(self) -> None:
        """Makes `stamp` depend on every byte of the file instead of samples; reads the whole file.

        Raises:
            DumpError: the file cannot be read any more.
        """
        try:
            with system.long_path(self.path).open("rb") as file:
                self.stamp = stamp_of(file, all_bytes=True)
        except OSError as error:
            raise DumpError(f"{self.path}: {error.strerror or error}") from error

    def require_whole(self) -> None:
        """Makes sure that all bytes read so far were in the file. Call it before an answer is printed or stored.

        Raises:
            TruncatedDump: the file is shorter than when it was opened, or a part of it could not be read.
        """
        self._file.require_whole()

    def changes(self) -> tuple[str, ...]:
        """A sentence where the file was written to since it was opened, so that answers may mix old and new content."""
        return self._file.changes()

    def expect(self, offset: int, size: int) -> None:
        """Asks the system to read bytes ahead of a sweep; returns at once."""
        self._file.expect(offset, size)

    def forget(self, offset: int, size: int) -> None:
        """Releases the whole pages of swept bytes; the system reads them again when they are used again."""
        self._file.forget(offset, size)

    def close(self) -> None:
        """Unmaps and closes the file, which deletes the copy of an unpacked dump."""
        self._file.close()

    def __enter__(self) -> Minidump:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    @cached_property
    def system_info(self) -> SystemInfo:
        """Operating system and processor. Without the stream, the processor follows from the size of a CONTEXT."""
        stream = self.directory.first(StreamType.SYSTEM_INFO)
        info = lists.read_system_info(self.data, stream, self._strings) if stream else None
        if info is not None:
            return info
        sizes = (_WINDOWS_CONTEXT_BYTES.get(len(t.context)) for t in self.threads)
        processor = next((p for p in sizes if p is not None), None)
        if processor is None:
            raise TruncatedDump(f"{self.path}: the dump has no system information, so the processor is not known")
        self.notes.append("no system information: the processor is known from the threads' register records")
        return SystemInfo(processor, 0, 0, (0, 0, 0), 2, "")

    @cached_property
    def modules(self) -> tuple[ModuleRecord, ...]:
        """The module list in file order; empty where the stream is missing."""
        stream = self.directory.first(StreamType.MODULE_LIST)
        return lists.read_modules(self.data, stream, self._strings, self.module_notes) if stream else ()

    @cached_property
    def threads(self) -> tuple[ThreadRecord, ...]:
        """The thread list in file order; empty where the stream is missing."""
        stream = self.directory.first(StreamType.THREAD_LIST)
        return lists.read_threads(self.data, stream, self.thread_notes) if stream else ()

    @cached_property
    def exception(self) -> ExceptionRecord | None:
        """The exception; None for a dump of a running process."""
        stream = self.directory.first(StreamType.EXCEPTION)
        return lists.read_exception(self.data, stream) if stream else None

    @cached_property
    def handle_count(self) -> int | None:
        """The number of open handles; None without the stream."""
        return handle_count(self.data, self.directory)

    @cached_property
    def memory_ranges(self) -> NDArray[np.void]:
        """Both memory lists as (n,) `lists.RANGE` in file order; they may overlap."""
        found = [np.empty(0, lists.RANGE)]
        if stream := self.directory.first(StreamType.MEMORY64_LIST):
            found.append(lists.read_memory64(self.data, stream, self.notes))
        if stream := self.directory.first(StreamType.MEMORY_LIST):
            found.append(lists.read_memory32(self.data, stream, self.notes))
        ranges = np.concatenate(found)
        limits.require("memory ranges of both lists", len(ranges), limits.MAX_MEMORY_RANGES)
        return ranges

    @cached_property
    def regions(self) -> NDArray[np.void] | None:
        """The memory map as (n,) `lists.REGION` in file order; None where the stream is missing or unusable."""
        stream = self.directory.first(StreamType.MEMORY_INFO_LIST)
        found = lists.read_regions(self.data, stream, self.notes) if stream else None
        return found if found is not None and len(found) else None

    @cached_property
    def misc_info(self) -> MiscInfo | None:
        """Process id and times; None without the stream."""
        return small.read_misc_info(self.data, self.directory, self.notes)

    @cached_property
    def unloaded_modules(self) -> tuple[UnloadedModule, ...]:
        """Modules that were unloaded before the dump was written; empty where the stream is missing."""
        return small.read_unloaded_modules(self.data, self.directory, self.notes)

    @cached_property
    def thread_infos(self) -> tuple[ThreadInfo, ...]:
        """Start addresses of threads; empty where the stream is missing."""
        return small.read_thread_infos(self.data, self.directory, self.notes)

    @cached_property
    def thread_names(self) -> dict[int, str]:
        """Thread id → name; empty where the stream is missing."""
        return small.read_thread_names(self.data, self.directory, self._strings, self.notes)

    @cached_property
    def process_counters(self) -> ProcessCounters | None:
        """Memory counters of the process; None without the stream."""
        return counters.read_process_counters(self.data, self.directory, self.remarks)

    @cached_property
    def system_memory(self) -> SystemMemory | None:
        """Memory counters of the system; None without the stream."""
        return counters.read_system_memory(self.data, self.directory, self.remarks)

    @cached_property
    def handle_operations(self) -> tuple[HandleOperation, ...]:
        """Recorded openings and closings of handles; empty where the stream is missing."""
        return counters.read_handle_operations(self.data, self.directory, self.notes)

    @cached_property
    def comments(self) -> tuple[str, ...]:
        """The texts of the comment streams."""
        return small.read_comments(self.data, self.directory, self.notes)


def open_minidump(path: Path, progress: Progress = _quiet, say: Callable[[str], None] = lambda _: None) -> Minidump:
    """Opens a dump, packed or not.

    Args:
        path: the file.
        progress: called while a packed dump is unpacked.
        say: gets one sentence where the dump is packed.

    Raises:
        DumpError: the file does not exist, is not a minidump (the message says what it is), is not of Windows x86 or
            x64, is too short to be read, or exceeds a limit.
    """
    file = system.long_path(path)
    try:
        head = _first_bytes(file)
        kind = sniff.compression(head)
        if kind is None:
            if not head.startswith(MAGIC):
                raise NotAMinidump(f"{path} is {sniff.describe_other(head)}")
            return _opened(path, file.open("rb"), "")
        say(f"unpacking {path} ({kind}) to a temporary file")
        with file.open("rb") as packed:
            stamp = stamp_of(packed)
        return _opened(path, unpack(file, kind, progress), stamp)
    except OSError as error:
        if is_shortage(error):
            raise MemoryError(f"{path} cannot be mapped") from error
        raise DumpError(f"{path}: {error.strerror or error}") from error


def _first_bytes(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DumpError(f"{path} is not a file")
    with path.open("rb") as file:
        return file.read(_HEAD_BYTES)


def _opened(path: Path, file: BinaryIO, stamp: str) -> Minidump:
    """The minidump in `file`, or in its unpacked copy; `stamp` "" to make one. Closes the file where it is refused.

    The file is not read through its buffer once it is mapped: on Windows, Python sets its position to 0 then.
    """
    with contextlib.ExitStack() as on_error:
        on_error.callback(file.close)
        stamp = stamp or stamp_of(file)
        mapped = MappedFile(path, file)
        on_error.callback(mapped.close)
        dump = Minidump(path, mapped, _directory(path, mapped.data), stamp)
        _refuse_other_systems(dump)
        on_error.pop_all()
    return dump


def _directory(path: Path, data: mmap.mmap) -> Directory:
    try:
        return read_directory(data)
    except DumpError as error:
        raise type(error)(f"{path}: {error}") from error


def _refuse_other_systems(dump: Minidump) -> None:
    try:
        info = dump.system_info
    except TruncatedDump:
        raise
    except DumpError as error:
        raise type(error)(f"{dump.path}: {error}") from error
    system = sniff.platform_name(info.platform_id)
    if system is not None:
        raise UnsupportedDump(f"{dump.path} is a minidump of a {system} process; heapdump reads Windows processes")
    processor = PROCESSOR_NAMES.get(info.processor, f"processor {info.processor:#x}")
    if processor not in ("x86", "x64"):
        raise UnsupportedDump(f"{dump.path} is a minidump of a Windows {processor} process; heapdump reads x86 and x64")
