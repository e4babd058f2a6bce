"""Frozen records of the streams that heapdump uses. A member that the dump lacks is None, never a default value."""

from __future__ import annotations

from dataclasses import dataclass

from heapdump.spans import Span

PROCESSOR_NAMES = {0: "x86", 5: "arm", 6: "ia64", 9: "x64", 12: "arm64", 0x8001: "sparc", 0x8002: "ppc64",
                   0x8003: "arm64", 0x8004: "mips64"}  # fmt: skip
"""PROCESSOR_ARCHITECTURE_* → name; numbers from 0x8000 on are Breakpad's."""


@dataclass(frozen=True, slots=True)
class SystemInfo:
    """The members of MINIDUMP_SYSTEM_INFO.

    Attributes:
        processor: PROCESSOR_ARCHITECTURE_*.
        processors: number of processors.
        product_type: 1 workstation, 2 domain controller, 3 server.
        version: major, minor, build.
        platform_id: VER_PLATFORM_*, or Breakpad's MD_OS_*.
        service_pack: CSDVersion; "" for none.
    """

    processor: int
    processors: int
    product_type: int
    version: tuple[int, int, int]
    platform_id: int
    service_pack: str


@dataclass(frozen=True, slots=True)
class PdbId:
    """A CodeView RSDS record, which identifies a PDB.

    Attributes:
        path: of the PDB, as the linker wrote it.
        guid: 32 hex digits, as symbol stores write them.
        age: how often the PDB was written.
    """

    path: str
    guid: str
    age: int


@dataclass(frozen=True, slots=True)
class ModuleRecord:
    """The members of MINIDUMP_MODULE.

    Attributes:
        span: the image in memory.
        path: of its file.
        version: file version, four numbers; None where the file has no version resource.
        checksum: of the PE header.
        timestamp: of the PE header; in most files seconds since 1970.
        pdb: its PDB; None where the record has none.
    """

    span: Span
    path: str
    version: tuple[int, int, int, int] | None
    checksum: int
    timestamp: int
    pdb: PdbId | None


@dataclass(frozen=True, slots=True)
class ThreadRecord:
    """The members of MINIDUMP_THREAD.

    Attributes:
        id: of the thread.
        suspend_count: how often it is suspended.
        teb: address of its TEB.
        stack: the part of its stack that the record names.
        context: bytes of the fixed part of its CONTEXT.
    """

    id: int
    suspend_count: int
    teb: int
    stack: Span
    context: bytes


@dataclass(frozen=True, slots=True)
class ExceptionRecord:
    """The members of MINIDUMP_EXCEPTION_STREAM.

    Attributes:
        thread_id: of the thread that raised it.
        code: exception code, 32 bits.
        flags: EXCEPTION_* flags.
        address: of the instruction.
        parameters: as many as the record says, at most 15.
        context: bytes of the fixed part of the CONTEXT at the exception.
    """

    thread_id: int
    code: int
    flags: int
    address: int
    parameters: tuple[int, ...]
    context: bytes


@dataclass(frozen=True, slots=True)
class UnloadedModule:
    """The members of MINIDUMP_UNLOADED_MODULE.

    Attributes:
        span: where the image lay.
        name: of its file.
        timestamp: of its PE header; in most files seconds since 1970.
    """

    span: Span
    name: str
    timestamp: int


@dataclass(frozen=True, slots=True)
class MiscInfo:
    """The members of MINIDUMP_MISC_INFO; None where the flags say that one is not filled in.

    Attributes:
        process_id: of the process.
        create_time: when it was started, seconds since 1970.
        user_seconds: time in user mode.
        kernel_seconds: time in kernel mode.
    """

    process_id: int | None
    create_time: int | None
    user_seconds: int | None
    kernel_seconds: int | None


@dataclass(frozen=True, slots=True)
class ThreadInfo:
    """The members of MINIDUMP_THREAD_INFO.

    Attributes:
        id: of the thread.
        start_address: address of its start function.
    """

    id: int
    start_address: int


@dataclass(frozen=True, slots=True)
class ProcessCounters:
    """The members of MINIDUMP_PROCESS_VM_COUNTERS_1 and _2; None for a counter that the system did not fill in.

    All are bytes except `page_faults`, a number. `private` is the commit charge of the process, which tools call
    private bytes; `pagefile` is the same as older systems count it.
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
    """The members of MINIDUMP_SYSTEM_MEMORY_INFO_1, in bytes, of the whole system; None for a counter not filled in."""

    physical: int
    available: int | None
    committed: int | None
    commit_limit: int | None
    peak_committed: int | None


@dataclass(frozen=True, slots=True)
class HandleOperation:
    """The members of AVRF_HANDLE_OPERATION.

    Attributes:
        handle: the handle.
        process: id of the process.
        thread: id of the thread.
        operation: 1 opened, 2 closed, 3 bad reference.
        frames: return addresses of the stack, innermost first.
    """

    handle: int
    process: int
    thread: int
    operation: int
    frames: tuple[int, ...]
