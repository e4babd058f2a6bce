"""The exceptions of heapdump. A message says what is wrong, where, and what to try.

Bad data inside a readable dump is never an exception: it becomes a note or a finding.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class HeapdumpError(Exception):
    """Ends the command; `cli.main` prints it in one line and exits with `exit_code`. Only subclasses are raised."""

    exit_code: ClassVar[int]


class WrongUsage(HeapdumpError):
    """The command line cannot be carried out as given (no dump named, an address that is none)."""

    exit_code = 2


class CannotWrite(HeapdumpError):
    """The system refused to write the output; the message has the file and the system's reason."""

    exit_code = 2

    def __init__(self, target: Path | None, error: OSError) -> None:
        """`target` is None for the standard output."""
        super().__init__(f"cannot write {target or 'the output'}: {error.strerror or error}")


class DumpError(HeapdumpError):
    """The file is not a minidump that can be read."""

    exit_code = 3


class NotAMinidump(DumpError):
    """Wrong magic; the message names what the file is instead."""


class UnsupportedDump(DumpError):
    """A minidump, but not of a Windows x86 or x64 process."""


class TruncatedDump(DumpError):
    """The header, the directory or a stream without which nothing can be said runs past the end of the file."""


class HostileDump(DumpError):
    """A limit of `dump/limits.py` was exceeded: the message says which, the value and the maximum."""


class Ended(KeyboardInterrupt):
    """The system asked the process to end, with Ctrl-C or another signal: nobody catches it but `cli.run`."""

    def __init__(self, signal: int) -> None:
        """`signal`: its number."""
        super().__init__(signal)
        self.exit_code = 128 + signal


class Unreadable(Exception):
    """The address space holds no such bytes. Internal: walkers and analyses turn it into a note."""

    def __init__(self, address: int, size: int) -> None:
        """`address` of the first byte asked for, `size` in bytes."""
        super().__init__(f"no memory at {address:#x} ({size} bytes)")
        self.address = address
        self.size = size
