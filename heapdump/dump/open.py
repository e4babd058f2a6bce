"""Opens a dump file: identifies it, unpacks it where it is packed, maps it, reads header and streams."""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from heapdump.dump import counters, limits, lists, small, sniff
from heapdump.dump.directory import MAGIC, Directory, StreamType, read_directory
from heapdump.dump.handles import handle_count
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


def _quiet(done: int, total: int) -> None:
    """Shows no progress."""


class Minidump:
    """A mapped minidump; each stream is read once, at its first use.

    Close it (or use it as a context manager) to delete the temporary file of an unpacked dump.

    Attributes:
        path: the file as the user named it.
        data: the mapped (unpacked) minidump.
        directory: header and streams.
        stamp: names the content of the file, see `stamp.stamp_of`.
        notes: one line for each thing that is missing or damaged, but those of modules and threads.
        module_notes: the same for the list of modules.
        thread_notes: the same for the list of threads.
        remarks: one line for each thing that is unusual and loses nothing.
    """

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        data: mmap.mmap,
        directory: Directory,
        stamp: str,
        temporary: Path | None = None,
    ) -> None:
        """Use `open_minidump`. `file`: the minidump, opened; `temporary`: the path of the unpacked copy."""
        self.path = path
        self.data = data
        self._file = file
        self.directory = directory
        self.notes: list[str] = list(directory.notes)
        self.remarks: list[str] = []
        self.module_notes: list[str] = []
        self.thread_notes: list[str] = []
        self._temporary = temporary
        self.stamp = stamp
        self._strings = lists.Strings(data, self.notes)

    @property
    def file_bytes(self) -> int:
        """Size of the (unpacked) minidump in bytes."""
        return len(self.data)

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the file, for scattered small reads.

        Through the mapping each of them would make the kernel map the 64 KiB around it, and 8,000 large blocks would
        count as half a gigabyte of this process's memory (measured); Windows has no `pread` and maps less.
        """
        if hasattr(os, "pread"):
            return os.pread(self._file.fileno(), size, offset)
        return self.data[offset : offset + size]

    def view_at(self, offset: int, size: int) -> memoryview:
        """Bytes of the file where they lie, for sweeps; drop the view before `close`."""
        return memoryview(self.data)[offset : offset + size]

    def expect(self, offset: int, size: int) -> None:
        """Lets the system read bytes ahead of a sweep; returns at once. Does nothing where there is no such call."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(offset + size, len(self.data))
        if hasattr(mmap, "MADV_WILLNEED") and start < end:
            self.data.madvise(mmap.MADV_WILLNEED, start, end - start)

    def forget(self, offset: int, size: int) -> None:
        """Gives the whole pages of swept bytes back to the system, which reads them again at their next use.

        Pages of a mapping count as memory of this process: a sweep over 13 GB of heap would count as 13 GB. Windows has
        no such call and takes the pages back by itself.
        """
        start, end = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE, (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if hasattr(mmap, "MADV_DONTNEED") and start < end:
            self.data.madvise(mmap.MADV_DONTNEED, start, end - start)

    def close(self) -> None:
        """Unmaps the file and deletes the temporary copy."""
        with contextlib.suppress(BufferError):  # a view is still in use: the file is unmapped with the last view
            self.data.close()
        self._file.close()
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> Minidump:
        """Itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()

    @cached_property
    def system_info(self) -> SystemInfo:
        """Operating system and processor. Without the stream, the size of a thread's CONTEXT gives the processor."""
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
        """The exception, or None: the dump was taken of a running process."""
        stream = self.directory.first(StreamType.EXCEPTION)
        return lists.read_exception(self.data, stream) if stream else None

    @cached_property
    def handle_count(self) -> int | None:
        """The number of open handles; None where the dump does not tell."""
        return handle_count(self.data, self.directory)

    @cached_property
    def memory_ranges(self) -> NDArray[np.void]:
        """Both memory lists as (n,) `lists.RANGE`, as the file has them: unsorted, perhaps overlapping."""
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
        """Process id and times, or None."""
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
        """Memory counters of the process, or None."""
        return counters.read_process_counters(self.data, self.directory, self.remarks)

    @cached_property
    def system_memory(self) -> SystemMemory | None:
        """Memory of the system, or None."""
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
    """Opens a dump, packed or not; `say` gets one line where it is packed.

    Raises:
        DumpError: the file does not exist, is not a minidump (the message names what it is), is not of Windows x86 or
            x64, is cut so short that nothing can be read, or is hostile.
    """
    temporary, stamp = None, ""
    try:
        kind = sniff.compression(_head(path))
        if kind is not None:
            say(f"unpacking {path} ({kind}) to a temporary file")
            with path.open("rb") as packed:
                stamp = stamp_of(packed)
            temporary = unpack(path, kind, progress)
        return _open_plain(path, temporary or path, temporary, stamp)
    except OSError as error:
        raise DumpError(f"{path}: {error.strerror or error}") from error
    except BaseException:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise


def _head(path: Path) -> bytes:
    if not stat.S_ISREG(path.stat().st_mode):
        raise DumpError(f"{path} is not a file")
    with path.open("rb") as file:
        return file.read(4096)


def _open_plain(path: Path, real: Path, temporary: Path | None, stamp: str) -> Minidump:
    head = _head(real)
    if not head.startswith(MAGIC):
        raise NotAMinidump(f"{path} is {sniff.describe_other(head)}")
    with contextlib.ExitStack() as on_error:
        file = on_error.enter_context(real.open("rb"))
        data = mmap.mmap(file.fileno(), os.fstat(file.fileno()).st_size, access=mmap.ACCESS_READ)
        on_error.callback(data.close)
        dump = Minidump(path, file, data, _directory(path, data), stamp or stamp_of(file), temporary)
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
