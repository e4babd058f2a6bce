"""Small dumps of each kind of heap, for tests that run every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.page_heap import PageHeapBuilder
from tests.heaps.segment.plans import Plan
from tests.patching import poke
from tests.process.stacks.test_trace_database import RECORDS, UST, record

NT, PAGE = 0x20000000000, 0x30000000
STACKS = ((0x66001234, 0x68003000, 0x67002010), (0x66001234, 0x67002200, 0x67002900))
BLOCK = {"nt": hex(NT), "page": hex(PAGE), "segment": "0x28a65b00000", "lfh": hex(NT)}


def _nt(path: Path) -> None:
    """An NT heap with two allocation stacks, a large block, pointers, and an overrun into the next header."""
    heap = NtHeapBuilder(base=NT, flags=UST)
    for i in range(40):
        heap.busy(40 + 8 * (i % 5), trace=RECORDS + 0x100 * (i % 2))
    heap.free(20)
    heap.busy(300, trace=RECORDS)
    heap.virtual(NT + 0x10000000, 700_000)
    built = heap.build()
    process = ProcessBuilder(pid=77).heap(built)
    for base, name in ((0x66000000, "msvcrt.dll"), (0x67000000, "vision.dll"), (0x68000000, "mymalloc.dll")):
        process.module(base, 0x10000, rf"C:\acme\{name}")
    records = b"".join(record("x64", frames).ljust(0x100, b"\0") for frames in STACKS)
    process.region(RECORDS, 0x1000).memory(RECORDS, records.ljust(0x1000, b"\0"))
    process.thread(0x10, content=b"".join(block.user.to_bytes(8, "little") for block in built.truth.busy[:5]))
    culprit, victim = built.truth.busy[7], built.truth.busy[8]
    end = culprit.user + culprit.size
    path.write_bytes(poke(process.build(), (end, b"Z" * (victim.user - end))).data)


def _page(path: Path) -> None:
    """A page heap with a crash at a freed block."""
    heap = PageHeapBuilder(PAGE)
    allocated, freed = heap.trace(0x401000, 0x402000), heap.trace(0x403000)
    heap.block(100, trace=allocated, thread=7)
    gone = heap.block(144, state="freed", trace=freed, thread=8)
    process = ProcessBuilder(build=19041, nt_global_flag=0x02000000).heap(heap.build())
    process.thread(99).dump.exception(99, 0xC0000005, 0x401000, (0, gone + 8))
    process.write(path)


def _segment(path: Path) -> None:
    """A segment heap of Windows 10 1607 with VS chunks, LFH blocks and large blocks."""
    plan = Plan("x64", 14393, True, (("vs", 40), ("lfh", 7), ("large", 2)), 11)
    plan.process(plan.heap()).write(path)


KINDS: dict[str, Callable[[Path], None]] = {"nt": _nt, "page": _page, "segment": _segment}
"""Name → writes the dump to a path."""
