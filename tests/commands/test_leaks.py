"""`leaks` on built processes: by stack, caller, module, class, content, size; filters, suppressions, exit codes."""

from __future__ import annotations

import csv
import json
import struct
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from heapdump import cli
from heapdump.commands.common.leak_groups import short_key
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.process.stacks.test_trace_database import RECORDS, UST, record
from tests.render.test_profiles import read_log

NTDLL, PROGRAM, WRAP = 0x66001234, 0x67002000, 0x68003000
STACKS = {
    "run": (NTDLL, WRAP, PROGRAM + 0x10, PROGRAM + 0x900),
    "load": (NTDLL, WRAP + 0x20, PROGRAM + 0x200, PROGRAM + 0x900),
    "inner": (NTDLL, NTDLL + 8),
}
SIZES = {"run": [100, 200, 300], "load": [5000, 5000], "inner": [7]}


@pytest.fixture
def traced(tmp_path: Path) -> str:
    """Three stacks and a block without one."""
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    for number, name in enumerate(STACKS):
        for size in SIZES[name]:
            heap.busy(size, trace=RECORDS + 0x100 * number)
    heap.busy(50)
    built = ProcessBuilder().heap(heap.build())
    for base, name in ((0x66000000, "msvcrt.dll"), (0x67000000, "vision.dll"), (0x68000000, "mymalloc.dll")):
        built.module(base, 0x10000, rf"C:\acme\{name}")
    built.region(RECORDS, 0x1000)
    built.memory(
        RECORDS, b"".join(record("x64", frames).ljust(0x100, b"\0") for frames in STACKS.values()).ljust(0x1000, b"\0")
    )
    path = tmp_path / "ust.dmp"
    path.write_bytes(built.build().data)
    return str(path)


@dataclass
class Result:
    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: str) -> Result:
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        code = cli.run(["leaks", *arguments])
    return Result(code, out.getvalue(), err.getvalue())


def groups(*arguments: str) -> dict[str, tuple[int, int]]:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return {g["key"]: (g["count"], g["bytes"]) for g in json.loads(result.stdout)["data"]}


def test_by_stack_every_block_is_in_the_group_of_its_stack(traced):
    data = json.loads(run(traced, "--group-by", "stack", "--json").stdout)["data"]
    assert [(g["count"], g["bytes"], g["min_size"], g["max_size"]) for g in data] == [
        (2, 10000, 5000, 5000), (3, 600, 100, 300), (1, 50, 50, 50), (1, 7, 7, 7),
    ]  # fmt: skip
    assert [tuple(int(f["address"], 16) for f in g["frames"]) for g in data] == [
        STACKS["load"],
        STACKS["run"],
        (),
        STACKS["inner"],
    ]
    assert sum(g["share"] for g in data) == pytest.approx(1)
    assert [len(g["sample"]) for g in data] == [2, 3, 1, 1]
    assert {heap for g in data for heap in g["heaps"]} == {"0x20000000000"}


def test_by_caller_allocator_modules_are_passed_over(traced):
    assert groups(traced, "--group-by", "caller") == {
        "mymalloc.dll+0x3020": (2, 10000), "mymalloc.dll+0x3000": (3, 600), "no stack recorded": (1, 50), "only allocator frames": (1, 7),
    }  # fmt: skip
    assert groups(traced, "--group-by", "caller", "--skip-module", "MyMalloc") == {
        "vision.dll+0x2200": (2, 10000), "vision.dll+0x2010": (3, 600), "no stack recorded": (1, 50), "only allocator frames": (1, 7),
    }  # fmt: skip
    assert groups(traced, "--group-by", "module", "--skip-module", "mymalloc.dll")["vision.dll"] == (5, 10600)


def test_filters_choose_blocks_groups_and_stacks(traced):
    assert groups(traced, "--group-by", "size") == {
        "5,000 bytes": (2, 10000), "300 bytes": (1, 300), "200 bytes": (1, 200), "100 bytes": (1, 100), "50 bytes": (1, 50), "7 bytes": (1, 7),
    }  # fmt: skip
    assert set(groups(traced, "--group-by", "size", "--size", "100..300")) == {"300 bytes", "200 bytes", "100 bytes"}
    assert groups(traced, "--group-by", "heap") == {"heap #0 0x20000000000": (7, 10657)}
    assert set(groups(traced, "--group-by", "caller", "--min-bytes", "1K")) == {"mymalloc.dll+0x3020"}
    assert set(groups(traced, "--group-by", "caller", "--focus", r"vision\.dll\+0x2010")) == {"mymalloc.dll+0x3000"}
    assert "mymalloc.dll+0x3000" not in groups(traced, "--group-by", "caller", "--ignore", r"vision\.dll\+0x2010")
    assert run(traced, "--focus", "(").exit_code == 2


