"""The opened file of a minidump, mapped: reads and views of its bytes, and whether they were there all the time.

A file on a network share, or one that is still being copied, may become shorter while it is read.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path
from typing import BinaryIO

import numpy as np

from heapdump import system
from heapdump.errors import DumpError, TruncatedDump
from heapdump.page_guard import PageGuard


class MappedFile:
    """A file as it was when it was opened: bytes that are added later are not seen.

    Attributes:
        data: the mapping of the whole file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """`path`: for messages; `file`: opened for reading, not empty, closed by `close`."""
        self._path = path
        self._file = file
        self._state = os.fstat(file.fileno())
        self.data = mmap.mmap(file.fileno(), self._state.st_size, access=mmap.ACCESS_READ)
        self._read = system.reader(file, self.data)
        self._guard = PageGuard(np.frombuffer(self.data, np.uint8).ctypes.data, len(self.data))
        self._guard.start()

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the file, for scattered small reads.

        Through the mapping each of them would make the kernel map the 64 KiB around it, and 8,000 large blocks would
        count as half a gigabyte of this process's memory (measured); Windows has no `pread` and maps less.

        Raises:
            DumpError: the file cannot be read any more, or is shorter than when it was opened.
        """
        try:
            found = self._read(size, offset)
        except OSError as error:
            raise DumpError(f"{self._path} cannot be read any more: {error.strerror or error}") from error
        if len(found) < size:
            self.require_whole()
        return found

    def view_at(self, offset: int, size: int) -> memoryview:
        """Bytes of the file where they lie, for sweeps; drop the view before `close`.

        Raises:
            TruncatedDump: the file is shorter than it was when it was opened.
        """
        self.require_whole()
        return memoryview(self.data)[offset : offset + size]

    def require_whole(self) -> None:
        """Makes sure that everything that was read was in the file: ask before an answer is printed or kept.

        Raises:
            TruncatedDump: the file is shorter than it was when it was opened, or a part of it could not be read.
        """
        now = os.fstat(self._file.fileno()).st_size
        if now < len(self.data):
            raise TruncatedDump(
                f"{self._path} was cut short while it was read: {len(self.data):,} bytes when it was opened, "
                f"now {now:,}; ask again when the file is complete, or of a copy on a disk of this machine"
            )
        if self._guard.faulted:
            raise TruncatedDump(
                f"{self._path}: a part of the file could not be read: it was cut short for a time, or the disk or the "
                "network failed; ask again of a copy on a disk of this machine"
            )

    def changes(self) -> tuple[str, ...]:
        """A line where the file was written to since it was opened: answers may mix its old and its new content.

        Raises:
            TruncatedDump: as `require_whole` does.
        """
        self.require_whole()
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) == (self._state.st_size, self._state.st_mtime_ns):
            return ()
        return (f"{self._path.name} was written to while it was read: ask again when the file is complete",)

    def expect(self, offset: int, size: int) -> None:
        """Lets the system read bytes ahead of a sweep; returns at once. Does nothing where there is no such call."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(offset + size, len(self.data))
        if start < end:
            system.advise(self.data, "MADV_WILLNEED", start, end - start)

    def forget(self, offset: int, size: int) -> None:
        """Gives the whole pages of swept bytes back to the system, which reads them again at their next use.

        Pages of a mapping count as memory of this process: a sweep over 13 GB of heap would count as 13 GB. Windows has
        no such call and takes the pages back by itself.
        """
        start, end = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE, (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            system.advise(self.data, "MADV_DONTNEED", start, end - start)

    def close(self) -> None:
        """Unmaps the file; the copy of an unpacked dump goes with it."""
        self._guard.stop()
        with contextlib.suppress(BufferError):  # a view is still in use: the file is unmapped with the last view
            self.data.close()
        self._file.close()
