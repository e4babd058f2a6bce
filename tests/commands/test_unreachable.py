"""`leaks --unreachable` on built processes: report, objects, suppressions and their roots, LeakSanitizer's words, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from heapdump.analyses.allocated.group_key import GroupKey
from heapdump.analyses.graph.stored_unreachable import columns_of, from_columns
from heapdump.analyses.graph.unreachable import Reach
from heapdump.analyses.graph.unreachable_report import BlockSum, UnreachableReport
from heapdump.snapshot import Snapshot, open_dump
from tests.asking import ask
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.commands.test_leaks import run
from tests.patching import poke, word
from tests.process.stacks.test_trace_database import RECORDS, UST, record

NTDLL, PROGRAM = 0x66001234, 0x67002000
STACKS = {"cache": (NTDLL, PROGRAM + 0x10, PROGRAM + 0x900), "load": (NTDLL, PROGRAM + 0x200, PROGRAM + 0x900)}


@pytest.fixture
def dump(tmp_path: Path) -> tuple[str, dict[str, int]]:
    """Blocks that lose each other: head → tail, a circle of two, one held, one held inside only, another two lost."""
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    names = ("held", "inside", "head", "tail", "ring", "gnir", "own", "held by own")
    at = {name: heap.busy(100 + i, trace=RECORDS + 0x100 * (i < 6)) for i, name in enumerate(names)}
    process = ProcessBuilder().heap(heap.build())
    for base, name in ((0x66000000, "msvcrt.dll"), (0x67000000, "vision.dll")):
        process.module(base, 0x10000, rf"C:\acme\{name}")
    process.region(RECORDS, 0x1000)
    process.memory(
        RECORDS, b"".join(record("x64", frames).ljust(0x100, b"\0") for frames in STACKS.values()).ljust(0x1000, b"\0")
    )
    data = process.plan.exe + 0xC000 - 0x1000
    built = poke(
        process.build(), (data, word(at["held"])), (data + 8, word(at["inside"] + 5)), (at["head"], word(at["tail"])),
        (at["ring"], word(at["gnir"])), (at["gnir"] + 8, word(at["ring"])), (at["own"], word(at["own"]) + word(at["held by own"])),
    )  # fmt: skip
    path = tmp_path / "lost.dmp"
    path.write_bytes(built.data)
    return str(path), at


def data_of(*arguments: str) -> dict[str, Any]:
    result = run(*arguments, "--unreachable", "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)["data"]


def leak_kinds(data: dict[str, Any], at: dict[str, int]) -> dict[str, str]:
    names = {hex(address): name for name, address in at.items()}
    return {names[found["address"]]: found["kind"] for found in data["objects"]}


def test_every_block_has_its_kind_and_circles_are_told_once(dump):
    path, at = dump
    data = data_of(path, "--report-objects")
    assert leak_kinds(data, at) == {
        "inside": "possible", "head": "direct", "tail": "indirect", "ring": "direct", "gnir": "indirect", "own": "direct", "held by own": "indirect",
    }  # fmt: skip
    assert data["direct"] == {"blocks": 3, "bytes": 102 + 104 + 106}
    assert data["indirect"] == {"blocks": 3, "bytes": 103 + 105 + 107}
    assert (data["possible"], data["reachable"]) == ({"blocks": 1, "bytes": 101}, {"blocks": 1, "bytes": 100})
    assert data["cycles"] == [{"blocks": 2, "bytes": 209, "members": [hex(at["ring"]), hex(at["gnir"])]}]
    assert [(g["kind"], g["count"], g["bytes"]) for g in data["groups"]] == [
        ("direct", 2, 206), ("direct", 1, 106), ("indirect", 2, 208), ("indirect", 1, 107), ("possible", 1, 101),
    ]  # fmt: skip
    assert "objects" not in data_of(path)


def test_the_finished_answer_has_cycles_and_limits_without_the_graph(dump, tmp_path, monkeypatch):
    path, _ = dump
    asked, cache = (["leaks", path, "--unreachable"], ["leaks", path, "--unreachable", "--json"]), tmp_path / "cache"
    plain = [ask(cache, [*call, "--no-cache"]) for call in asked]
    assert [ask(cache, call) for call in asked] == plain
    monkeypatch.setattr(Snapshot, "graph", property(lambda _: pytest.fail("the graph is not needed")))
    assert [ask(cache, call) for call in asked] == plain
    assert "reference cycle of 2 blocks: " in plain[0].stdout


@pytest.mark.parametrize("lengths", [[0, 2], [3], [2, 1], [-1, 3], []])
def test_stored_cycles_that_do_not_fit_are_refused(lengths):
    report = UnreachableReport(
        {reach: BlockSum(0, 0) for reach in Reach}, (), GroupKey.TYPE, "", (np.array([4, 6], np.int64),)
    )
    columns = columns_of(report)
    again = from_columns(columns, 1, lambda: 7)
    assert [one.tolist() for one in again.cycles] == [[4, 6]] and replace(again, cycles=()) == replace(
        report, cycles=()
    )
    with pytest.raises(ValueError, match="out of range"):
        from_columns(columns, 1, lambda: 6)
    with pytest.raises(ValueError):
        from_columns(columns | {"lengths": np.array(lengths, np.int64)}, 1, lambda: 7)


def test_filters_leave_blocks_out_of_everything(dump):
    path, at = dump
    data = data_of(path, "--report-objects", "--size", "102..103", "--group-by", "size")
    assert leak_kinds(data, at) == {"head": "direct", "tail": "indirect"}
    assert (data["reachable"]["blocks"], data["cycles"]) == (0, [])
    assert [g["key"] for g in data["groups"]] == ["102 bytes", "103 bytes"]


def test_what_suppressed_blocks_hold_is_suppressed_with_them(dump, tmp_path):
    path, _ = dump
    rules = tmp_path / "known.txt"
    rules.write_text("leak:vision.dll\nleak:nowhere\n")
    data = data_of(path, "--suppressions", str(rules), "--report-objects")
    assert (data["direct"]["blocks"], data["indirect"]["blocks"]) == (0, 0)
    assert data["suppressed"] == [{"rule": "leak:vision.dll", "count": 6, "bytes": 627}]
    text = run(path, "--unreachable", "--suppressions", str(rules)).stdout
    assert (
        "suppressed by leak:vision.dll: 6 blocks with 627 B" in text
        and "suppression leak:nowhere matched nothing" in text
    )


def test_a_suppressed_stack_is_a_root_for_other_stacks(tmp_path):
    """The check runs again: what another stack's blocks are held by is no leak once that is suppressed."""
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    first, second, third = (heap.busy(64, trace=RECORDS + 0x100 * i) for i in (0, 1, 1))
    process = (
        ProcessBuilder()
        .heap(heap.build())
        .module(0x67000000, 0x10000, r"C:\acme\one.dll")
        .module(0x68000000, 0x10000, r"C:\acme\two.dll")
    )
    stacks = [(0x67000010,), (0x68000020,)]
    process.region(RECORDS, 0x1000)
    process.memory(
        RECORDS, b"".join(record("x64", frames).ljust(0x100, b"\0") for frames in stacks).ljust(0x1000, b"\0")
    )
    path = tmp_path / "x.dmp"
    path.write_bytes(poke(process.build(), (first, word(second))).data)
    rules = tmp_path / "rules.txt"
    rules.write_text("leak:^one.dll$\n")
    data = data_of(str(path), "--suppressions", str(rules), "--report-objects")
    assert [(o["address"], o["kind"]) for o in data["objects"]] == [(hex(third), "direct")]
    assert data["suppressed"] == [{"rule": "leak:^one.dll$", "count": 1, "bytes": 64}]


