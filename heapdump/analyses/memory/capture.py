"""Captures: the smallest dump that would answer a question, the command that writes it, and about how large it is.

The commands are of ProcDump; `-mc` takes MINIDUMP_TYPE bits in hex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process

_MAP = 0x100 | 0x800 | 0x1000
"""Process and thread data, memory map, thread information."""

_PRIVATE = _MAP | 0x1 | 0x200
"""Besides: private read-write memory, and the data of modules, in which ntdll keeps the keys of heaps."""

_WRITABLE, _NO_ACCESS_OR_GUARD = 0x04 | 0x08 | 0x40 | 0x80, 0x01 | 0x100
_REGION, _MODULE, _THREAD, _HEAD = 48, 400, 0x4D0 + 112 + 0x2000, 0x10000
"""Bytes in a dump for a region of the memory map, a module with its strings, a thread with its TEB, all the rest."""


@dataclass(frozen=True, slots=True)
class Capture:
    """A command that writes a dump. `estimated_bytes`: size of that dump; None where it cannot be estimated."""

    command: str
    estimated_bytes: int | None


def program_of(process: Process) -> str:
    """The file name of the program, as ProcDump and GFlags take it; quoted where it has spaces."""
    name = (process.image or "app.exe").replace("/", "\\").rpartition("\\")[2]
    return f'"{name}"' if " " in name else name


def capture_map(process: Process) -> Capture:
    """A dump with memory map, modules, threads and the PEB."""
    return Capture(f"procdump -mc {_MAP:x} {program_of(process)}", _small(process))


def capture_private(process: Process) -> Capture:
    """A dump as `capture_map`, with all private read-write memory (every block of every heap) and data of modules."""
    private = _private_bytes(process)
    size = None if private is None else private + _small(process)
    return Capture(f"procdump -mc {_PRIVATE:x} {program_of(process)}", size)


def capture_crash(process: Process) -> Capture:
    """A dump of the next crash, with exception, threads and stacks."""
    return Capture(f"procdump -e -mm {program_of(process)}", _small(process))


def _small(process: Process) -> int:
    """Bytes of a dump without memory but stacks, PEB and TEBs."""
    stacks = sum(
        max(0, stack.base - thread.sp)
        for thread in process.threads
        for stack in thread.stacks[:1]
        if thread.sp is not None and stack.limit <= thread.sp < stack.base
    )
    regions = len(process.regions) if process.regions.is_complete_map else 0
    return _HEAD + _REGION * regions + _MODULE * len(process.modules) + _THREAD * len(process.threads) + stacks


def _private_bytes(process: Process) -> int | None:
    """Committed read-write bytes: private ones, and those of images; by Windows' counter without a memory map."""
    regions = process.regions
    if not regions.is_complete_map:
        return process.counters.private if process.counters else None
    usable = (regions.protect & np.uint32(_WRITABLE) > 0) & (regions.protect & np.uint32(_NO_ACCESS_OR_GUARD) == 0)
    described = (regions.type == Kind.MEM_PRIVATE) | (regions.type == Kind.MEM_IMAGE)
    return int(regions.size[(regions.state == State.MEM_COMMIT) & usable & described].sum())
