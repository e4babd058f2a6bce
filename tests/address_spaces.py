"""Built 32-bit processes whose address space is broken up, and how.

The story: a DLL that hooks functions is loaded at the preferred base of a runtime; the runtime moves into the middle of
the largest free run.
"""

from __future__ import annotations

from pathlib import Path

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.image_header import ImageFacts

RUNTIME, MOVED, RUNTIME_BYTES = 0x10000000, 0x38000000, 0x200000
HOOK_BYTES = 0x40000
TRAMPOLINE = 0x6F000000
VICTIM = 0x70000000
"""A system DLL whose function at +0x1000 is hooked."""

IMPORTS = (
    ("KERNEL32.dll", ("VirtualAlloc", "VirtualProtect", "GetTickCount", "LoadLibraryW")),
    ("USER32.dll", ("#7",)),
)


def process(
    *,
    hooked: bool,
    pid: int = 4242,
    create_time: int = 1_699_990_000,
    timestamp: int = 1_700_000_000,
    large_address_aware: bool = False,
) -> ProcessBuilder:
    """The process, before (`hooked` False) or after the DLL was loaded."""
    facts = ImageFacts(0x400000, large_address_aware=large_address_aware)
    made = ProcessBuilder(
        arch="x86", build=7601, pid=pid, create_time=create_time, timestamp=timestamp, exe_facts=facts
    )
    heap = NtHeapBuilder(arch="x86", build=7601, base=0x1000000)
    heap.busy(100)
    made.heap(heap.build())
    made.thread(7, ip=0x401000)
    made.module(
        MOVED if hooked else RUNTIME,
        RUNTIME_BYTES,
        r"C:\app\runtime.dll",
        facts=ImageFacts(RUNTIME, dynamic_base=False, imports=(("KERNEL32.dll", ("HeapAlloc",)),)),
    )
    made.module(VICTIM, 0x20000, r"C:\Windows\System32\user32.dll", facts=ImageFacts(VICTIM))
    if hooked:
        made.module(
            RUNTIME, HOOK_BYTES, r"C:\hooks\hook.dll", facts=ImageFacts(RUNTIME, dynamic_base=False, imports=IMPORTS)
        )
        made.region(TRAMPOLINE, 0x1000, protect=0x20)
        made.memory(TRAMPOLINE, _trampoline().ljust(0x1000, b"\xcc"))
        made.memory(VICTIM + 0x1000, jump(VICTIM + 0x1000, RUNTIME + 0x2000).ljust(0x1000, b"\x90"))
    return made


def jump(at: int, target: int) -> bytes:
    """`jmp target` (E9 rel32) at an address."""
    return b"\xe9" + (target - at - 5 & 0xFFFFFFFF).to_bytes(4, "little")


def _trampoline() -> bytes:
    """The replaced instructions, then the jump back behind them."""
    moved = b"\x8b\xff\x55\x8b\xec"
    return moved + jump(TRAMPOLINE + len(moved), VICTIM + 0x1005)


def write_pair(folder: Path) -> tuple[str, str]:
    """Both dumps of the story, as two runs of the program."""
    before, after = folder / "before.dmp", folder / "after.dmp"
    process(hooked=False).write(before)
    process(hooked=True, pid=4300, create_time=1_699_999_000).write(after)
    return str(before), str(after)
