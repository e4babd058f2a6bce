"""What a built dump says, as plain data: the expectation a test compares a reader's answer with.

In: the arguments of the `DumpBuilder` calls. Out: frozen dataclasses. Layouts are restated by hand elsewhere
in this package on purpose; this module knows no layout and nothing of the tool under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Arch = Literal["x64", "x86", "arm64"]
Version = tuple[int, int, int, int]
Pdb = tuple[str, bytes, int]


@dataclass(frozen=True)
class ModuleTruth:
    """One loaded image, [base, base + size); `pdb` is (file name, 16 GUID bytes, age)."""

    base: int
    size: int
    path: str
    version: Version | None
    timestamp: int
    checksum: int
    pdb: Pdb | None


@dataclass(frozen=True)
class ThreadTruth:
    """One thread; `stack` is (address, bytes) of the stack memory its descriptor names."""

    tid: int
    teb: int
    stack: tuple[int, int]
    ip: int
    sp: int
    registers: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class RegionTruth:
    """One record of the memory map, [base, base + size), with the Windows names of state and type."""

    base: int
    size: int
    state: str
    type: str
    protect: int
    allocation_base: int
    allocation_protect: int


@dataclass(frozen=True)
class ExceptionTruth:
    """The exception record of the dump."""

    tid: int
    code: int
    address: int
    parameters: tuple[int, ...]
    flags: int
    ip: int
    sp: int
    registers: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class UnloadedTruth:
    """One unloaded image, [base, base + size)."""

    base: int
    size: int
    name: str
    timestamp: int


@dataclass(frozen=True)
class MiscTruth:
    """Process id and times of the misc stream; times in seconds, `create_time` since 1970."""

    pid: int
    create_time: int
    user_time: int
    kernel_time: int
    size: int


@dataclass(frozen=True)
class ThreadInfoTruth:
    """One record of the thread information stream; `create_time` in 100 ns since 1601."""

    tid: int
    start_address: int
    create_time: int


@dataclass(frozen=True)
class DumpTruth:
    """Everything a built dump contains, in the order written.

    `ranges` are the (address, size) pairs of the memory list, `streams` the stream numbers of the directory,
    `size` is the file's length in bytes (holes included).
    """

    arch: Arch
    os: tuple[int, int, int]
    flags: int
    timestamp: int
    modules: tuple[ModuleTruth, ...]
    threads: tuple[ThreadTruth, ...]
    regions: tuple[RegionTruth, ...]
    ranges: tuple[tuple[int, int], ...]
    exception: ExceptionTruth | None
    misc: MiscTruth | None
    unloaded: tuple[UnloadedTruth, ...]
    thread_names: tuple[tuple[int, str], ...]
    thread_infos: tuple[ThreadInfoTruth, ...]
    comments: tuple[str, ...]
    streams: tuple[int, ...]
    size: int

    @property
    def pid(self) -> int | None:
        """Process id of the misc stream; None without that stream."""
        return self.misc.pid if self.misc else None


@dataclass(frozen=True)
class BuiltDump:
    """A dump in memory and what it says."""

    data: bytes
    truth: DumpTruth
