"""Recorded allocation stacks: front prefixes and their records, XP's database, damage."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import heapdump
from heapdump.cli import cli
from heapdump.process.model import Module
from heapdump.process.stacks.trace_database import RecordedStacks
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke
from tests.render.test_profiles import read_log

UST = 0x08000002
RECORDS = 0x5000000
FRAMES = [(0x66001234, 0x66002345, 0x66003456), (0x66001234, 0x66009999)]
GENERATIONS = [("x64", 7601), ("x86", 7601), ("x64", 9600), ("x64", 19041), ("x86", 19041), ("x64", 26100)]


def record(arch: HeapArch, frames: tuple[int, ...]) -> bytes:
    word = "Q" if arch == "x64" else "I"
    return struct.pack(f"<{word}II{len(frames)}{word}", 0, 0x1234, len(frames), *frames)


def process(arch: HeapArch, build: int, records: list[bytes]) -> tuple[ProcessBuilder, list[int]]:
    """(a process with a block of each record's stack and one without a stack, their addresses)."""
    heap = NtHeapBuilder(arch=arch, build=build, base=0x20000000000 if arch == "x64" else 0x1000000, flags=UST)
    blocks = [heap.busy(100 + i, b"x", trace=RECORDS + 0x100 * i) for i in range(len(records))]
    blocks.append(heap.busy(50))
    built = ProcessBuilder(arch=arch, build=build).heap(heap.build()).module(0x66000000, 0x10000, r"C:\acme\vision.dll")
    built.region(RECORDS, 0x1000)
    return built.memory(RECORDS, b"".join(r.ljust(0x100, b"\0") for r in records).ljust(0x1000, b"\0")), blocks


@pytest.mark.parametrize(("arch", "build"), GENERATIONS)
def test_prefixed_blocks_name_their_record(open_built, arch, build):
    built, addresses = process(arch, build, [record(arch, frames) for frames in FRAMES])
    with open_built(built) as snapshot:
        table, heap = snapshot.walk.table, snapshot.heaps[0]
        rows = np.array([table.at(address)[0] for address in addresses])
        assert table.address[rows].tolist() == addresses
        assert table.size[rows].tolist() == [100, 101, 50]
        assert snapshot.stacks.numbers(rows).tolist() == [RECORDS, RECORDS + 0x100, 0]
        assert [snapshot.stacks.frames(heap, RECORDS + 0x100 * i) for i in range(2)] == FRAMES
        assert snapshot.stacks.frames(heap, 0) == ()
        assert snapshot.walk.gaps == () and snapshot.walk.counts[0].integrity == 1.0


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize(
    "broken",
    [b"", b"\xff" * 64, b"\0" * 64, struct.pack("<QII", 0, 0, 65)],
    ids=["outside", "ones", "zeros", "too deep"],
)
def test_a_record_that_cannot_be_one_is_no_stack(open_built, arch, broken):
    built, addresses = process(arch, 19041, [broken, record(arch, FRAMES[1])])
    with open_built(built) as snapshot:
        rows = np.array([snapshot.walk.table.at(address)[0] for address in addresses])
        assert snapshot.stacks.numbers(rows).tolist() == [0, RECORDS + 0x100, 0]


def test_heaps_that_record_none_have_none(open_built):
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    with open_built(ProcessBuilder().heap(heap.build())) as snapshot:
        assert not snapshot.stacks.are_recorded
        assert not snapshot.stacks.numbers(np.arange(len(snapshot.walk.table))).any()


def test_block_and_blocks_show_the_stack(write_dump):
    built, addresses = process("x64", 19041, [record("x64", frames) for frames in FRAMES])
    path = str(write_dump(built.build()))
    shown = CliRunner().invoke(cli, ["block", path, hex(addresses[0])]).stdout
    assert f"allocated by stack {RECORDS:#x}:\n  vision.dll+0x1234\n  vision.dll+0x2345" in shown
    one = json.loads(CliRunner().invoke(cli, ["block", path, hex(addresses[0]), "--json"]).stdout)["data"]
    assert one["stack"] == RECORDS
    assert [(f["module"], f["offset"]) for f in one["frames"]] == [
        ("vision.dll", 0x1234),
        ("vision.dll", 0x2345),
        ("vision.dll", 0x3456),
    ]
    rows = json.loads(CliRunner().invoke(cli, ["blocks", path, "--json"]).stdout)["data"]
    assert {r["address"]: r["stack"] for r in rows} == {
        hex(addresses[0]): RECORDS,
        hex(addresses[1]): RECORDS + 0x100,
        hex(addresses[2]): None,
    }


DATABASE, TOP = 0x6000000, 0x6010000


def database(process: ProcessBuilder, stacks: list[tuple[int, ...]], added: int | None = None) -> None:
    """XP's database in two committed ends of its reservation, and its pointer in ntdll's data."""
    low = bytearray(0x1000)
    high = bytearray(0x1000)
    at = 0x400
    for i, frames in enumerate(stacks, 1):
        struct.pack_into(f"<IIHH{len(frames)}I", low, at, 0, 1, i, len(frames), *frames)
        struct.pack_into("<I", high, 0x1000 - 4 * i, DATABASE + at)
        at += 0x80
    free = TOP - 4 * len(stacks)
    count = len(stacks) if added is None else added
    struct.pack_into(
        "<IIIIIIIII", low, 0x48, DATABASE, DATABASE + 0x1000, TOP - 0x1000, DATABASE + at, free, 9, count, TOP, 0x89
    )
    process.region(DATABASE, 0x10000).memory(DATABASE, bytes(low)).memory(TOP - 0x1000, bytes(high))
    process.region(0x7C990000, 0x1000).memory(
        0x7C990000, struct.pack("<III", 0x110000, DATABASE, 0x7C990000).ljust(0x1000, b"\0")
    )


@pytest.mark.parametrize(("added", "expected"), [(None, FRAMES), (1, [FRAMES[0], None]), (5000, [None, None])])
def test_the_database_of_xp_is_found_and_counts_its_entries(open_built, added, expected):
    heap = NtHeapBuilder(arch="x86", build=2600, base=0x1000000)
    built = ProcessBuilder(arch="x86", build=2600).heap(heap.build())
    database(built, list(FRAMES), added)
    with open_built(built) as snapshot:
        ntdll = Module("ntdll.dll", "ntdll.dll", Span(0x7C990000, 0x7C991000), None, 0, 0, None)
        process = replace(snapshot.process, modules=(ntdll,))
        found = RecordedStacks(process, process.views[0])
        assert [found.frames(number) for number in (1, 2)] == expected
        assert found.frames(3) is None


LATER = {"x64": (8, 0x88, 0xA8, 0xB4, 0xB8), "x86": (4, 0x48, 0x58, 0x60, 0x64)}
"""Pointer size; CommitBase, NextFreeUpperMemory, NumberOfEntriesAdded and EntryIndexArray of the database since 7."""


def later_database(process: ProcessBuilder, arch: HeapArch, at: int, frames: tuple[int, ...]) -> None:
    """A database with one stack, number 1, in two committed pages."""
    pointer, base, free, count, array = LATER[arch]
    low, high, top = bytearray(0x1000), bytearray(0x1000), at + 0x10000
    struct.pack_into("<HH", low, 0x400 + pointer + 4, 1, len(frames))
    low[0x408 + pointer : 0x408 + pointer + len(frames) * pointer] = words(pointer, *frames)
    for offset, value in ((base, at), (free, top - pointer), (array, top)):
        low[offset : offset + pointer] = words(pointer, value)
    low[count] = 1
    high[-pointer:] = words(pointer, at + 0x400)
    process.region(at, 0x10000).memory(at, bytes(low)).memory(top - 0x1000, bytes(high))


def words(pointer: int, *values: int) -> bytes:
    return b"".join(value.to_bytes(pointer, "little") for value in values)


def test_the_same_index_in_both_views_of_a_process_is_two_stacks(write_dump):
    built = ProcessBuilder(arch="wow64", build=19041)
    changes: list[tuple[int, bytes]] = []
    frames = {"x64": (0x7FF956301234,), "x86": (0x77501234, 0x77502345)}
    ntdll = {"x64": (built.plan.ntdll + 0x1F3000, 0x6000000), "x86": (built.plan.ntdll32 + 0x19B000, 0x6100000)}
    blocks = []
    bases: dict[HeapArch, int] = {"x64": 0x20000000000, "x86": 0x1000000}
    for arch, base in bases.items():
        pointer = LATER[arch][0]
        heap = NtHeapBuilder(arch=arch, build=19041, base=base, flags=UST)
        blocks.append(heap.busy(100, bytes([0x40]) * 100))
        done = heap.build()
        data, at = ntdll[arch]
        later_database(built.heap(done), arch, at, frames[arch])
        (entry,) = done.truth.busy
        header = entry.entry + (8 if arch == "x64" else 0)
        flags = dict(done.memory)[base][header + 2 - base : header + 4 - base]
        changes += [
            (data, words(pointer, at)),
            (header + 2, bytes(value ^ 2 for value in flags)),
        ]  # HEAP_ENTRY_EXTRA, checksum
        changes.append((entry.entry + entry.entry_size - 2 * pointer, b"\1\0"))
    path = write_dump(poke(built.build(), *changes))
    with heapdump.open_dump(path) as snapshot:
        table, stacks = snapshot.walk.table, snapshot.stacks
        rows = np.array([table.at(address)[0] for address in blocks])
        numbers = stacks.numbers(rows).tolist()
        owners = [snapshot.heaps[heap] for heap in table.heap[rows].tolist()]
        assert [stacks.frames(heap, number) for heap, number in zip(owners, numbers, strict=True)] == [*frames.values()]
        assert len({*numbers}) == 2 and 1 in numbers
    groups = json.loads(CliRunner().invoke(cli, ["leaks", str(path), "--group-by", "stack", "--json"]).stdout)["data"]
    assert {tuple(int(f["address"], 16) for f in g["frames"]) for g in groups} == {*frames.values()}
    rows = json.loads(CliRunner().invoke(cli, ["blocks", str(path), "--json"]).stdout)["data"]
    assert {(row["address"], row["stack"]) for row in rows} == {
        (hex(a), n) for a, n in zip(blocks, numbers, strict=True)
    }
    _, logged = read_log(CliRunner().invoke(cli, ["leaks", str(path), "--export", "umdh"]).stdout.replace("\n", "\r\n"))
    assert {*logged.values()} == {*frames.values()}


@pytest.mark.parametrize(("arch", "build"), [("x64", 7601), ("x86", 9600), ("x64", 19041)])
def test_large_blocks_name_their_record(open_built, arch, build):
    heap = NtHeapBuilder(arch=arch, build=build, base=0x20000000000 if arch == "x64" else 0x1000000, flags=UST)
    node = 0x30000000000 if arch == "x64" else 0x30000000
    block = heap.virtual(node, 3_200_001, trace=RECORDS)
    built = ProcessBuilder(arch=arch, build=build).heap(heap.build()).module(0x66000000, 0x10000, r"C:\acme\vision.dll")
    built.region(RECORDS, 0x1000).memory(RECORDS, record(arch, FRAMES[0]).ljust(0x1000, b"\0"))
    with open_built(built) as snapshot:
        table, (row,) = snapshot.walk.table, np.flatnonzero(snapshot.walk.table.size == 3_200_001)
        assert int(table.address[row]) == block == node + (0x60 if arch == "x64" else 0x30)
        assert snapshot.stacks.numbers(np.array([row])).tolist() == [RECORDS]
        assert snapshot.walk.gaps == () and snapshot.walk.counts[0].integrity == 1.0
