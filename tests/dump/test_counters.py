"""The streams of counters: of the process, of the system, of handles; small dumps have them, too."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.dump.open import open_minidump
from heapdump.dump.streams import HandleOperation, ProcessCounters, SystemMemory
from tests.builders import DumpBuilder, NtHeapBuilder, ProcessBuilder
from tests.conftest import WriteDump

Capture = pytest.CaptureFixture[str]
MB = 1 << 20


def counters_1(*, private: int = 41 * MB) -> bytes:
    """MINIDUMP_PROCESS_VM_COUNTERS_1: page faults, peak and working set, four quotas, pagefile and its peak, private."""
    return struct.pack("<HxxI9Q", 1, 77, 58 * MB, 57 * MB, 1, 2, 3, 4, 40 * MB, 45 * MB, private)


def counters_2(*, flags: int = 0xF, private: int = 41 * MB) -> bytes:
    """MINIDUMP_PROCESS_VM_COUNTERS_2, which has virtual sizes before the private usage."""
    first = (58 * MB, 57 * MB, 1, 2, 3, 4, 40 * MB, 45 * MB)
    return struct.pack("<HHI18Q", 2, flags, 77, *first, 900 * MB, 800 * MB, private, 18 * MB, *range(6))


def system(*, flags: int = 0xF, page: int = 4096, counts: tuple[int, ...] = (100, 200, 300, 400)) -> bytes:
    """MINIDUMP_SYSTEM_MEMORY_INFO_1: the basic information, the file cache, then the four counts in pages."""
    basic = struct.pack("<IIIIIIQQQI", 156250, page, 1 << 20, 1, 1 << 20, 0x10000, 0x10000, 0x7FFFFFFEFFFF, 0xFF, 8)
    return (struct.pack("<HH", 1, flags) + basic + bytes(60) + struct.pack("<4Q", *counts)).ljust(492, b"\0")


@pytest.mark.parametrize(
    ("data", "virtual", "private", "working"),
    [
        (counters_1(), None, 41 * MB, None),
        (counters_2(), 800 * MB, 41 * MB, 18 * MB),
        (counters_2(flags=0x1), None, None, None),
    ],
)
def test_process_counters_of_both_revisions(
    write_dump: WriteDump, data: bytes, virtual: int | None, private: int | None, working: int | None
) -> None:
    with open_minidump(write_dump(DumpBuilder().stream(22, data).build())) as dump:
        peak = None if virtual is None else 900 * MB
        expected = ProcessCounters(77, 58 * MB, 57 * MB, 40 * MB, 45 * MB, peak, virtual, private, working)
        assert dump.process_counters == expected


def test_system_memory_is_counted_in_pages(write_dump: WriteDump) -> None:
    with open_minidump(write_dump(DumpBuilder().stream(21, system()).build())) as dump:
        assert dump.system_memory == SystemMemory(4096 << 20, 409600, 819200, 1228800, 1638400)
    with open_minidump(write_dump(DumpBuilder().stream(21, system(flags=0)).build())) as dump:
        assert dump.system_memory == SystemMemory(4096 << 20, None, None, None, None)


@pytest.mark.parametrize(("number", "size"), [(21, 492), (22, 152)])
def test_a_stream_that_its_writer_left_empty_is_remarked(write_dump: WriteDump, number: int, size: int) -> None:
    """Seen in a dump of 19045 with token information: both streams are zeros."""
    with open_minidump(write_dump(DumpBuilder().stream(number, bytes(size)).build())) as dump:
        assert dump.process_counters is None and dump.system_memory is None
        assert [remark for remark in dump.remarks if "empty: its writer left it zero" in remark]
        assert not dump.notes


@pytest.mark.parametrize("cut", [0, 3, 79, 115, 130])
def test_cut_streams_of_counters_are_left_out(write_dump: WriteDump, cut: int) -> None:
    builder = DumpBuilder().stream(21, system()[:cut]).stream(22, counters_2()[:cut]).stream(18, bytes(cut))
    with open_minidump(write_dump(builder.build())) as dump:
        assert (dump.process_counters is None) == (cut < 104)
        assert dump.system_memory is None or dump.system_memory.committed is None
        assert dump.handle_operations == ()


def test_handle_operations_with_their_stacks(write_dump: WriteDump, capfd: Capture) -> None:
    frames = (0x7FF600001000, 0x7FF600002000)
    entry = struct.pack("<QIIIIII", 0x1C4, 99, 7, 2, 0, 2, 5) + struct.pack("<32Q", *frames, *[0] * 30)
    data = struct.pack("<IIII", 16, len(entry), 1, 0) + entry
    path = write_dump(DumpBuilder().stream(18, data).build())
    with open_minidump(path) as dump:
        assert dump.handle_operations == (HandleOperation(0x1C4, 99, 7, 2, frames),)
    assert run(["info", str(path), "--json", "-q"]) in (0, 4)
    (record,) = json.loads(capfd.readouterr().out)["data"]["handle_operations"]
    assert record == {
        "handle": "0x1c4", "process": 99, "thread": 7, "operation": "close", "frames": [hex(frame) for frame in frames],
    }  # fmt: skip


def whole(path: Path) -> None:
    """A full dump with all counters."""
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(90)
    process = ProcessBuilder().heap(heap.build())
    process.dump.stream(22, counters_2()).stream(21, system())
    process.write(path)


def small(path: Path) -> None:
    """A dump of stacks and modules, with all counters."""
    builder = DumpBuilder(flags=0).module(0x400000, 0x10000, "C:\\app.exe").thread(7, 0x5000, stack=(0x20000, 0x1000))
    path.write_bytes(builder.memory(0x20000, bytes(0x1000)).stream(22, counters_2()).stream(21, system()).build().data)


@pytest.mark.parametrize("make", [whole, small])
@pytest.mark.parametrize("command", ["summary", "triage", "info"])
def test_private_bytes_working_set_and_commit_limit_stand_in_the_header_of_every_page(
    tmp_path: Path, capfd: Capture, make: Any, command: str
) -> None:
    make(path := tmp_path / "counted.dmp")
    assert run([command, str(path), "-q"]) in (0, 4)
    head = "private 41.0 MB, working set 57.0 MB (peak 58.0 MB); system commit 800.0 kB of 1.2 MB"
    assert head in capfd.readouterr().out.splitlines()


def test_windows_own_counter_is_a_third_witness_of_the_reconciliation(tmp_path: Path, capfd: Capture) -> None:
    whole(path := tmp_path / "counted.dmp")
    assert run(["summary", str(path), "-q"]) == 0
    out = capfd.readouterr().out
    assert f"Windows counts {41 * MB:,}" in out
    assert run(["triage", str(path), "--json", "-q"]) == 0
    memory = json.loads(capfd.readouterr().out)["data"]["memory"]
    assert (memory["private_bytes"], memory["private_bytes_from"]) == (41 * MB, "windows")
    assert memory["working_set"] == 57 * MB


def test_numbers_of_the_file_are_not_sold_as_numbers_of_the_process(tmp_path: Path, capfd: Capture) -> None:
    small(path := tmp_path / "small.dmp")
    assert run(["summary", str(path), "-q"]) == 4
    out = capfd.readouterr().out
    assert "Memory in the dump is" in out and "Share" not in out
    assert "committed bytes explained" not in out
    assert run(["summary", str(path), "--json", "-q"]) == 4
    data = json.loads(capfd.readouterr().out)["data"]
    assert (data["committed_bytes"], data["private_bytes"], data["explained_share"]) == (None, None, None)
    assert {line["share"] for line in data["reconciliation"]} == {None}
    assert data["in_dump_bytes"] == sum(line["bytes"] for line in data["reconciliation"])
    assert {row["busy_share"] for row in data["usage"]} == {None}
    assert run(["triage", str(path), "-q"]) == 4
    assert "of memory in the dump; private bytes 41.0 MB, as Windows counts them" in capfd.readouterr().out
