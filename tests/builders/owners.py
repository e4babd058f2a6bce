"""Reservations and headers of allocators and runtimes, laid out by hand from their public descriptions.

In: the name of an owner. Out: its memory in a process, the bytes that must be poked into a module of the program, and
the spans that belong to it. Nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.builders.process import ProcessBuilder

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
PAGE = 0x1000
BASE = 0x150000000000
MODULE, MODULE_BYTES = 0x7FF700000000, 0x10000
DATA = MODULE + MODULE_BYTES - 0x2000
RESERVE = "MEM_RESERVE"


@dataclass
class Owned:
    """A process with memory of one owner. `spans`: (address, bytes) of it; `patches`: bytes of the module."""

    process: ProcessBuilder
    spans: list[tuple[int, int]] = field(default_factory=list)
    patches: list[tuple[int, bytes]] = field(default_factory=list)

    def module(self, name: str, text: bytes = b"") -> Owned:
        """A module of the program, perhaps with a text in its data."""
        self.process.module(MODULE, MODULE_BYTES, f"C:\\acme\\{name}")
        if text:
            self.patches.append((DATA + 0x123, text))
        return self

    def reserve(self, start: int, size: int, committed: int = 0, head: bytes = b"", protect: int = 0x04) -> Owned:
        """One reservation, its first bytes committed; `head`: what they begin with."""
        if committed:
            self.process.region(start, committed, protect=protect)
            self.process.memory(start, head.ljust(committed if committed <= MIB else PAGE, b"\0"))
        if committed < size:
            self.process.region(start + committed, size - committed, state=RESERVE, allocation_base=start)
        self.spans.append((start, size))
        return self


def super_page(owned: Owned, start: int, allocation: int) -> None:
    """A super page of PartitionAlloc: guard, metadata, guard, slots, guard."""
    process = owned.process
    parts = ((0, PAGE, RESERVE), (PAGE, PAGE, "MEM_COMMIT"), (2 * PAGE, 2 * PAGE, RESERVE),
             (4 * PAGE, 16 * PAGE, "MEM_COMMIT"), (20 * PAGE, 2 * MIB - 20 * PAGE, RESERVE))  # fmt: skip
    for at, size, state in parts:
        process.region(start + at, size, state=state, allocation_base=allocation)
    owned.spans.append((start, 2 * MIB))


def mimalloc_segment(start: int, key: int) -> bytes:
    """The header of a segment whose cookie lies at 0x50."""
    return b"\0" * 0x10 + struct.pack("<2Q", 1, start + 0x1000) + bytes(0x30) + struct.pack("<Q", start ^ key)


def v8_page(start: int, size: int) -> bytes:
    """Size, flags, heap, area."""
    return struct.pack("<5Q", size, 0x18, 0x20000001000, start + 0x400, start + size)


def unreal_pool(block: int) -> bytes:
    """FFreeBlock of MallocBinned2: bytes of a block, index, canary, free blocks, next."""
    return struct.pack("<HBBIQ", block, 3, 0xE3, 0x8000 // block, 0)


def python_pools(start: int) -> bytes:
    """An arena of 256 KiB: three pools in use, the others never used."""
    out = bytearray(256 * KIB)
    for number in range(3):
        at = number * 4 * KIB
        free = start + at + 0x60
        struct.pack_into("<Q3Q4I", out, at, 5, free, start, start, 2, 1, 0x80, 0xFE0)
    return bytes(out)


def sqlite_wal_index() -> bytes:
    """Version, and the header twice."""
    header = struct.pack("<2I", 3007000, 0).ljust(48, b"\x05")
    return header * 2


def stack(owned: Owned, base: int, size: int = MIB, committed: int = 16 * KIB) -> None:
    """Reserved, guard page, committed to the end."""
    top, process = base + size, owned.process
    process.region(base, size - committed - PAGE, state=RESERVE)
    process.region(top - committed - PAGE, PAGE, protect=0x104, allocation_base=base)
    process.region(top - committed, committed, allocation_base=base)
    owned.spans.append((base, size))
