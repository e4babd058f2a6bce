"""How a command ends: with one line whatever happens, and an exit code that says what it was."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from heapdump import cli, system
from heapdump.cli import run
from heapdump.errors import Ended
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.posix import HANG_UP, needs_shell, needs_signals
from tests.signals import as_in_a_terminal

DOCS = Path(__file__).parents[2] / "docs"
Capture = pytest.CaptureFixture[str]
PROGRAM = [sys.executable, "-m", "heapdump"]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


@pytest.fixture
def defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments, **options):
        raise ZeroDivisionError("of a\nhostile \x1b[2J name")

    monkeypatch.setattr("heapdump.snapshot.open_dump", fail)


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A line of sh in which `heapdump` is this program."""
    command = f'heapdump() {{ "{sys.executable}" -m heapdump "$@"; }}; {line}'
    variables = os.environ | {"PYTHONPATH": str(DOCS.parent)} | environment
    return subprocess.run(
        ["sh", "-c", command], capture_output=True, text=True, env=variables, timeout=120, check=False
    )


def test_a_defect_is_one_line_and_an_exit_code_of_its_own(defect: None, dump: Path, capfd: Capture) -> None:
    assert run(["leaks", str(dump)]) == 70
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("heapdump leaks: error: ZeroDivisionError: of a hostile \\x1b[2J name; this is a defect")
    assert "please report it" in line and "--debug" in line


@pytest.mark.parametrize("order", [["--debug", "leaks", "DUMP"], ["leaks", "DUMP", "--debug"]])
def test_debug_adds_the_traceback(defect: None, dump: Path, capfd: Capture, order: list[str]) -> None:
    assert run([str(dump) if word == "DUMP" else word for word in order]) == 70
    err = capfd.readouterr().err
    assert "Traceback (most recent call last):" in err and "in fail" in err
    assert "\x1b" not in err


def test_want_of_memory_is_one_line(dump: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture) -> None:
    def fail(*arguments, **options):
        raise MemoryError

    monkeypatch.setattr("heapdump.snapshot.open_dump", fail)
    assert run(["leaks", str(dump)]) == 4
    assert "heapdump leaks: error: not enough memory: no more memory; " in capfd.readouterr().err


@pytest.mark.parametrize("columns", ["²", "٣", "-5", "0", "9" * 5000, "80x", ""])
@pytest.mark.parametrize("variable", ["COLUMNS", "LINES"])
def test_sizes_of_the_terminal_that_are_none_are_ignored(
    dump: Path, monkeypatch: pytest.MonkeyPatch, columns: str, variable: str
) -> None:
    monkeypatch.setenv(variable, columns)
    assert run(["heaps", str(dump), "--color", "always"]) == 0


@pytest.mark.skipif(system.IS_WINDOWS, reason="every name of a file is text there")
def test_a_file_whose_name_is_no_text_opens(dump: Path, capfd: Capture) -> None:
    other = dump.rename(dump.parent / os.fsdecode(b"\xff\xfe caf\xe9.dmp"))
    for options in ([], ["--json"], ["--format", "csv"], ["-v"]):
        assert run(["heaps", str(other), *options]) == 0
    assert run(["check", str(other), "--sarif", str(dump.parent / os.fsdecode(b"\xff.sarif"))]) == 0
    os.truncate(other, 10)
    assert run(["heaps", str(other)]) == 3
    assert "\\udcff" in capfd.readouterr().err


@needs_shell
def test_the_only_dump_of_a_folder_may_have_a_name_that_is_no_text(dump: Path) -> None:
    dump.rename(dump.parent / os.fsdecode(b"\xff.dmp"))
    done = shell(f"cd {dump.parent}; heapdump heaps", LC_ALL="C", PYTHONUTF8="0")
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)


@needs_shell
@pytest.mark.parametrize("where", ["2>&-", "2>/dev/full", ">/dev/null 2>&-", "2>&- -o out.txt"])
def test_a_closed_or_full_standard_error_stream_changes_nothing(dump: Path, where: str) -> None:
    plain = shell(f"cd {dump.parent}; heapdump heaps -v crash.dmp")
    done = shell(f"cd {dump.parent}; heapdump heaps -v crash.dmp {where}")
    assert done.returncode == plain.returncode == 0
    text = (dump.parent / "out.txt").read_text() if "out.txt" in where else done.stdout
    assert text == ("" if "/dev/null" in where else plain.stdout)
    assert shell(f"heapdump heaps nothing.dmp {where}").returncode == 3


