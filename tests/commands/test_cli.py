"""The command line itself: naming the dump, shared options, formats, exit codes, what reaches the terminal."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from heapdump import system
from heapdump.cli import run
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.patching import without_memory
from tests.posix import needs_shell

COMMANDS = ["summary", "regions", "modules", "threads", "heaps", "info"]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy dump, alone in the current folder."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    monkeypatch.chdir(tmp_path)
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    heap.virtual(0x20001000000, 1_500_000)
    process = ProcessBuilder(exe="C:\\x\\evil\x1b[2J\u202eexe.exe").heap(heap.build())
    process.write(tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_dump_is_found_by_argument_option_environment_and_folder(
    name: str, dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    for arguments in ([name, str(dump)], ["-d", str(dump), name], [name]):
        assert run([*arguments, "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["dump"]["bytes"] == dump.stat().st_size
    monkeypatch.setenv("HEAPDUMP_DUMP", str(dump))
    monkeypatch.chdir("/")
    assert run([name, "--json"]) == 0
    assert "HEAPDUMP_DUMP" in capfd.readouterr().err


def test_no_dump_or_several_is_a_usage_error_that_tells_how_to_name_one(dump: Path, capfd: Capture) -> None:
    (dump.parent / "other.mdmp").write_bytes(b"")
    assert run(["summary"]) == 2
    assert "2 in this folder" in capfd.readouterr().err
    for path in list(dump.parent.iterdir()):
        path.unlink()
    assert run(["summary"]) == 2
    assert "name one: heapdump summary crash.dmp" in capfd.readouterr().err


def test_the_folder_choice_is_said_in_one_line_and_quiet_hides_it(dump: Path, capfd: Capture) -> None:
    assert run(["modules"]) == 0
    assert capfd.readouterr().err.splitlines() == ["heapdump: using crash.dmp, the only dump in this folder"]
    assert run(["modules", "-q"]) == 0
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_json_envelope(name: str, dump: Path, capfd: Capture) -> None:
    assert run([name, "--json"]) == 0
    document = json.loads(capfd.readouterr().out)
    assert document["schema"] == "heapdump/1"
    assert document["command"] == name
    assert document["complete"] is True
    assert document["dump"] == {
        "path": "crash.dmp", "bytes": dump.stat().st_size, "arch": "x64", "os": "10.0.19041", "pid": 4242,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["regions", "modules", "threads", "heaps"])
def test_jsonl_and_csv_hold_the_records_of_the_document(name: str, dump: Path, capfd: Capture) -> None:
    assert run([name, "--json"]) == 0
    data = json.loads(capfd.readouterr().out)["data"]
    assert run([name, "--format", "jsonl"]) == 0
    assert [json.loads(line) for line in capfd.readouterr().out.splitlines()] == data
    assert run([name, "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert len(rows) == len(data) > 0
    key = "address" if "address" in data[0] else "id"
    assert [row[key] for row in rows] == [str(record[key]) for record in data]


def test_summary_csv_has_one_header_for_all_its_tables(dump: Path, capfd: Capture) -> None:
    assert run(["summary", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capfd.readouterr().out)))
    assert {row["table"] for row in rows} == {"usage", "type", "state", "protect", "reconciliation"}
    assert all(None not in row for row in rows)


def test_output_file_and_its_error(dump: Path, capfd: Capture) -> None:
    assert run(["heaps", "--json", "-o", "out.json"]) == 0
    assert capfd.readouterr().out == ""
    assert json.loads(Path("out.json").read_text())["command"] == "heaps"


def test_a_dash_as_output_file_is_stdout(dump: Path, capfd: Capture) -> None:
    assert run(["heaps", "--json", "-o", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["command"] == "heaps"
    assert not Path("-").exists()


@pytest.mark.parametrize("option", [["check", "--sarif"], ["fleet", ".", "--results"]])
def test_a_dash_names_no_other_file(dump: Path, capfd: Capture, option: list[str]) -> None:
    assert run([*option, "-"]) == 2
    assert "only -o takes it for stdout" in capfd.readouterr().err
    assert not Path("-").exists()


@pytest.mark.parametrize("option", [["heaps", "-o"], ["heaps", "--json", "-o"], ["check", "--sarif"]])
def test_an_output_that_cannot_be_written_is_an_error_of_usage(dump: Path, capfd: Capture, option: list[str]) -> None:
    target = Path("nowhere", "out.json")
    assert run([*option, str(target)]) == 2
    assert capfd.readouterr().err.splitlines()[-1:] == [
        f"heapdump {option[0]}: error: cannot write {target}: No such file or directory"
    ]


@pytest.mark.skipif(system.IS_WINDOWS or not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("option", [["heaps", "-o"], ["check", "--sarif"]])
def test_a_full_disk_is_named(dump: Path, capfd: Capture, option: list[str]) -> None:
    assert run([*option, "/dev/full"]) == 2
    assert f"heapdump {option[0]}: error: cannot write /dev/full: No space left on device" in capfd.readouterr().err


def test_limit_all_sort_and_reverse(dump: Path, capfd: Capture) -> None:
    assert run(["regions", "--limit", "3"]) == 0
    shown = capfd.readouterr().out.splitlines()
    assert len(shown) == 5
    assert "more" in shown[-1]
    assert run(["regions", "--all"]) == 0
    assert "more (" not in capfd.readouterr().out
    assert run(["regions", "--sort", "size", "--format", "jsonl"]) == 0
    sizes = [json.loads(line)["size"] for line in capfd.readouterr().out.splitlines()]
    assert sizes == sorted(sizes, reverse=True)
    assert run(["regions", "--sort", "colour"]) == 2
    assert "there are: address, size" in capfd.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_nothing_of_the_dump_reaches_the_terminal_raw(name: str, dump: Path, capfd: Capture) -> None:
    for arguments in ([], ["--json"], ["--format", "csv"], ["--format", "jsonl"], ["-v"]):
        run([name, *arguments])
        captured = capfd.readouterr()
        assert "\x1b" not in captured.out + captured.err
        assert "\u202e" not in captured.out + captured.err


def test_colour_only_when_asked_for_in_a_pipe(dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    assert run(["heaps", "--color", "always"]) == 0
    assert "\x1b[" in capfd.readouterr().out
    assert run(["heaps"]) == 0
    assert "\x1b[" not in capfd.readouterr().out


def test_a_pipe_gets_whole_lines(dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert run(["heaps"]) == 0
    text = capfd.readouterr().out
    assert "not shown at this width" not in text
    assert "…" not in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PAGEDU64" + bytes(100), "kernel dump"),
        (b"PAGEDUMP" + bytes(100), "kernel dump"),
        (b"\x7fELF\x02\x01" + bytes(10) + b"\x04\0" + bytes(40), "ELF core dump"),
        (b"hello, this is no dump\n", "is a text file"),
        (b"MZ" + bytes(100), "Windows program"),
    ],
)
def test_other_files_are_refused_by_name_with_exit_3(
    content: bytes, words: str, tmp_path: Path, capfd: Capture
) -> None:
    path = tmp_path / "x.dmp"
    path.write_bytes(content)
    assert run(["summary", str(path)]) == 3
    error = capfd.readouterr().err.splitlines()
    assert len(error) == 1
    assert words in error[0]
    assert str(path) in error[0]


def test_missing_files_and_folders_are_refused_in_one_line(tmp_path: Path, capfd: Capture) -> None:
    assert run(["summary", str(tmp_path / "none.dmp")]) == 3
    assert "none.dmp: " in capfd.readouterr().err
    assert run(["summary", str(tmp_path)]) == 3
    assert "is not a file" in capfd.readouterr().err


def test_a_cut_dump_is_answered_with_exit_4_and_a_reason(dump: Path, capfd: Capture) -> None:
    dump.write_bytes(dump.read_bytes()[:-100_000])
    assert run(["summary", "--json"]) == 4
    document = json.loads(capfd.readouterr().out)
    assert document["complete"] is False
    assert any("the file ends before its memory does: 100,000 bytes" in note for note in document["notes"])


def test_region_filters(dump: Path, capfd: Capture) -> None:
    assert run(["regions", "--at", "00000200`00000010", "--json"]) == 0
    (row,) = json.loads(capfd.readouterr().out)["data"]
    assert (row["usage"], row["address"]) == ("Heap", "0x20000000000")
    assert run(["regions", "--at", "nonsense"]) == 2
    assert "is not an address" in capfd.readouterr().err
    for arguments, field, value in [
        (["--usage", "stack"], "usage", "Stack"),
        (["--state", "reserve"], "state", "MEM_RESERVE"),
        (["--type", "image"], "type", "MEM_IMAGE"),
        (["--protect", "guard"], "protect", "PAGE_READWRITE|PAGE_GUARD"),
        (["--usage", "unknown"], "usage", "<unknown>"),
    ]:
        assert run(["regions", *arguments, "--json"]) == 0
        rows = json.loads(capfd.readouterr().out)["data"]
        assert {row[field] for row in rows} == {value}
    assert run(["regions", "--usage", "bogus"]) == 2
    assert "there are:" in capfd.readouterr().err


def test_help_imports_neither_numpy_nor_rich() -> None:
    code = "import sys; from heapdump.cli import run; run(['--help']); print(sorted({'numpy','rich','minidump'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_what_the_imports_leave_behind_is_hardly_searched_for_garbage(dump: Path) -> None:
    code = """
