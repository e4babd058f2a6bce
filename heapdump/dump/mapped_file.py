"""The opened and mapped file of a minidump: reads and views of its bytes, and checks that the file did not shrink.

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
    """A file with the size that it had when it was opened; bytes that are added later are not read.

    Attributes:
        data: the mapping of the whole file.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        """`path`: for messages; `file`: opened for reading and not empty; `close` closes it."""
        self._path = path
        self._file = file
        self._state = os.fstat(file.fileno())
        self.data = mmap.mmap(file.fileno(), self._state.st_size, access=mmap.ACCESS_READ)
        self._read = system.reader(file, self.data)
        self._guard = PageGuard(np.frombuffer(self.data, np.uint8).ctypes.data, len(self.data))
        self._guard.start()

    def read_at(self, offset: int, size: int) -> bytes:
        """A copy of bytes of the file, for scattered small reads.

        It does not use the mapping: there the system would map 64 KiB for each read, and reads at 8,000 large blocks
        would count as half a gigabyte of this process's memory (measured). Windows has no `pread`, but maps less.

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
        """The mapped bytes of the file themselves, for sweeps. Drop the view before `close`.

        Raises:
            TruncatedDump: the file is shorter than it was when it was opened.
        """
        self.require_whole()
        return memoryview(self.data)[offset : offset + size]

    def require_whole(self) -> None:
        """Makes sure that all bytes read so far were in the file. Call it before an answer is printed or stored.

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
        """A sentence where the file was written to since it was opened, so that answers may mix old and new content.

        Raises:
            TruncatedDump: as `require_whole` does.
        """
        self.require_whole()
        now = os.fstat(self._file.fileno())
        if (now.st_size, now.st_mtime_ns) == (self._state.st_size, self._state.st_mtime_ns):
            return ()
        return (f"{self._path.name} was written to while it was read: ask again when the file is complete",)

    def expect(self, offset: int, size: int) -> None:
        """Asks the system to read bytes ahead of a sweep; returns at once. Does nothing where there is no such call."""
        start = offset // mmap.PAGESIZE * mmap.PAGESIZE
        end = min(offset + size, len(self.data))
        if start < end:
            system.advise(self.data, "MADV_WILLNEED", start, end - start)

    def forget(self, offset: int, size: int) -> None:
        """Releases the whole pages of swept bytes; the system reads them again when they are used again.

        Pages of a mapping count as memory of this process: a sweep over 13 GB of heap would count as 13 GB. Windows has
        no such call and takes the pages back by itself.
        """
        start, end = -(-offset // mmap.PAGESIZE) * mmap.PAGESIZE, (offset + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if start < end:
            system.advise(self.data, "MADV_DONTNEED", start, end - start)

    def close(self) -> None:
        """Unmaps and closes the file, which deletes the copy of an unpacked dump."""
        self._guard.stop()
        with contextlib.suppress(BufferError):  # a view is still in use: the file is unmapped with the last view
            self.data.close()
        self._file.close()