def test_leak_sanitizers_own_report(dump, tmp_path):
    path, at = dump
    rules = tmp_path / "known.txt"
    rules.write_text("leak:vision.dll+nothing\n")
    result = run(path, "--unreachable", "--lsan-compat", "--report-objects")
    assert result.exit_code == 23
    assert result.stdout.startswith(
        f"\n{'=' * 65}\n==4242==ERROR: LeakSanitizer: detected memory leaks\n\nDirect leak of 106 byte(s) in 1 object(s) allocated from:\n    #0 0x66001234"
    )
    assert f"Objects leaked above:\n{at['own']:#x} (106 bytes)\n\n" in result.stdout
    assert result.stdout.endswith("SUMMARY: LeakSanitizer: 627 byte(s) leaked in 6 allocation(s).\n")
    assert "Indirect leak of 312 byte(s) in 3 object(s)" in result.stdout  # tail and both of the circle
    top = run(path, "--unreachable", "--lsan-compat", "--max-leaks", "1", "--exitcode", "5")
    assert top.exit_code == 5
    assert "The 1 top leak(s):\n" in top.stdout and "Omitting 3 more leak(s).\n" in top.stdout
    rules.write_text("leak:vision\n")
    used = run(path, "--unreachable", "--lsan-compat", "--suppressions", str(rules))
    assert used.exit_code == 0
    assert (
        used.stdout
        == f"{'-' * 53}\nSuppressions used:\n  count      bytes template\n      6        627 vision\n{'-' * 53}\n\n"
    )
    assert (
        run(path, "--unreachable", "--lsan-compat", "--suppressions", str(rules), "--no-print-suppressions").stdout
        == ""
    )


