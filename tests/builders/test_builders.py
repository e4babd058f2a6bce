"""The builders agree with an independent reader and with the rules Windows keeps.

The few offsets in here are stated once more, apart from those of the builders.
"""

from __future__ import annotations

import importlib
import io
import struct
from pathlib import Path
from typing import Any, Literal

import pytest

from tests.builders import BuiltDump, BuiltHeap, DumpBuilder, NtHeapBuilder, ProcessBuilder

HeapArch = Literal["x64", "x86"]
MinidumpFile = importlib.import_module("minidump.minidumpfile").MinidumpFile  # it carries no types

MODERN: list[tuple[HeapArch, int, int, int, int]] = [
    # arch, build, TotalFreeSize, SegmentList, Counters
    ("x64", 6002, 0xC8, 0x128, 0x188),
    ("x64", 7601, 0xC8, 0x128, 0x188),
    ("x64", 9600, 0xC0, 0x120, 0x210),
    ("x64", 14393, 0xC0, 0x120, 0x218),
    ("x64", 19041, 0xC0, 0x120, 0x238),
    ("x64", 26100, 0xC0, 0x120, 0x238),
    ("x86", 6002, 0x78, 0xA8, 0xDC),
    ("x86", 7601, 0x78, 0xA8, 0xDC),
    ("x86", 9600, 0x74, 0xA4, 0x1E0),
    ("x86", 14393, 0x74, 0xA4, 0x1E4),
    ("x86", 19041, 0x74, 0xA4, 0x1F4),
]


@pytest.mark.parametrize(
    ("arch", "build", "front_end"), [("x86", 2600, "lookaside"), ("x64", 7601, "lfh"), ("x64", 19041, "lfh")]
)
def test_front_end_keeps_an_internal_entry(arch: HeapArch, build: int, front_end: Literal["lookaside", "lfh"]) -> None:
    truth = NtHeapBuilder(arch=arch, build=build, base=0x500000, front_end=front_end).build().truth
    assert [len(truth.internal), len(truth.busy), truth.front_end] == [1, 0, front_end]


@pytest.mark.parametrize("build", [2600, 19041])
@pytest.mark.parametrize("bytes_short", range(8, 96, 8))
def test_any_end_of_a_run_is_padded_to_its_page(build: int, bytes_short: int) -> None:
    heap = NtHeapBuilder(arch="x86", build=build, base=0x500000, reserve=0x10000)
    here = heap.busy(8) + 8
    heap.busy(0x2000 - here % 0x1000 - 8 - bytes_short)
    heap.uncommitted(0x1000)
    heap.busy(1)
    heap.uncommitted(0x1000)
    truth = heap.build().truth
    assert all(start % 0x1000 == 0 for start, _end in truth.uncommitted)
    assert truth.committed_bytes == truth.reserved_bytes - sum(end - start for start, end in truth.uncommitted)


class Memory:
    """Committed pieces of a built heap, read by address."""

    def __init__(self, built: BuiltHeap) -> None:
        self.pieces = built.memory

    def read(self, address: int, size: int) -> bytes:
        for start, data in self.pieces:
            if start <= address and address + size <= start + len(data):
                return data[address - start : address - start + size]
        raise AssertionError(f"0x{address:x} is not committed")

    def word(self, address: int, size: int) -> int:
        return int.from_bytes(self.read(address, size), "little")


def sample_heap(arch: HeapArch, build: int, base: int = 0x500000) -> BuiltHeap:
    heap = NtHeapBuilder(arch=arch, build=build, base=base, flags=0x1002, lock_collisions=3, seed=build)
    for size in (0, 1, 8, 24, 25, 188, 5000):
        heap.busy(size, b"\xcd" * size)
    heap.free(7)
    heap.busy(100)
    heap.uncommitted(0x3000)
    heap.busy(64)
    heap.free(300)
    heap.busy(9)
    heap.segment(base + 0x200000, 0x40000)
    heap.busy(70000)
    heap.virtual(base + 0x300000, 1_500_000)
    heap.virtual(base + 0x500000, 0x200000 - 0x40)
    return heap.build()


