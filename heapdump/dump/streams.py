"""Frozen records of the streams that heapdump uses. A member that a dump does not have is None, never a default."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.spans import Span

PROCESSOR_NAMES = {0: "x86", 5: "arm", 6: "ia64", 9: "x64", 12: "arm64", 0x8001: "sparc", 0x8002: "ppc64",
                   0x8003: "arm64", 0x8004: "mips64"}  # fmt: skip
"""PROCESSOR_ARCHITECTURE_*; the ones from 0x8000 on are Breakpad's."""


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """MINIDUMP_SYSTEM_INFO. `product_type`: 1 workstation, 2 and 3 server. `version`: major, minor, build."""

    processor: int
    processors: int
    product_type: int
    version: tuple[int, int, int]
    platform_id: int
    service_pack: str


@dataclass(frozen=True, slots=True)
class PdbId:
    """A CodeView RSDS record: `guid` and `age` as symbol stores name them, `path` as the linker wrote it."""

    path: str
    guid: str
    age: int


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """MINIDUMP_MODULE. `version` is None where the file has no version resource (signature absent)."""

    span: Span
    path: str
    version: tuple[int, int, int, int] | None
    checksum: int
    timestamp: int
    pdb: PdbId | None


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """MINIDUMP_THREAD. `stack`: the part of the stack that is in the dump; `context`: the raw CONTEXT."""

    id: int
    suspend_count: int
    teb: int
    stack: Span
    context: bytes


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """MINIDUMP_EXCEPTION_STREAM: `address` of the instruction, `parameters` as many as the record says (≤ 15)."""

    thread_id: int
    code: int
    flags: int
    address: int
    parameters: tuple[int, ...]
    context: bytes


@dataclass(frozen=True, slots=True)
class UnloadedModule:
    """MINIDUMP_UNLOADED_MODULE. `timestamp`: that of its PE header, seconds since 1970."""

    span: Span
    name: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class MiscInfo:
    """MINIDUMP_MISC_INFO: `create_time` in seconds since 1970, the other times in seconds."""

    process_id: int | None
    create_time: int | None
    user_seconds: int | None
    kernel_seconds: int | None


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """MINIDUMP_THREAD_INFO. `start_address`: of the thread's function."""

    id: int
    start_address: int


@dataclass(frozen=True, slots=True)
class ProcessCounters:
    """MINIDUMP_PROCESS_VM_COUNTERS, in bytes but for `page_faults`; None for a counter that the system did not fill in.

    `private`: the commit charge of the process, the figure that tools call private bytes. `pagefile`: the same as older
    systems count it.
    """

    page_faults: int
    peak_working_set: int
    working_set: int
    pagefile: int
    peak_pagefile: int
    peak_virtual: int | None
    virtual: int | None
    private: int | None
    private_working_set: int | None


@dataclass(frozen=True, slots=True)
class SystemMemory:
    """MINIDUMP_SYSTEM_MEMORY_INFO, in bytes, of the whole system; None for what its writer did not count."""

    physical: int
    available: int | None
    committed: int | None
    commit_limit: int | None
    peak_committed: int | None


@dataclass(frozen=True, slots=True)
class HandleOperation:
    """AVRF_HANDLE_OPERATION. `operation`: 1 opened, 2 closed, 3 bad reference; `frames`: innermost first."""

    handle: int
    process: int
    thread: int
    operation: int
    frames: tuple[int, ...]
