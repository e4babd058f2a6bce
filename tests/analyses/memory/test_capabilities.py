"""What a dump can answer: by the memory that is in it; and the smallest capture that would answer more."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from heapdump.analyses.memory.capabilities import Capability, Topic, capabilities
from heapdump.cli import run
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.conftest import OpenBuilt
from tests.patching import poke, with_ranges, without_memory, without_stream, word

HEAP = 0x20000000000
Capture = pytest.CaptureFixture[str]


def process(**options: Any) -> ProcessBuilder:
    """A process with a heap, two threads and a stack full of pointers."""
    heap = NtHeapBuilder(base=HEAP)
    for size in (40, 400, 4000):
        heap.busy(size)
    return ProcessBuilder(exe="C:\\App\\my app.exe", **options).heap(heap.build()).thread(8)


def asked(snapshot: Snapshot) -> dict[Topic, Capability]:
    return {one.topic: one for one in capabilities(snapshot.process, snapshot.heaps)}


def with_flags(data: bytes, flags: int) -> bytes:
    """The dump with other MINIDUMP_TYPE bits in its header."""
    return data[:24] + struct.pack("<Q", flags) + data[32:]


def private_only(built: BuiltDump) -> bytes:
    """The dump without images, as procdump -mp and createdump write it."""
    return with_flags(with_ranges(built, [(s, s + n) for s, n in built.truth.ranges if s < 0x7FF000000000]), 0x1A04)


def test_a_dump_of_private_memory_holds_every_block_whatever_its_header_says(open_built: OpenBuilt) -> None:
    with open_built(private_only(process().build())) as snapshot:
        answers = asked(snapshot)
        assert answers[Topic.BLOCKS].answer == "yes"
        assert answers[Topic.BLOCKS].capture is None
    with open_built(with_flags(process().build().data, 0x1A04)) as snapshot:
        assert asked(snapshot)[Topic.BLOCKS].answer == "yes"


def test_a_full_dump_in_name_without_its_heaps_answers_nothing_about_blocks(open_built: OpenBuilt) -> None:
    built = process().build()
    with open_built(without_memory(built, (HEAP + 0x1000, HEAP + 0x400000))) as snapshot:
        found = asked(snapshot)[Topic.BLOCKS]
        assert found.answer == "partly"
        assert "4,096 of" in found.reason
        assert found.capture is not None and found.capture.command == 'procdump -mc 1b01 "my app.exe"'
    with open_built(without_memory(built, (HEAP, HEAP + 0x400000))) as snapshot:
        assert asked(snapshot)[Topic.BLOCKS].answer == "no"


def test_each_question_names_the_smallest_capture_with_a_size(open_built: OpenBuilt) -> None:
    built = process().build()
    with open_built(without_memory(built, (HEAP, HEAP + 0x400000))) as snapshot:
        answers = asked(snapshot)
        blocks, stacks, crash = (answers[topic].capture for topic in (Topic.BLOCKS, Topic.STACKS, Topic.CRASH))
        assert blocks is not None and stacks == blocks and crash is not None
        regions = snapshot.process.regions
        heap = regions.committed_bytes(snapshot.heaps[0].extents[0].span) if snapshot.heaps[0].extents else 0x1000
        assert blocks.estimated_bytes is not None and crash.estimated_bytes is not None
        assert heap < blocks.estimated_bytes < sum(regions.size[regions.state == 0x1000].tolist())
        assert crash.estimated_bytes < blocks.estimated_bytes
        assert crash.command == 'procdump -e -mm "my app.exe"'
        assert answers[Topic.STACKS].before == 'gflags /i "my app.exe" +ust'
    with open_built(without_memory(without_stream(built, 16), (0, 1 << 63))) as snapshot:
        answers = asked(snapshot)
        where = answers[Topic.MEMORY_MAP].capture
        assert where is not None and where.command == 'procdump -mc 1900 "my app.exe"'
        unknown = answers[Topic.BLOCKS].capture
        assert unknown is not None and unknown.estimated_bytes is None


def test_info_gives_questions_ids_and_commands_that_can_be_pasted(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "small.dmp"
    path.write_bytes(without_memory(process().build(), (HEAP, HEAP + 0x400000)))
    assert run(["info", str(path), "--json", "-q"]) in (0, 4)
    questions = json.loads(capfd.readouterr().out)["data"]["questions"]
    assert [one["id"] for one in questions] == ["memory_map", "heaps", "blocks", "stacks", "crash", "modules"]
    by_id = {one["id"]: one for one in questions}
    assert by_id["blocks"]["capture"] == 'procdump -mc 1b01 "my app.exe"'
    assert by_id["blocks"]["estimated_bytes"] > 0
    assert by_id["memory_map"]["capture"] is None
    assert run(["info", str(path), "-q"]) in (0, 4)
    assert 'procdump -mc 1b01 "my app.exe"\n' in capfd.readouterr().out


def leaky(*, flags: int | None = None, wiped: bool = False) -> bytes:
    """A block that only a stack holds; `wiped`: as Breakpad's sanitizer leaves a stack."""
    heap = NtHeapBuilder(base=HEAP)
    held = heap.busy(40)
    made = ProcessBuilder().heap(heap.build()).thread(8, content=word(held) + bytes(0xF8))
    built = made.build()
    if wiped:
        sp = made.plan.stacks + 0x100000 - 0x400
        built = poke(built, (sp, (0x0DEFACED0DEFACED).to_bytes(8, "little") * 32))
    return built.data if flags is None else with_flags(built.data, flags)


@pytest.mark.parametrize("command", ["leaks --unreachable", "retained", "summary", "triage"])
@pytest.mark.parametrize("options", [{"flags": 0x182E}, {"wiped": True}], ids=["flag", "pattern"])
def test_filtered_stacks_are_a_caveat_on_everything_that_uses_them_as_roots(
    tmp_path: Path, capfd: Capture, command: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "filtered.dmp"
    path.write_bytes(leaky(**options))
    name, *rest = command.split()
    code = run([name, str(path), *rest, "--no-cache"])
    captured = capfd.readouterr()
    if name in ("leaks", "retained"):
        assert code == 4
        assert "the writer removed pointers to data from the stacks" in captured.err
    else:
        assert "filtered stacks" in captured.out
        assert "no pointer" not in captured.out


def test_stacks_as_they_are_have_no_such_caveat(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "plain.dmp"
    path.write_bytes(leaky())
    assert run(["leaks", str(path), "--unreachable", "--no-cache"]) == 0
    assert "removed pointers" not in capfd.readouterr().err
