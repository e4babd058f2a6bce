"""Where the parts of a built process lie, per architecture and build.

In: architecture and build. Out: a `Plan` of addresses. They are choices of this package, modelled on what
Windows does (layouts are restated by hand on purpose); nothing of the tool under test is imported.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ProcessArch = Literal["x64", "x86", "wow64"]
_POOL = 0x200000


@dataclass(frozen=True)
class Plan:
    """Addresses of one process.

    `pool` is the reservation of 0x200000 bytes that holds PEB and TEBs, None where each has its own; TEB
    number i is at `teb + i * teb_step`; `stacks`, `stacks32` are where default stacks are stacked upwards;
    `top` is the end of the user address space.
    """

    pool: int | None
    peb: int
    peb32: int
    teb: int
    teb_step: int
    teb_bytes: int
    stacks: int
    stacks32: int
    parameters: int
    parameters32: int
    heap_list: int
    exe: int
    ntdll: int
    ntdll32: int
    top: int


def process_plan(arch: ProcessArch, build: int) -> Plan:
    """Plan of a process; native processes leave the fields that end in 32 unused.

    x64: PEB 0x3481700000 (0x7fffffdf000 before 8), stacks from 0x3481900000, exe 0x7ff6f1780000, ntdll
    0x7ff956300000. x86: PEB 0x300000 (0x7ffdf000), stacks from 0x68000000, exe 0x400000, ntdll 0x77000000.
    """
    pooled = build >= 9200
    if arch == "x64":
        pool = 0x3481600000
        peb, teb, step = (
            (pool + 0x100000, pool + 0x101000, 0x2000) if pooled else (0x7FFFFFDF000, 0x7FFFFFDD000, -0x2000)
        )
        high = pooled and build >= 9600
        return Plan(
            pool if pooled else None, peb, 0, teb, step, 0x2000,
            0x3481900000, 0, 0x3480000000, 0, 0x3480010000,
            0x7FF6F1780000 if high else 0x13F780000, 0x7FF956300000 if high else 0x77300000, 0,
            0x7FFFFFFF0000 if high else 0x7FFFFFF0000,
        )  # fmt: skip
    if arch == "x86":
        peb, teb, step = (0x300000, 0x303000, 0x3000) if pooled else (0x7FFDF000, 0x7FFDE000, -0x1000)
        return Plan(
            0x200000 if pooled else None, peb, 0, teb, step, 0x1000,
            0x68000000, 0, 0x120000, 0, 0x130000, 0x400000, 0x77000000, 0, 0x7FFF0000,
        )  # fmt: skip
    peb, teb, step = (0x300000, 0x302000, 0x3000) if pooled else (0x7EFDF000, 0x7EFDB000, -0x3000)
    high = build >= 9600
    return Plan(
        0x200000 if pooled else None, peb, peb + 0x1000 if pooled else peb - 0x1000, teb, step, 0x3000,
        0x69000000, 0x68000000, 0x140000, 0x120000, 0x130000, 0x400000,
        0x7FF956300000 if high else 0x76F00000, 0x77500000, 0x7FFFFFFF0000 if high else 0x7FFFFFF0000,
    )  # fmt: skip


def pool_bytes() -> int:
    """Size of the reservation that holds PEB and TEBs."""
    return _POOL