def test_the_table_says_what_the_kinds_mean_and_what_is_not_seen(dump):
    path, at = dump
    text = run(path, "--unreachable", "--report-objects", "--max-leaks", "2").stdout
    assert "nothing points to them" in text and "RtlEncodePointer" in text
    assert f"reference cycle of 2 blocks: {at['ring']:#x}, {at['gnir']:#x}" in text
    assert f"{at['head']:#x}" in text and "3 more" in text
    assert run(path, "--unreachable", "--exitcode", "9").exit_code == 9


def test_options_that_need_the_check_are_refused_without_it(dump):
    path, _ = dump
    for options in (
        ["--max-leaks", "3"],
        ["--report-objects"],
        ["--use-unaligned"],
        ["--exitcode", "1"],
        ["--lsan-compat"],
    ):
        assert run(path, *options).exit_code == 2
    assert run(path, "--unreachable", "--export", "folded").exit_code == 2


def test_a_pointer_at_an_odd_address_counts_when_asked_for(dump, tmp_path):
    path, at = dump
    with open_dump(path, use_index=False) as snapshot:
        module = snapshot.process.module_map.at(snapshot.process.views[0].peb_fields["ImageBaseAddress"])
        assert module is not None
        plan_data = module.span.end - 0x1000
        offset = snapshot.process.space.mapped.file_offsets
        i = int((snapshot.process.space.mapped.starts <= plan_data).sum()) - 1
        place = int(offset[i]) + plan_data - int(snapshot.process.space.mapped.starts[i])
    data = bytearray(Path(path).read_bytes())
    data[place + 0x13 : place + 0x1B] = word(at["head"])
    shifted = tmp_path / "odd.dmp"
    shifted.write_bytes(data)
    assert "head" in leak_kinds(data_of(str(shifted), "--report-objects"), at)
    assert not {"head", "tail"} & set(leak_kinds(data_of(str(shifted), "--report-objects", "--use-unaligned"), at))