import gc, sys, heapdump.cli
searches = []
gc.callbacks.append(lambda phase, _: searches.append(phase))
try:
    heapdump.cli.main()
except SystemExit:
    print(len(searches), gc.get_freeze_count() > 0)
"""
    command = [sys.executable, "-c", code, "heaps", str(dump)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    searches, is_frozen = out.split()
    assert int(searches) < 10
    assert is_frozen == "True"


@needs_shell
def test_a_reader_that_leaves_early_is_no_error(dump: Path) -> None:
    command = f"{sys.executable} -m heapdump regions {dump} --all | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stderr == ""


def test_version_and_module_entry_point() -> None:
    out = subprocess.run([sys.executable, "-m", "heapdump", "--version"], capture_output=True, text=True, check=True)
    assert out.stdout.startswith("heapdump, version ")


def test_a_heap_whose_memory_is_missing_has_no_invented_committed_bytes(tmp_path: Path, capfd: Capture) -> None:
    path, base = tmp_path / "crash.dmp", 0x20000000000
    heap = NtHeapBuilder(base=base)
    heap.busy(100)
    built = ProcessBuilder().heap(heap.build()).build()
    path.write_bytes(built.data)
    assert run(["heaps", str(path)]) == 0
    assert "1 heap: 4 kB committed in segments" in capfd.readouterr().out
    path.write_bytes(without_memory(built, (base, base + 0x1000)))
    assert run(["heaps", str(path)]) == 4
    assert "1 heap: committed bytes not known" in capfd.readouterr().out
