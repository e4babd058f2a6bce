"""`check` and `triage`: exit codes, records, reports, SARIF, filters."""

from __future__ import annotations

import json
import shlex
import struct
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.render.sarif import sarif_document
from tests.builders import BuiltHeap, NtHeapBuilder, ProcessBuilder
from tests.heaps.segment.test_damaged_heaps import built
from tests.patching import poke
from tests.process.stacks.test_trace_database import RECORDS, UST, record

HEAP = 0x20000000000
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def heap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuiltHeap:
    """The truth of a heap; `write` puts its dump, changed or not, as the only one in the current folder."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    builder = NtHeapBuilder(base=HEAP)
    for size in (90, 40, 24, 300, 64):
        builder.busy(size)
    builder.free(20)
    builder.busy(16)
    return builder.build()


def write(heap: BuiltHeap, *changes: tuple[int, bytes]) -> None:
    Path("crash.dmp").write_bytes(poke(ProcessBuilder().heap(heap).build(), *changes).data)


def overrun(heap: BuiltHeap) -> tuple[int, bytes]:
    """The third block runs over the header of the fourth."""
    candidate, victim = heap.truth.busy[2], heap.truth.busy[3]
    end = candidate.user + candidate.size
    return end, b"Z" * (victim.user - end)


def ask(capfd: Capture, *arguments: str, code: int) -> Any:
    assert run([*arguments, "--json", "-q"]) == code
    return json.loads(capfd.readouterr().out)["data"]


def test_a_healthy_heap_is_clean(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap)
    assert ask(capfd, "check", code=0) == []
    assert run(["check"]) == 0
    assert capfd.readouterr().out.startswith("no damage found: 1 heap with ")
    assert "no damage found in 1 heap" in json.dumps(ask(capfd, "triage", code=0))
    assert ask(capfd, "summary", code=0)["verdict"] == "no damage found in 1 heap"


def test_explain_says_once_which_damage_to_a_segment_heap_cannot_be_seen(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("crash.dmp").write_bytes(built(("x64", 19041))[0].data)
    assert run(["check", "--explain"]) == 0
    page = capfd.readouterr().out
    assert page.count("is not seen") == 1 and "in busy bits of LFH blocks, where as many stay set" in " ".join(
        page.split()
    )
    assert run(["check"]) == 0 and "is not seen" not in capfd.readouterr().out


def test_an_overrun_is_told_with_victim_culprit_and_evidence(heap: BuiltHeap, capfd: Capture) -> None:
    start, data = overrun(heap)
    write(heap, (start, data))
    (record,) = ask(capfd, "check", code=1)
    candidate, victim = heap.truth.busy[2], heap.truth.busy[3]
    assert (record["kind"], record["severity"], record["heap"]) == ("entry_header", "error", hex(HEAP))
    assert int(record["address"], 16) >= victim.entry + 8
    assert record["culprit"]["address"] == hex(candidate.user)
    evidence = record["evidence"]
    assert evidence["bug"] == "heap-buffer-overflow"
    assert "0x5a repeated, 'Z'" in evidence["looks_like"]
    assert evidence["reaches"][0] == hex(start)
    assert evidence["candidates"][0]["block"]["address"] == hex(candidate.user)
    assert bytes.fromhex(evidence["memory"]["bytes"]).count(b"Z") >= 8
    assert set(record) == {
        "id", "kind", "severity", "heap", "block", "address", "length", "message", "expected", "found", "culprit",
        "frames", "evidence", "bug", "incident", "access",
    }  # fmt: skip


def test_the_report_reads_like_addresssanitizers(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    assert run(["check", "-q"]) == 1
    out = capfd.readouterr().out
    candidate = heap.truth.busy[2]
    assert "==4242==ERROR: heapdump: heap-buffer-overflow on address 0x" in out
    assert f"after 24-byte region [{candidate.user:#x},{candidate.user + 24:#x})" in out
    assert "candidates, likeliest first:" in out
    assert "=>20" in out and "a 24-byte busy block" in out
    assert "SUMMARY: heapdump: heap-buffer-overflow" in out
    assert "\x1b" not in out


@pytest.mark.parametrize(
    ("kind", "bug", "candidate"), [(8, "heap-buffer-overflow", None), (6, "heap-buffer-overflow", 2)]
)
def test_ntdlls_record_blames_the_block_before_only_for_an_overrun(
    heap: BuiltHeap, capfd: Capture, kind: int, bug: str, candidate: int | None
) -> None:
    """The third block's last 8 bytes lie in the header of the fourth, which is damaged: no second free (type 8)."""
    victim, place = heap.truth.busy[3], 0x50000000
    record = struct.pack("<QIIQQ", 0, kind, 0, HEAP, victim.entry) + bytes(0x200)
    process = ProcessBuilder().heap(heap).region(place, 0x1000).memory(place, record).thread(99)
    process.dump.exception(99, 0xC0000374, 0x401000, (place,))
    Path("crash.dmp").write_bytes(poke(process.build(), overrun(heap)).data)
    found = {record["kind"]: record for record in ask(capfd, "check", code=1)}["failure_record"]
    assert found["evidence"]["bug"] == bug
    assert (found["culprit"] and found["culprit"]["address"]) == (
        None if candidate is None else hex(heap.truth.busy[candidate].user)
    )
    assert found["message"].endswith(f", at {victim.entry:#x} of heap {HEAP:#x}")