def test_suppressed_groups_are_counted_apart_and_unused_rules_named(traced, tmp_path):
    rules = tmp_path / "known.txt"
    rules.write_text("leak:vision\nleak:nowhere\n")
    assert set(groups(traced, "--group-by", "caller", "--suppressions", str(rules))) == {
        "no stack recorded", "only allocator frames", "mymalloc.dll+0x3020", "mymalloc.dll+0x3000",
    }  # fmt: skip
    result = run(traced, "--group-by", "stack", "--suppressions", str(rules), "-v")
    assert "suppressed by leak:vision: 5 blocks with 10.35 kB" in result.stdout
    assert "suppression leak:nowhere matched nothing" in result.stdout
    assert "'leak:nowhere' matched nothing" in result.stderr


def test_the_page_begins_with_the_sum_and_has_folded_stacks(traced):
    text = run(traced).stdout
    assert text.startswith("7 busy blocks with 10.41 kB in 4 groups, by stack; the first holds 94%\n\n")
    assert "•" not in text
    assert "in every row above: Heap 0x20000000000\n" in text
    assert "    mymalloc.dll+0x3020\n    vision.dll+0x2200\n    vision.dll+0x2900\n    … 1 more (--full-stacks)" in text
    assert "msvcrt.dll+0x1234" in run(traced, "--full-stacks").stdout


def test_places_in_sections_keep_their_offsets():
    keys = ["held by app.exe!.data+0x10", "held by app.exe!.data+0x20", "app.exe!Load+0x14 ← app.exe!main+0x3"]
    assert [short_key(key, "app.exe") for key in keys] == [*keys[:2], "Load ← main"]


def test_without_recorded_stacks_it_says_how_to_record_them(tmp_path):
    heap = NtHeapBuilder(base=0x20000000000)
    contents = [
        b"",
        b"\0" * 16,
        b"\xcc" * 16,
        b"connection string",
        "wide text".encode("utf-16-le"),
        struct.pack("<Q", 5),
    ]
    contents.append(struct.pack("<II", 0, 18) + "wide text\0".encode("utf-16-le"))
    for content in contents:
        heap.busy(
            max(len(content), 24),
            content.ljust(24, content[:1] or b"\0") if content in (b"", b"\0" * 16, b"\xcc" * 16) else content,
        )
    pointer = heap.busy(64)
    heap.busy(32, struct.pack("<QQ", pointer, pointer))
    heap.busy(0)
    path = tmp_path / "plain.dmp"
    path.write_bytes(ProcessBuilder().heap(heap.build()).build().data)
    result = run(str(path), "--group-by", "stack", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert any(
        "gflags /i " in note and "+ust" in note and "grouped by type instead" in note for note in document["notes"]
    )
    found = {g["key"]: g["count"] for g in document["data"]}
    assert found == {
        "zeros": 3, "one repeated byte": 1, "text (ASCII)": 1, "text (UTF-16)": 1, "small number": 1, "counted string (BSTR)": 1,
        "pointers to heap blocks": 1, "no bytes": 1,
    }  # fmt: skip
    assert {g["key"] for g in document["data"] if g["trust"] == "exact"} == {"no bytes"}
    assert {g["trust"] for g in document["data"]} == {"exact", "guess"}
    shown = run(str(path))
    assert shown.exit_code == 0
    assert "all other keys say what the first bytes look like: guesses" in shown.stdout


def test_exports_hold_what_the_table_holds(traced, tmp_path):
    total = sum(size for sizes in SIZES.values() for size in sizes) + 50
    lines = run(traced, "--export", "folded").stdout.splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in lines) == total
    assert lines[0].startswith("vision.dll+0x2900;vision.dll+0x2200;mymalloc.dll+0x3020;msvcrt.dll+0x1234 ")
    blocks = run(traced, "--export", "folded", "--weight", "blocks").stdout.splitlines()
    assert sum(int(line.rpartition(" ")[2]) for line in blocks) == 7
    scope = json.loads(run(traced, "--export", "speedscope").stdout)
    assert [profile["endValue"] for profile in scope["profiles"]] == [total, 7]
    heaps, stacks = read_log(run(traced, "--export", "umdh").stdout)
    assert sum(one.size for one in heaps[0x20000000000]) == total
    assert stacks == {RECORDS + 0x100 * i: frames for i, frames in enumerate(STACKS.values())}
    for kind, start in (("flame", b"<!DOCTYPE html>"), ("pprof", b"\x1f\x8b")):
        path = tmp_path / kind
        assert run(traced, "--export", kind, "-o", str(path)).exit_code == 0
        assert path.read_bytes().startswith(start)