def walk_modern(memory: Memory, p: int, heap: int, segment: int, end: int) -> list[tuple[int, int, int, int]]:
    """Entries (address, units, flags, unused) of a segment; asserts checksum and chain."""
    code = 8 if p == 8 else 0
    key = memory.read(heap + (0x88 if p == 8 else 0x50), 8)
    out, at, previous = [], segment, 0
    while at < end:
        raw = memory.read(at + code, 8)
        units, flags, check, chain, _offset, unused = struct.unpack(
            "<HBBHBB", bytes(a ^ b for a, b in zip(raw, key, strict=True))
        )
        assert check == units & 0xFF ^ units >> 8 ^ flags
        assert chain == previous
        assert raw[2] & 0x10
        out.append((at, units, flags, unused))
        at, previous = at + units * 2 * p, units
        if unused == 3:
            address, size = (memory.word(out[-1][0] + k * p, p) for k in (6, 7))
            assert address == at
            at, previous = at + size, 0
    assert at == end
    return out


@pytest.mark.parametrize(("arch", "build", "free_at", "list_at", "counters"), MODERN)
def test_modern_heap(arch: HeapArch, build: int, free_at: int, list_at: int, counters: int) -> None:
    built = sample_heap(arch, build)
    truth, memory, p = built.truth, Memory(built), 8 if arch == "x64" else 4
    entries = []
    node = memory.word(truth.address + list_at, p)
    for base, end in truth.segments:
        assert node == base + (0x18 if p == 8 else 0x10)
        assert memory.word(base + (0x48 if p == 8 else 0x28), p) == end
        entries += walk_modern(memory, p, truth.address, base, end)
        node = memory.word(node, p)
    assert node == truth.address + list_at
    free = [(a, u * 2 * p) for a, u, flags, _ in entries if not flags & 1]
    assert free == [(e.entry, e.entry_size) for e in truth.free]
    assert memory.word(truth.address + free_at, p) * 2 * p == truth.free_bytes == sum(s for _, s in free)
    busy = [(a, u * 2 * p - x, u * 2 * p) for a, u, flags, x in entries if flags & 1 and x not in (1, 3)]
    assert busy == [(e.entry, e.size, e.entry_size) for e in truth.busy]
    reserved, committed, _large, virtual = (memory.word(truth.address + counters + k * p, p) for k in range(4))
    assert (reserved, committed) == (truth.reserved_bytes, truth.committed_bytes)
    assert virtual == truth.large_bytes == sum(block.commit_bytes for block in truth.large)


@pytest.mark.parametrize(("arch", "build", "free_at"), [("x86", 2600, 0x28), ("x86", 3790, 0x28), ("x64", 3790, 0x40)])
def test_classic_heap(arch: HeapArch, build: int, free_at: int) -> None:
    built = sample_heap(arch, build)
    truth, memory, p = built.truth, Memory(built), 8 if arch == "x64" else 4
    holes = dict(truth.uncommitted)
    free, busy = 0, 0
    for base, end in truth.segments:
        at, previous = base, 0
        while at < end:
            raw = memory.read(at + (8 if p == 8 else 0), 8)
            units, chain, _cookie, flags, _unused, _index = struct.unpack("<HHBBBB", raw)
            assert chain == previous
            free += 0 if flags & 1 else units
            busy += flags & 1
            at, previous = at + units * 2 * p, units
            assert bool(flags & 0x10) == (at in holes or at == end)
            if flags & 0x10:
                at, previous = holes.get(at, at), 0
    assert free == memory.word(truth.address + free_at, p)
    assert free * 2 * p == truth.free_bytes
    assert busy == len(truth.busy) + len(truth.segments) + 1


@pytest.mark.parametrize(("arch", "build", "head"), [("x86", 2600, 0x50), ("x64", 7601, 0x118), ("x64", 19041, 0x110)])
def test_large_blocks(arch: HeapArch, build: int, head: int) -> None:
    built = sample_heap(arch, build)
    truth, memory, p = built.truth, Memory(built), 8 if arch == "x64" else 4
    node = truth.address + head
    for block in truth.large:
        node = memory.word(node, p)
        assert node == block.list_entry
        assert memory.word(node + 4 * p, p) == block.commit_bytes
    assert memory.word(node, p) == truth.address + head
    assert sum(size for _, size in built.zeros) + 0x1000 * len(truth.large) == truth.large_bytes


def parse(dump: BuiltDump) -> Any:
    """The `minidump` package's reading of a built dump; from memory, since it never closes the files it opens."""
    return MinidumpFile.parse_buff(io.BytesIO(dump.data))