@needs_shell
@pytest.mark.parametrize(
    "command", ["heaps crash.dmp", "heaps crash.dmp --json", "--help", "leaks --help", "--version"]
)
def test_a_full_standard_output_is_said_with_exit_2(dump: Path, command: str) -> None:
    done = shell(f"cd {dump.parent}; heapdump {command} >/dev/full")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(": error: cannot write the output: No space left on device")


@needs_shell
@pytest.mark.parametrize("command", ["regions crash.dmp --all", "--help"])
def test_a_reader_that_has_seen_enough_is_no_error(dump: Path, command: str) -> None:
    done = shell(f"cd {dump.parent}; (heapdump {command}; echo $? >code) | true; cat code")
    assert (done.stdout, done.stderr) == ("0\n", "")


@needs_shell
def test_closed_descriptors_are_not_given_to_files(dump: Path) -> None:
    code = "import os; from heapdump import system; system.fill_standard_streams(); print(os.open('/dev/null', 0))"
    done = shell(f"'{sys.executable}' -c \"{code}\" 2>&- <&-")
    assert int(done.stdout) > 2


@needs_signals
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, HANG_UP])
@pytest.mark.parametrize("where", ["import numpy", "import", "work"])
def test_a_signal_ends_a_command_with_one_line(tmp_path: Path, dump: Path, number: signal.Signals, where: str) -> None:
    """Also while modules are loaded, and where the module that is loaded hides the exception."""
    hook = f"""
import os, sys, time
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == {"'numpy'" if where == "import numpy" else "'heapdump.commands.heaps'"}:
            {"try:" if where == "import numpy" else "if True:"}
                os.kill(os.getpid(), {int(number)}); time.sleep(5)
            {"except BaseException: raise ImportError('hidden')" if where == "import numpy" else ""}
sys.meta_path.insert(0, Hook())
"""
    (tmp_path / "sitecustomize.py").write_text(hook if where != "work" else "")
    if where == "work":
        body = f"import os; os.kill(os.getpid(), {int(number)})"
        (tmp_path / "sitecustomize.py").write_text(
            f"import heapdump.snapshot as s\ndef fail(*a, **k):\n    {body}\n    import time; time.sleep(5)\ns.open_dump = fail\n"
        )
    variables = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{DOCS.parent}"}
    command = [*PROGRAM, "heaps", str(dump)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=variables, timeout=60, check=False, preexec_fn=as_in_a_terminal
    )
    assert done.returncode == 128 + number
    assert done.stderr.strip() == "heapdump heaps: error: interrupted"


@needs_signals
def test_a_signal_while_the_program_itself_is_loaded_is_one_line(tmp_path: Path) -> None:
    hook = """
import os, sys, time
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name == 'click':
            os.kill(os.getpid(), 2); time.sleep(5)
sys.meta_path.insert(0, Hook())
"""
    (tmp_path / "sitecustomize.py").write_text(hook)
    variables = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{DOCS.parent}"}
    done = subprocess.run(
        [*PROGRAM, "--help"],
        capture_output=True,
        text=True,
        env=variables,
        timeout=60,
        check=False,
        preexec_fn=as_in_a_terminal,
    )
    assert (done.returncode, done.stderr) == (130, "heapdump: error: interrupted\n")


@needs_shell
def test_an_ignored_signal_stays_ignored(dump: Path) -> None:
    start = time.monotonic()
    done = shell(f"trap '' HUP; heapdump heaps {dump} & kill -HUP $!; wait $!; echo $?")
    assert done.stdout.splitlines()[-1] == "0", time.monotonic() - start


def test_windows_reports_a_closed_pipe_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    invalid = OSError(22, "Invalid argument")
    monkeypatch.setattr(system, "IS_WINDOWS", False)
    assert not system.is_closed_pipe(invalid)
    monkeypatch.setattr(system, "IS_WINDOWS", True)
    assert system.is_closed_pipe(invalid) and system.is_closed_pipe(BrokenPipeError())


def test_exit_codes_are_documented_in_one_table() -> None:
    text = (DOCS / "output.md").read_text(encoding="utf-8")
    table = text.split("## Exit codes", 1)[1].split("\n## ", 1)[0]
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert codes == [0, 1, 2, 3, 4, cli.EXIT_DEFECT, Ended(2).exit_code, Ended(15).exit_code]
    assert "case $? in" in table, "an example for CI"
