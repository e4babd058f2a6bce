"""The help, what a mistyped command line leads to, and encodings of the output."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from heapdump.cli import cli, run
from heapdump.cli.group import TOPICS
from heapdump.cli.streams import plain
from tests.builders import NtHeapBuilder, ProcessBuilder

Capture = pytest.CaptureFixture[str]
NAMES = cli.list_commands(click.Context(cli))


@pytest.fixture
def dump(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A healthy dump in another folder than the current one."""
    monkeypatch.delenv("HEAPDUMP_DUMP", raising=False)
    heap = NtHeapBuilder(base=0x20000000000)
    heap.busy(100)
    ProcessBuilder().heap(heap.build()).write(tmp_path / "crash.dmp")
    return tmp_path / "crash.dmp"


@pytest.fixture
def eighty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize("name", NAMES)
def test_help_has_own_options_before_the_common_ones(name: str, eighty: None, capfd: Capture) -> None:
    assert run([name, "--help"]) == 0
    text = capfd.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    own, _, common = text.partition("\nCommon options:\n")
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    shared = ("--json", "--format", "--limit", "--sort", "--color", "--verbose", "--help")
    assert all(f"  {flag} " in common or f", {flag} " in common for flag in shared)
    assert not any(f"  {flag} " in own for flag in shared)


def test_own_options_stand_in_the_order_of_their_headings(eighty: None, capfd: Capture) -> None:
    assert run(["leaks", "--help"]) == 0
    text = capfd.readouterr().out
    words = (
        "Choose:",
        "  --heap ",
        "Group:",
        "  --group-by ",
        "Unreachable blocks:",
        "  --lsan-compat",
        "Export",
        "  --export ",
        "Common options:",
    )
    places = [text.index(f"\n{word}") for word in words]
    assert places == sorted(places)


def test_commands_are_listed_by_question_and_each_in_one_line(eighty: None, capfd: Capture) -> None:
    assert run(["--help"]) == 0
    lines = capfd.readouterr().out.splitlines()
    places = [lines.index(f"{topic}:") for topic in TOPICS]
    assert places == sorted(places)
    listed = [line.split()[0] for line in lines[places[0] :] if line.startswith("  ")]
    assert sorted(listed) == sorted([*NAMES, "cache", "help"])
    for name in NAMES:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        assert any(line.endswith(command.get_short_help_str(72)) for line in lines), name


@pytest.mark.parametrize(
    ("typed", "error"),
    [
        (["sumary", "x.dmp"], "heapdump: error: no command 'sumary'; did you mean summary?"),
        (["xyzzy"], "heapdump: error: no command 'xyzzy'; heapdump --help lists the commands"),
        (["leaks", "--groupby", "x"], "heapdump leaks: error: no such option '--groupby'; did you mean '--group-by'?"),
        (["leaks", "--xyzzy"], "heapdump leaks: error: no such option '--xyzzy'"),
        (["leaks", "a", "b"], "heapdump leaks: error: got unexpected extra argument (b)"),
        (["heaps", "--limit", "many"], "heapdump heaps: error: invalid value for '--limit': 'many' is not a whole number"),
        (["refs"], "heapdump refs: error: no address; name the dump and one: heapdump refs crash.dmp 0x29fb0000"),
        (["none.dmp"], "heapdump triage: error: none.dmp: No such file or directory"),
    ],
)  # fmt: skip
def test_errors_have_one_form_and_name_the_command(typed: list[str], error: str, capfd: Capture) -> None:
    assert run(typed) in (2, 3)
    assert capfd.readouterr().err == f"{error}\n"


def test_errors_suggest_the_command_that_was_typed(
    dump: Path, tmp_path: Path, capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, place in (("heap", "0"), ("refs", "ADDRESS"), ("block", "ADDRESS")):
        assert run([name, str(dump)]) == 2
        assert capfd.readouterr().err.endswith(f"heapdump {name} {dump} {place}\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert run(["check"]) == 2
    assert "heapdump check crash.dmp" in capfd.readouterr().err


def test_a_dump_in_the_place_of_a_command_is_triaged(dump: Path, capfd: Capture) -> None:
    assert run([str(dump)]) == 0
    page = capfd.readouterr().out
    assert run(["triage", str(dump)]) == 0
    assert capfd.readouterr().out == page
    assert run([str(dump), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["command"] == "triage"


@pytest.mark.parametrize(
    "before", [["--json"], ["--format", "json"], ["--format=json"], ["-q", "--json"], ["-vv", "--json"]]
)
def test_shared_options_may_stand_before_the_command(before: list[str], dump: Path, capfd: Capture) -> None:
    for behind in (["heaps", str(dump)], [str(dump)]):
        assert run([*before, *behind]) == 0
        assert json.loads(capfd.readouterr().out)["schema"] == "heapdump/1"
    assert run([*before, "-d", str(dump), "heaps"]) == 0


def test_help_on_a_command(eighty: None, capfd: Capture) -> None:
    assert run(["help", "leaks"]) == 0
    text = capfd.readouterr().out
    assert run(["leaks", "--help"]) == 0
    assert capfd.readouterr().out == text
    assert run(["help"]) == 0
    assert capfd.readouterr().out.startswith("Usage: heapdump ")
    assert run(["help", "leeks"]) == 2
    assert "did you mean leaks" in capfd.readouterr().err


def test_a_pipe_gets_utf8_whatever_the_encoding_of_the_system(dump: Path) -> None:
    command = [sys.executable, "-m", "heapdump", "blocks", str(dump), "--limit", "0"]
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": "cp1252"}
    out = subprocess.run(command, capture_output=True, check=True, env=environment).stdout
    assert "… 1 more" in out.decode("utf-8")


def test_a_terminal_without_a_character_gets_a_plain_one() -> None:
    import codecs

    codecs.register_error("test.plain", plain)
    out = io.BytesIO()
    with io.TextIOWrapper(out, encoding="cp437", errors="test.plain") as stream:
        stream.write("a → b • c … █ ē")
        stream.flush()
        assert out.getvalue().decode("cp437") == "a -> b * c ... █ \\u0113"
    assert "→•█…".encode("ascii", "test.plain") == b"->*#..."