@pytest.mark.parametrize("memory_list", ["64", "32"])
def test_dump_reads_back(memory_list: Literal["64", "32"]) -> None:
    builder = DumpBuilder(memory_list=memory_list)
    builder.module(0x7FF600000000, 0x10000, "C:\\a\\b.dll", pdb=("b.pdb", bytes(range(16)), 2))
    builder.memory(0x5000, b"x" * 0x1000).zeros(0x10000, 0x3000).memory(0x20000, b"yz")
    builder.thread(7, 0x5000, stack=(0x5800, 0x800), ip=0x11, sp=0x22, registers={"rbx": 5})
    builder.region(0, 0x5000, state="MEM_FREE").region(0x5000, 0x1000).misc(99)
    builder.exception(7, 0xC0000005, 0x1234, (1, 0)).comment("hello")
    built = builder.build()
    dump = parse(built)
    assert [(m.baseaddress, m.size, m.name) for m in dump.modules.modules] == [
        (0x7FF600000000, 0x10000, "C:\\a\\b.dll")
    ]
    assert [(t.ThreadId, t.Teb) for t in dump.threads.threads] == [(7, 0x5000)]
    segments = dump.memory_segments_64 if memory_list == "64" else dump.memory_segments
    found = [(s.start_virtual_address, s.size) for s in segments.memory_segments]
    assert found == [*built.truth.ranges]
    assert dump.misc_info.ProcessId == built.truth.pid == 99
    assert "hello" in str(dump.comment_a)
    stack = dump.threads.threads[0].Stack.MemoryLocation
    assert built.data[stack.Rva : stack.Rva + stack.DataSize] == b"x" * 0x800


def test_written_file_is_the_built_one_with_holes(tmp_path: Path) -> None:
    builder = DumpBuilder().memory(0x1000, b"a" * 0x1000).zeros(0x100000, 0x1000000).memory(0x5000000, b"b")
    truth = builder.write(tmp_path / "a.dmp")
    built = builder.build()
    assert (tmp_path / "a.dmp").read_bytes() == built.data
    assert truth == built.truth
    assert (tmp_path / "a.dmp").stat().st_blocks * 512 < 0x10000


@pytest.mark.parametrize(
    ("arch", "build", "top"),
    [
        ("x64", 3790, 0x7FFFFFF0000),
        ("x64", 7601, 0x7FFFFFF0000),
        ("x64", 19041, 0x7FFFFFFF0000),
        ("x86", 2600, 0x7FFF0000),
        ("x86", 19041, 0x7FFF0000),
        ("wow64", 7601, 0x7FFFFFF0000),
        ("wow64", 19041, 0x7FFFFFFF0000),
    ],
)
def test_process(arch: Literal["x64", "x86", "wow64"], build: int, top: int) -> None:
    own: HeapArch = "x64" if arch == "x64" else "x86"
    heaps = [sample_heap(own, build, 0x8000000 + i * 0x1000000) for i in range(20)]
    process = ProcessBuilder(arch=arch, build=build)
    for heap in heaps:
        process.heap(heap)
    process.heap_handle(0x99990000).thread(10, ip=0x1234).thread(11, name="worker", content=b"stack")
    built = process.build()
    ends = [0] + [r.base + r.size for r in built.truth.regions]
    assert [r.base for r in built.truth.regions] == ends[:-1]
    assert ends[-1] == top
    assert built.truth.ranges == tuple(sorted(built.truth.ranges))
    reader = parse(built).get_reader()
    native = 4 if arch == "x86" else 8
    teb = built.truth.threads[1].teb
    peb = int.from_bytes(reader.read(teb + (0x60 if native == 8 else 0x30), native), "little")
    p = 8 if arch == "x64" else 4
    if arch == "wow64":
        peb = int.from_bytes(reader.read(teb + 0x2000 + 0x30, 4), "little")
    assert int.from_bytes(reader.read(peb + (0x30 if p == 8 else 0x18), p), "little") == heaps[0].truth.address
    array = int.from_bytes(reader.read(peb + (0xF0 if p == 8 else 0x90), p), "little")
    words = struct.unpack(f"<21{'Q' if p == 8 else 'I'}", reader.read(array, 21 * p))
    assert words == (*(h.truth.address for h in heaps), 0x99990000)


@pytest.mark.parametrize(("arch", "build"), [("x86", 2600), ("x64", 7601), ("x64", 19041)])
def test_subsegments_that_cannot_be_are_refused(arch: HeapArch, build: int) -> None:
    heap = NtHeapBuilder(arch=arch, build=build, base=0x500000, front_end="lfh")
    most = 4 * (16 if arch == "x64" else 8) - 8
    for units, asked in ((4, []), (1, [0]), (4, [most + 1]), (0x2000, [1])):
        with pytest.raises(ValueError, match="no subsegment"):
            heap.subsegment(units, asked)
    with pytest.raises(ValueError, match="without LFH"):
        NtHeapBuilder(arch=arch, build=build, base=0x500000).subsegment(4, [1])