@pytest.mark.parametrize("kind", ["folded", "speedscope", "pprof", "umdh", "flame"])
@pytest.mark.parametrize("options", [
    ("--json",), ("--format", "json"), ("--format", "csv"), ("--format", "table"), ("--group-by", "caller"), ("--group-by", "type"),
    ("--limit", "3"), ("--explain",),
])  # fmt: skip
def test_what_an_export_cannot_do_is_a_usage_error_that_says_what_to_leave_out(traced, kind, options, tmp_path):
    path = tmp_path / "out"
    result = run(traced, "--export", kind, *options, "-o", str(path))
    assert (result.exit_code, result.stdout, path.exists()) == (2, "", False)
    assert f"leave out {options[0]}, or --export" in result.stderr


def test_what_an_export_does_anyway_may_be_asked_for(traced):
    plain = run(traced, "--export", "folded").stdout
    for options in (("--group-by", "stack"), ("--full-stacks",), ("--all",), ("--weight", "bytes")):
        result = run(traced, "--export", "folded", *options)
        assert (result.exit_code, result.stdout) == (0, plain)


def test_a_weight_without_folded_lines_is_a_usage_error(traced):
    for options in ((), ("--export", "speedscope"), ("--export", "pprof")):
        result = run(traced, "--weight", "blocks", *options)
        assert result.exit_code == 2
        assert "add --export folded" in result.stderr


def test_there_is_nothing_to_export_without_stacks(tmp_path):
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(8)
    path = tmp_path / "plain.dmp"
    path.write_bytes(ProcessBuilder().heap(heap.build()).build().data)
    result = run(str(path), "--export", "folded")
    assert result.exit_code == 2
    assert "gflags" in result.stderr


def test_csv_has_its_frames_in_a_line_innermost_first(traced):
    header, first, *_ = csv.reader(StringIO(run(traced, "--format", "csv").stdout))
    row = dict(zip(header, first, strict=True))
    groups = json.loads(run(traced, "--json").stdout)["data"]
    named = [f"{frame['module']}+{frame['offset']:#x}" for frame in groups[0]["frames"]]
    assert len(named) == len(STACKS["load"])
    assert row["frames"] == " < ".join(named)
    assert (row["count"], row["bytes"]) == ("2", "10000")


def test_filters_hold_for_umdhs_log_too(traced):
    def sizes(*options: str) -> list[int]:
        heaps, _ = read_log(run(traced, "--export", "umdh", *options).stdout)
        return sorted(one.size for found in heaps.values() for one in found)

    assert sizes("--focus", r"vision\.dll\+0x2010") == [100, 200, 300]
    assert sizes("--min-bytes", "1K") == [5000, 5000]
    assert sizes("--focus", "nothing") == []


def test_the_total_is_that_of_the_groups_shown_and_the_rest_is_named(traced):
    text = run(traced, "--min-bytes", "1K").stdout
    total = "2 busy blocks with 9.766 kB in 1 group, by stack"
    assert f"{total}; left out by options: 5 blocks, 657 B" in text


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 5000 + ")" * 5000])
def test_a_pattern_that_cannot_be_used_is_a_usage_error(traced, pattern):
    assert run(traced, "--focus", pattern).exit_code == 2


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_suppressions_are_read_as_windows_editors_write_them(traced, tmp_path, encoding):
    rules = tmp_path / "known.txt"
    rules.write_text("leak:vision\nleak:vision.dll\nleak:nowhere\n", encoding=encoding)
    text = run(traced, "--suppressions", str(rules)).stdout
    assert "suppressed by leak:vision: 5 blocks" in text
    assert "suppression leak:vision.dll matched nothing" not in text
    assert "suppression leak:nowhere matched nothing" in text


@pytest.mark.parametrize("number", [1 << 48, 1 << 56, (1 << 56) + (77 << 32), (1 << 64) - 8])
def test_a_stack_number_that_damage_left_is_no_stack(tmp_path, number):
    heap = NtHeapBuilder(base=0x20000000000, flags=UST)
    heap.busy(100, trace=number)
    path = tmp_path / "ust.dmp"
    ProcessBuilder().heap(heap.build()).write(path)
    assert groups(str(path), "--group-by", "stack") == {"no stack recorded": (1, 100)}


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no such device")
def test_suppressions_without_an_end_are_refused(traced):
    result = run(traced, "--suppressions", "/dev/zero")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "more than 16 MB" in result.stderr