def test_missing_evidence_is_said(tmp_path):
    """A dump without the program's writable data: what only global variables hold looks leaked."""
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(64)
    process = ProcessBuilder().heap(heap.build())
    process.region(0x30000000, 0x10000)
    process.memory(0x30000000, bytes(0x1000))
    path = tmp_path / "part.dmp"
    path.write_bytes(process.build().data)
    result = run(str(path), "--unreachable", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert not document["complete"]
    assert "of other writable memory are not in the dump: what only they hold looks leaked" in " ".join(
        document["notes"]
    )


def total(data: dict[str, Any]) -> int:
    return sum(data[kind]["blocks"] for kind in ("direct", "indirect", "possible", "reachable", "suppressed_total"))


def test_suppressions_take_leaks_away_and_nothing_else(dump, tmp_path):
    path, _ = dump
    rules = tmp_path / "known.txt"
    rules.write_text("leak:vision.dll+0x2000\n")
    before, after = data_of(path), data_of(path, "--suppressions", str(rules))
    assert total(before) == total(after) == 8 and before["suppressed_total"]["blocks"] == 0
    assert (after["possible"], after["reachable"]) == (before["possible"], before["reachable"])
    rules.write_text("leak:vision.dll\n")
    data = data_of(path, "--suppressions", str(rules))
    assert (total(data), data["suppressed_total"]) == (8, {"blocks": 6, "bytes": 627})
    assert (data["possible"], data["reachable"]) == (before["possible"], before["reachable"])
    one = data_of(path, "--suppressions", str(rules), "--size", "102")
    assert (one["suppressed_total"]["blocks"], one["suppressed"][0]["count"], total(one)) == (1, 1, 1)


def test_groups_that_are_left_out_are_said_and_no_leaks_of_the_report(dump):
    path, _ = dump
    for options in (["--focus", "nowhere"], ["--min-bytes", "1M"], ["--ignore", "."]):
        text = run(path, "--unreachable", *options).stdout
        assert "no matching groups of leaked blocks" in text and "every block is held" not in text
        assert "left out: 7 blocks with 728 B in groups that are smaller, or not asked for" in text
        found = run(path, "--unreachable", *options, "--lsan-compat")
        assert (found.exit_code, found.stdout) == (0, "")
    largest = run(path, "--unreachable", "--min-bytes", "200", "--lsan-compat").stdout
    assert largest.endswith("SUMMARY: LeakSanitizer: 312 byte(s) leaked in 3 allocation(s).\n")


def test_leak_sanitizers_frames_lie_in_modules_and_hold_no_control_characters(tmp_path):
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    heap.busy(64, trace=RECORDS)
    process = ProcessBuilder().heap(heap.build()).module(0x67000000, 0x10000, "C:\\acme\\one\x1b[31m\n.dll")
    process.region(RECORDS, 0x1000).memory(RECORDS, record("x64", (0x67000010, 0x300)).ljust(0x1000, b"\0"))
    path = tmp_path / "x.dmp"
    path.write_bytes(process.build().data)
    text = run(str(path), "--unreachable", "--lsan-compat").stdout
    assert r"    #0 0x67000010  (one\x1b[31m\x0a.dll+0x10)" in text and "    #1 0x300  (<unknown module>)" in text
    assert text.replace("\n", "").isprintable()


def test_objects_are_the_records_where_they_are_asked_for(dump):
    path, _ = dump
    rows = run(path, "--unreachable", "--report-objects", "--format", "csv").stdout.splitlines()
    assert rows[0] == "address,size,kind" and len(rows) == 8
    assert len(run(path, "--unreachable", "--report-objects", "--format", "jsonl").stdout.splitlines()) == 7
    assert run(path, "--unreachable", "--lsan-compat", "--json").exit_code == 2


def test_stacks_of_groups_are_shown(dump):
    path, _ = dump
    assert "#1  206 B in 2 blocks, such as 0x" in run(path, "--unreachable").stdout
    assert "msvcrt.dll+0x1234" in run(path, "--unreachable", "--full-stacks").stdout


@pytest.mark.parametrize("options", [[], ["--unreachable"]])
def test_suppressions_without_stacks_are_said_to_do_nothing(tmp_path, options):
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(64)
    path, rules = tmp_path / "x.dmp", tmp_path / "rules.txt"
    path.write_bytes(ProcessBuilder().heap(heap.build()).build().data)
    rules.write_text("leak:x\n")
    found = run(str(path), *options, "--suppressions", str(rules))
    assert found.exit_code == 4 and "none are recorded in this dump: nothing was suppressed" in found.stderr


def test_what_a_kind_means_is_whole_at_80_columns(dump, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    (direct,) = (line for line in run(dump[0], "--unreachable").stdout.splitlines() if line.startswith("direct  "))
    assert direct.endswith("nothing points to them, leaked cycles apart")


def test_lsans_environment_counts_for_its_report_where_nothing_is_typed(dump, tmp_path, monkeypatch):
    path, _ = dump
    rules = tmp_path / "known leaks.txt"
    rules.write_text("leak:vision\n")
    monkeypatch.setenv("LSAN_OPTIONS", f'exitcode=7:max_leaks=1,suppressions="{tmp_path / "none.txt"}":verbosity=1')
    refused = run(path, "--unreachable", "--lsan-compat")
    assert refused.exit_code == 2
    plain = run(path, "--unreachable")
    assert plain.exit_code == 0 and "LSAN_OPTIONS" not in plain.stderr
    monkeypatch.setenv("LSAN_OPTIONS", "exitcode=7:max_leaks=1")
    found = run(path, "--unreachable", "--lsan-compat")
    assert found.exit_code == 7 and "LSAN_OPTIONS: exitcode=7, max_leaks=1" in found.stderr
    assert found.stdout == run(path, "--unreachable", "--lsan-compat", "--max-leaks", "1").stdout
    assert run(path, "--unreachable", "--lsan-compat", "--exitcode", "5").exit_code == 5
    monkeypatch.setenv("LSAN_OPTIONS", f'suppressions="{rules}" report_objects=1')
    typed = run(path, "--unreachable", "--lsan-compat", "--suppressions", str(rules), "--report-objects")
    assert run(path, "--unreachable", "--lsan-compat").stdout == typed.stdout


@pytest.mark.parametrize("flags", ["exitcode=256", "max_leaks=many", "report_objects=perhaps", "use_unaligned="])
def test_a_flag_of_lsans_environment_that_means_nothing_is_refused(dump, monkeypatch, flags):
    monkeypatch.setenv("LSAN_OPTIONS", flags)
    assert run(dump[0], "--unreachable", "--lsan-compat").exit_code == 2
