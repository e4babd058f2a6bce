"""The triage page: its order and length, shares of named totals, commands that can be pasted."""

from __future__ import annotations

import json
import shlex
import struct
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.commands.common.thread_stacks import frame_style
from heapdump.process.stacks.stack_walk import How, StackFrame
from heapdump.process.symbols.namer import Frame
from heapdump.trust import Trust
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.heaps.nt.plans import Generation
from tests.heaps.nt.test_in_operation import stopped
from tests.patching import poke, word
from tests.samples import SAMPLES

Capture = pytest.CaptureFixture[str]


def page(capfd: Capture, path: Path, *, code: int = 0) -> list[str]:
    assert run(["triage", str(path), "-q", "--no-cache"]) == code
    return capfd.readouterr().out.splitlines()


def data(capfd: Capture, path: Path, *, code: int = 0) -> Any:
    assert run(["triage", str(path), "-q", "--no-cache", "--json"]) == code
    return json.loads(capfd.readouterr().out)["data"]


def labels(lines: list[str]) -> list[str]:
    """The labels in the margin, behind the header."""
    first = lines.index("")
    return [line[:9].strip() for line in lines[first + 1 :] if line[:9].strip()]


def running(path: Path) -> None:
    """A process with nothing wrong."""
    heap = NtHeapBuilder(base=0x20000000000)
    for size in (40, 400, 4000):
        heap.busy(size)
    ProcessBuilder().heap(heap.build()).thread(8).write(path)


def small_heap(path: Path) -> None:
    """A 32-bit process, 300 MB of whose memory lies outside of its heap, with a C++ exception."""
    heap = NtHeapBuilder(arch="x86", base=0x1000000)
    for i in range(20):
        heap.busy(100 + i)
    process = ProcessBuilder(arch="x86").heap(heap.build()).thread(8)
    for i in range(3):
        process.region(0x20000000 + i * 0x10000000, 100 << 20)
    process.exception(8, 0xE06D7363, process.plan.ntdll + 0x10)
    process.write(path)


