"""The exceptions of heapdump. A message says what is wrong, where, and what to try.

Bad data inside a readable dump is never an exception: it becomes a note or a finding.
"""

from __future__ import annotations


class HeapdumpError(Exception):
    """Ends the command; `cli.main` prints it in one line and exits with `exit_code`."""

    exit_code = 3


class WrongUsage(HeapdumpError):
    """The command line cannot be carried out as given (no dump named, an address that is none)."""

    exit_code = 2


class DumpError(HeapdumpError):
    """The file is not a minidump that can be read."""


class NotAMinidump(DumpError):
    """Wrong magic; the message names what the file is instead."""


class UnsupportedDump(DumpError):
    """A minidump, but not of a Windows x86 or x64 process."""


class TruncatedDump(DumpError):
    """The header, the directory or a stream without which nothing can be said runs past the end of the file."""


class HostileDump(DumpError):
    """A limit of `dump/limits.py` was exceeded: the message says which, the value and the maximum."""


class Unreadable(Exception):
    """The address space holds no such bytes. Internal: walkers and analyses turn it into a note."""

    def __init__(self, address: int, size: int) -> None:
        """`address` of the first byte asked for, `size` in bytes."""
        super().__init__(f"no memory at {address:#x} ({size} bytes)")
        self.address = address
        self.size = size