def test_a_damaged_list_is_not_called_missing_memory(
    capfd: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    builder = NtHeapBuilder(base=HEAP)
    builder.busy(90)
    node = builder.virtual(0x30000000, 0x80000) - 0x40
    write(builder.build(), (node, b"\xef\xbe" + bytes(6)))
    assert run(["check", "--json", "-q"]) == 1
    notes = [note for note in json.loads(capfd.readouterr().out)["notes"] if "were not compared" in note]
    assert notes == [
        f"heap {HEAP:#x}: one of its own lists is damaged or not in the dump: its lists and counts were not compared"
    ]


def test_a_dump_without_heaps_says_so_beside_its_exception(capfd: Capture, tmp_path: Path) -> None:
    process = ProcessBuilder().thread(99)
    process.dump.exception(99, 0xC0000005, 0x401000, (0, 0x10))
    process.write(tmp_path / "crash.dmp")
    assert run(["check", str(tmp_path / "crash.dmp"), "-q"]) in (0, 4)
    out = capfd.readouterr().out
    assert out.startswith(
        "nothing could be examined: this dump holds no heap's memory\n\n1 incident: 0 errors, 1 warning\n"
    )


def test_filters_and_sorting(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    candidate = heap.truth.busy[2]
    assert len(ask(capfd, "check", "--heap", hex(HEAP), code=1)) == 1
    assert len(ask(capfd, "check", "--address", hex(candidate.user), code=1)) == 1
    assert ask(capfd, "check", "--kind", "tail_fill", code=4) == []
    assert ask(capfd, "check", "--address", hex(heap.truth.busy[0].user), code=4) == []
    assert run(["check", "--heap", "0x1234"]) == 2


def test_the_id_is_the_same_for_the_same_bug_elsewhere(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    (one,) = ask(capfd, "check", code=1)
    other = NtHeapBuilder(base=HEAP + 0x10000000)
    for size in (500, 90, 40, 24, 300, 64):
        other.busy(size)
    built = other.build()
    candidate, victim = built.truth.busy[3], built.truth.busy[4]
    end = candidate.user + candidate.size
    write(built, (end, b"Y" * (victim.user - end)))
    (two,) = ask(capfd, "check", code=1)
    assert one["id"] == two["id"]


def test_sarif(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    (record,) = ask(capfd, "check", "--sarif", "check.sarif", code=1)
    document = json.loads(Path("check.sarif").read_text())
    assert (document["version"], document["$schema"].rpartition("/")[2]) == ("2.1.0", "sarif-2.1.0.json")
    (sarif_run,) = document["runs"]
    (result,) = sarif_run["results"]
    assert (result["ruleId"], result["level"]) == ("heap-buffer-overflow", "error")
    assert result["partialFingerprints"] == {"heapdump/1": record["id"]}
    assert [rule["id"] for rule in sarif_run["tool"]["driver"]["rules"]] == ["heap-buffer-overflow"]
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "crash.dmp"
    assert place["address"]["absoluteAddress"] == int(record["address"], 16)


def test_ids_in_sarif_are_those_of_the_json_however_it_is_sorted(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    (record,) = ask(capfd, "check", "--sarif", "check.sarif", "--sort", "address", code=1)
    (result,) = json.loads(Path("check.sarif").read_text())["runs"][0]["results"]
    assert result["partialFingerprints"] == {"heapdump/1": record["id"]}


@pytest.mark.parametrize(
    ("path", "uri"),
    [
        ("my dump #1 50%.dmp", "my%20dump%20%231%2050%25.dmp"), ("c:x.dmp", "c%3Ax.dmp"),
        ("C:\\src\\a b.c", "file:///C:/src/a%20b.c"), ("\\\\server\\src\\a.c", "file://server/src/a.c"), ("src/a.c", "src/a.c"),
        ("\udcff.dmp", "%3F.dmp"),
    ],
)  # fmt: skip
def test_paths_in_sarif_are_uris(path: str, uri: str) -> None:
    frame = {"address": "0x10", "module": "m", "symbol": "f", "offset": 0, "file": path, "line": 3, "trust": "exact"}
    record = {
        "id": "1", "kind": "tail_fill", "severity": "error", "address": "0x20", "length": 1, "message": "m", "frames": [frame],
        "bug": None, "incident": 1,
    }  # fmt: skip
    (result,) = json.loads(sarif_document([record], {}, "1", path))["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"] == {"uri": uri}
    assert result["stacks"][0]["frames"][0]["location"]["physicalLocation"]["artifactLocation"] == {"uri": uri}


def test_triage_answers_in_one_order_with_commands_that_can_be_pasted(heap: BuiltHeap, capfd: Capture) -> None:
    write(heap, overrun(heap))
    page = ask(capfd, "triage", code=4)
    assert [*page] == ["crash", "hang", "heap", "memory", "who", "cannot", "next"]
    assert [incident["bug"] for incident in page["heap"]["incidents"]] == ["heap-buffer-overflow"]
    assert page["next"][0].startswith("heapdump check ")
    for words in (*page["next"], *(holder["command"] for holder in page["who"])):
        assert run([*shlex.split(words)[1:], "-q", "--json"]) in (0, 1, 4), words
        capfd.readouterr()
    assert ask(capfd, "summary", code=4)["verdict"] == "1 damaged place found in 1 heap"
    assert ask(capfd, "heap", hex(HEAP), code=4)["verdict"] == "1 damaged place found in 1 heap"


def test_an_exception_is_told_with_the_stack_that_raised_it_and_registers_of_its_own_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    builder = NtHeapBuilder(base=HEAP)
    user = builder.busy(64)
    builder.busy(8)
    process = ProcessBuilder().heap(builder.build())
    process.thread(77, registers={"rbx": user + 24})  # later, in the code that writes the dump
    process.dump.exception(77, 0xC0000005, 0x401000, (0, 0xFFFFFFFFFFFFFFFF), registers={"rbx": user + 8})
    Path("crash.dmp").write_bytes(process.build().data)
    (record,) = ask(capfd, "check", code=0)
    assert (record["kind"], record["severity"]) == ("exception", "warning")
    assert f"rbx points +0x8 into the block at {user:#x}" in record["message"]
    assert record["evidence"]["registers"][0]["block"] == hex(user)


def test_other_places_beside_blocks_of_the_same_stack_are_counted(
    tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stacks = [(0x66001234, 0x67002010), (0x66001234, 0x67002200)]
    builder = NtHeapBuilder(base=HEAP, flags=UST)
    for size, stack in ((100, 0), (200, 0), (300, 1), (400, 0)):
        builder.busy(size, trace=RECORDS + 0x100 * stack)
        for between in (24, 40, 40, 40):
            builder.busy(between, trace=RECORDS)
    heap = builder.build()
    process = ProcessBuilder().heap(heap).region(RECORDS, 0x1000)
    process.memory(
        RECORDS, b"".join(record("x64", frames).ljust(0x100, b"\0") for frames in stacks).ljust(0x1000, b"\0")
    )
    pairs = [(before, own) for before, own in pairwise(heap.truth.busy) if own.size == 24]
    changes = [(end := before.user + before.size, b"Z" * (own.user - end)) for before, own in pairs]
    Path("crash.dmp").write_bytes(poke(process.build(), *changes).data)
    found = ask(capfd, "check", code=1)
    assert [one["culprit"]["size"] for one in found] == [100, 200, 300, 400]
    assert [(one["evidence"]["alike"], one["evidence"]["alike_stack"]) for one in found] == [
        (0, 2),
        (0, 2),
        (0, 0),
        (0, 2),
    ]
    assert run(["check"]) == 1
    assert "2 other places with the same damage beside a block allocated by the same stack" in capfd.readouterr().out