@pytest.mark.parametrize("make", [running, small_heap])
def test_a_page_with_little_to_say_has_25_lines_of_80_columns(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch, make: Any
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    make(Path("crash.dmp"))
    lines = page(capfd, Path("crash.dmp"))
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    first = "RUNNING" if make is running else "CRASH"
    assert labels(lines) == [first, "HEAP", "MEMORY", "WHO", "CANNOT", "NEXT"]


def test_commands_stand_on_one_line_with_the_name_of_the_dump(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    folder = tmp_path / ("a folder with a name that is much longer than a line of the page " * 2).strip()
    folder.mkdir()
    running(path := folder / "crash.dmp")
    lines = page(capfd, path)
    shown = [line.strip().removeprefix("NEXT").strip() for line in lines if "heapdump " in line]
    assert shown == data(capfd, path)["next"]
    for words in shown:
        name, command, *arguments = shlex.split(words)
        assert name == "heapdump" and str(path) in arguments
        assert run([command, *arguments, "-q", "--json"]) in (0, 4)
        capfd.readouterr()


def test_the_heap_is_a_small_part_of_the_memory(tmp_path: Path, capfd: Capture) -> None:
    small_heap(path := tmp_path / "crash.dmp")
    found = data(capfd, path)
    assert found["memory"]["items"][0]["item"] == "unknown private memory"
    assert found["memory"]["largest_allocatable"]["bytes"] > 1 << 20
    assert (found["who"][0]["share"], found["who"][0]["of_bytes"]) == (1.0, sum(100 + i for i in range(20)))
    assert (found["crash"]["code"], found["crash"]["thread"]) == ("0xe06d7363", 8)
    assert any("--usage" in command for command in found["next"])
    text = "\n".join(page(capfd, path))
    assert "100.0% of the 2.1 kB in heap blocks: 20 blocks of 100 to 119 bytes" in text
    assert "largest allocatable block" in text


def test_the_verdict_of_the_page_is_that_of_a_check_however_large_the_heaps(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heapdump.analyses.damage.verdict._QUICK_HEADERS", 0)
    running(path := tmp_path / "crash.dmp")
    assert "HEAP     no damage found in 1 heap" in page(capfd, path)


def test_flat_records_name_their_section(tmp_path: Path, capfd: Capture) -> None:
    running(path := tmp_path / "crash.dmp")
    assert run(["triage", str(path), "-q", "--format", "jsonl"]) == 0
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [*dict.fromkeys(record["section"] for record in records)] == ["heap", "memory", "who", "cannot", "next"]
    assert {tuple(record) for record in records} == {("section", "name", "bytes", "text")}


CODE = 0x50000000
MOV_RDX_RAX_10 = bytes.fromhex("488b5010")


def crashed(path: Path, *, code: bytes, free: bool) -> int:
    """A read through rax, which leads nowhere; rcx points into the block whose address is returned."""
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(40)
    block = heap.free(12) + 16 if free else heap.busy(180)
    heap.busy(40)
    process = ProcessBuilder().heap(heap.build()).region(CODE, 0x1000, protect=0x20).thread(8)
    if code:
        process.memory(CODE, code.ljust(0x1000, b"\x90"))
    registers = {"rax": 0x4C43524F000000DF, "rcx": block + 0x20, "rsi": 3}
    process.dump.exception(8, 0xC0000005, CODE, (0, (1 << 64) - 1), ip=CODE, registers=registers)
    process.write(path)
    return block


def test_a_crash_names_the_instruction_and_what_its_registers_point_to(tmp_path: Path, capfd: Capture) -> None:
    block = crashed(path := tmp_path / "crash.dmp", code=MOV_RDX_RAX_10, free=True)
    crash = data(capfd, path)["crash"]
    assert crash["instruction"] == "mov rdx, qword ptr [rax+0x10]"
    first, second = crash["registers"]
    assert first == {"register": "rax", "value": "0x4c43524f000000df", "points_to": None}
    assert (second["register"], second["points_to"]["kind"]) == ("rcx", "block")
    text = "\n".join(page(capfd, path))
    assert (
        "\n           mov rdx, qword ptr [rax+0x10]\n           rax = 0x4c43524f000000df: non-canonical: no address that"
        in text
    )
    assert f"rcx = {block + 0x20:#x}: free block {block:#x}+0x20, " in text


def test_a_crash_whose_code_is_not_in_the_dump_names_registers_that_point_into_blocks(
    tmp_path: Path, capfd: Capture
) -> None:
    block = crashed(path := tmp_path / "crash.dmp", code=b"", free=False)
    crash = data(capfd, path, code=0)["crash"]
    assert crash["instruction"] is None
    assert [one["register"] for one in crash["registers"]] == ["rcx"]
    assert crash["registers"][0]["points_to"]["address"] == hex(block)


def test_incidents_have_the_numbers_and_bugs_of_check(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "hurt.dmp"
    SAMPLES["damaged"](path)
    found_by_triage = data(capfd, path, code=4)
    assert run(["check", str(path), "-q", "--no-cache", "--json"]) == 1
    records = json.loads(capfd.readouterr().out)["data"]
    found = [(one["incident"], one["bug"], one["address"]) for one in found_by_triage["heap"]["incidents"]]
    assert found == [(one["incident"], one["bug"], one["address"]) for one in records]
    assert [bug for _, bug, _ in found] == ["heap-buffer-overflow", "heap-use-after-free"]
    assert sum("heap-buffer-overflow at 0x20000000808: " in line for line in page(capfd, path, code=4)) == 1


@pytest.mark.parametrize("thread", [99, None])
def test_a_heap_failure_that_ntdll_noted_leads_the_page_without_an_exception(
    tmp_path: Path, capfd: Capture, thread: int | None
) -> None:
    """With its exception record on the stack of a thread, or in ntdll's data alone."""
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(40)
    free = heap.free(8) + 16
    heap.busy(40)
    ntdll = ProcessBuilder().plan.ntdll
    place = ntdll + 0x1F5000 - 0x1000 + 0x400
    stack = bytes(0x60) + struct.pack("<IIQQIIQ", 0xC0000374, 1, 0, place, 1, 0, place)
    record = struct.pack("<IIIIQQ", 2, 0x6D0, 8, 0, 0x20000000000, free - 16).ljust(0x58, b"\0") + word(ntdll + 0x1234)
    built = ProcessBuilder().heap(heap.build()).thread(99, content=stack if thread else b"").build()
    path = tmp_path / "box.dmp"
    path.write_bytes(poke(built, (place, record)).data)
    answer = data(capfd, path)
    assert (answer["crash"]["code"], answer["crash"]["thread"]) == ("0xc0000374", thread)
    assert [one["bug"] for one in answer["heap"]["incidents"]] == ["double-free"]
    assert labels(page(capfd, path))[0] == "CRASH"


def test_the_address_of_a_failed_access_is_read_where_no_register_says_it(tmp_path: Path, capfd: Capture) -> None:
    process = ProcessBuilder(arch="x86").thread(8)
    process.dump.exception(8, 0xC0000005, 0x401000, (1, 0x45))
    process.write(tmp_path / "crash.dmp")
    found = data(capfd, tmp_path / "crash.dmp")["crash"]
    assert found["words"] == "access violation writing 0x45 (null + 0x45, a member of a null pointer)"


def test_the_programs_own_first_frame_is_bold_in_the_crash(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["service"](tmp_path / "crash.dmp")
    run(["triage", str(tmp_path / "crash.dmp"), "-q", "--color", "always"])
    assert "\x1b[1m  #0 imagesvc.exe+0x20\x1b[0m" in capfd.readouterr().out


def test_only_frames_of_windows_and_words_of_the_stack_are_dim() -> None:
    paths = {"ntdll.dll": "C:\\Windows\\System32\\ntdll.dll", "app.dll": "C:\\App\\app.dll"}
    process: Any = SimpleNamespace(modules=[SimpleNamespace(name=name, path=path) for name, path in paths.items()])
    style = frame_style(process, 2)
    frame = Frame(0x10000010, "app.dll", "Load", 16, None, None, Trust.GUESS)
    rows = [
        (number, StackFrame(0, replace(frame, module=module), How(how)))
        for number, (module, how) in enumerate(
            [("ntdll.dll", "unwind"), ("app.dll", "scan"), ("app.dll", "context"), ("app.dll", "frame-pointer")]
        )
    ]
    assert [style(row) for row in rows] == ["dim", "dim", "bold", ""]


@pytest.mark.parametrize("living", [True, False], ids=["living", "gone"])
def test_a_contradiction_in_a_heap_that_is_being_changed_is_not_called_a_bug(
    write_dump: Any, capfd: Capture, living: bool
) -> None:
    """The verdict comes first, then the contradiction with its reason; without a living owner it is damage."""
    _, built = stopped(Generation("x64", 19041), "unwritten", living=living)
    path = write_dump(built)
    lines = page(capfd, path, code=4)
    first = next(i for i, line in enumerate(lines) if line.startswith("HEAP"))
    if living:
        assert lines[first].split(maxsplit=1)[1].startswith("no damage found in 1 heap")
        assert "its lock is held by thread 0x2d98" in lines[first + 1]
    else:
        assert not any("no damage found" in line for line in lines)
    (incident,) = data(capfd, path, code=4)["heap"]["incidents"]
    assert (incident["bug"] is None) is living
    assert run(["summary", str(path), "-q", "--no-cache"]) == 4
    assert ("heap: no damage found in 1 heap" in capfd.readouterr().out) is living
