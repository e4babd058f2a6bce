"""What `summary` and `triage` say of the pointer graph: where it is cheap, where it is kept, where neither."""

from __future__ import annotations

import json
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import pytest

from heapdump import cli
from heapdump.commands import summary, triage
from heapdump.snapshot import Snapshot, open_dump
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import poke, without_memory, word


def run(*arguments: str) -> str:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()):
        cli.run([*arguments])
    return out.getvalue()


def words(output: str) -> str:
    return " ".join(output.split())


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """Its data holds a block of 80 bytes, that one ten of 200,000; nobody holds a block of 40 bytes, and that another one."""
    heap = NtHeapBuilder(base=0x20000000000, reserve=0x400000)
    holder, leaked, below = heap.busy(80), heap.busy(40), heap.busy(40)
    held = [heap.busy(200_000) for _ in range(10)]
    process = ProcessBuilder().thread(7).heap(heap.build())
    links = [(holder + 8 * i, word(block)) for i, block in enumerate(held)]
    data = poke(process.build(), (process.plan.exe + 0xC000 - 0x1000, word(holder)), (leaked, word(below)), *links).data
    path = tmp_path / "crash.dmp"
    path.write_bytes(data)
    return path


def statements(path: Path) -> list[str]:
    return [holder["text"] for holder in json.loads(run("triage", str(path), "--json"))["data"]["who"]]


def test_summary_and_triage_tell_what_is_lost_and_what_holds_most(dump):
    found = json.loads(run("summary", str(dump), "--json", "--no-cache"))["data"]
    assert found["unreachable"] == {"blocks": 2, "bytes": 80, "direct_blocks": 1, "is_whole": True}
    assert any("retains 1.9 MB" in line and f"heapdump retained {dump} 0x" in line for line in found["findings"])
    assert (
        f"2 blocks (80 bytes) are unreachable, 1 of them directly leaked → heapdump leaks {dump} --unreachable"
        in words(run("summary", str(dump), "--no-cache"))
    )
    said = statements(dump)
    assert "2 blocks (80 bytes) are unreachable, 1 of them directly leaked" in said
    assert any("retains 1.9 MB (100%) in 11 blocks" in text for text in said)


def test_what_is_not_cheap_is_not_swept_whatever_the_index_holds(dump, monkeypatch):
    monkeypatch.setenv("HEAPDUMP_CACHE", str(dump.parent / "cache"))
    monkeypatch.setattr(summary, "_CHEAP", 1 << 20)
    monkeypatch.setattr(triage, "_CHEAP", 1 << 20)
    for _ in range(2):
        assert json.loads(run("summary", str(dump), "--json"))["data"]["unreachable"] is None
        assert "unreachable" not in run("summary", str(dump))
        assert [holder["kind"] for holder in json.loads(run("triage", str(dump), "--json"))["data"]["who"]] == ["group"]
        run("leaks", str(dump), "--unreachable")
        assert list((dump.parent / "cache").rglob("graph.targets"))


def test_of_a_damaged_heap_nothing_is_called_lost_for_certain(dump):
    with open_dump(dump) as snapshot:
        entry = int(snapshot.walk.table.entry[-2])
        space = snapshot.process.space
        place = space.mapped.file_place(Span(entry, entry + 16))
    assert place is not None
    data = bytearray(dump.read_bytes())
    data[place + 8 : place + 16] = b"Z" * 8
    dump.write_bytes(data)
    found = json.loads(run("summary", str(dump), "--json", "--no-cache"))["data"]["unreachable"]
    assert found["is_whole"] is False


def test_without_the_memory_of_roots_nothing_is_called_lost(tmp_path, dump):
    with open_dump(dump) as snapshot:
        stack = snapshot.process.threads[0].stacks[0]
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(40)
    built = ProcessBuilder().thread(7).heap(heap.build()).build()
    path = tmp_path / "partial.dmp"
    path.write_bytes(without_memory(built, (stack.limit, stack.base)))
    found = json.loads(run("summary", str(path), "--json", "--no-cache"))["data"]["unreachable"]
    assert (found["blocks"], found["is_whole"]) == (1, False)
    assert "directly leaked; but part of what could hold them is missing or damaged" in words(
        run("summary", str(path), "--no-cache")
    )


ASKED = [("leaks", "--unreachable"), ("leaks", "--unreachable", "--group-by", "size"), ("retained",), ("summary",)]


@pytest.mark.parametrize("question", ASKED, ids=" ".join)
def test_a_second_question_finds_the_finished_answer(dump, monkeypatch, question):
    monkeypatch.setenv("HEAPDUMP_CACHE", str(dump.parent / "cache"))
    first, *options = question
    plain = json.loads(run(first, str(dump), *options, "--json", "--no-cache"))
    before = json.loads(run(first, str(dump), *options, "--json"))
    for name in ("unreachable_report._sums", "leak_suspects.SuspectFinder.suspect"):
        monkeypatch.setattr(f"heapdump.analyses.graph.{name}", never)
    if first != "summary":
        monkeypatch.setattr(Snapshot, "graph", property(never))
    again = json.loads(run(first, str(dump), *options, "--json"))
    assert again["data"] == before["data"] == plain["data"]
    assert (again["complete"], again["notes"]) == (before["complete"], before["notes"])


def never(*arguments, **options):
    raise AssertionError("found again")


def test_a_finished_answer_is_not_the_answer_to_another_question(dump, monkeypatch):
    monkeypatch.setenv("HEAPDUMP_CACHE", str(dump.parent / "cache"))
    run("leaks", str(dump), "--unreachable", "--json")
    for options in (["--size", "90"], ["--min-bytes", "1M"], ["--lsan-compat"], ["--use-unaligned"]):
        asked = ["leaks", str(dump), "--unreachable", *options]
        assert run(*asked) == run(*asked, "--no-cache")
    assert (
        json.loads(run("leaks", str(dump), "--unreachable", "--size", "90", "--json"))["data"]["direct"]["blocks"] == 0
    )
    assert json.loads(run("leaks", str(dump), "--unreachable", "--report-objects", "--json"))["data"]["objects"]
