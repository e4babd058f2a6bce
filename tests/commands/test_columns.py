"""--columns: which columns a table and a csv have, and in which order."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from heapdump.cli import run
from heapdump.commands.common.fields import fields_of
from tests.samples import SAMPLES

Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dump with recorded stacks."""
    path = tmp_path_factory.mktemp("columns") / "crash.dmp"
    SAMPLES["stacks"](path)
    return str(path)


def printed(capfd: Capture, *arguments: str) -> str:
    capfd.readouterr()
    assert run([*arguments, "-q"]) in (0, 1, 4)
    return capfd.readouterr().out


def data(capfd: Capture, *arguments: str) -> Any:
    return json.loads(printed(capfd, *arguments, "--json"))["data"]


@pytest.mark.parametrize(
    ("command", "names"),
    [
        (("blocks",), ["size", "address"]),
        (("heaps",), ["busy_bytes", "address", "stated.free_bytes"]),
        (("modules",), ["name", "version"]),
        (("regions",), ["usage", "address", "size"]),
        (("leaks",), ["bytes", "key"]),
        (("threads", "--frames"), ["id", "frame", "module"]),
    ],
)
def test_csv_has_the_chosen_columns_in_order(
    command: tuple[str, ...], names: list[str], dump: str, capfd: Capture
) -> None:
    name, *options = command
    full = list(csv.DictReader(printed(capfd, name, dump, *options, "--format", "csv").splitlines()))
    chosen = list(
        csv.DictReader(
            printed(capfd, name, dump, *options, "--format", "csv", "--columns", ",".join(names)).splitlines()
        )
    )
    assert list(chosen[0]) == names
    assert chosen == [{one: row[one] for one in names} for row in full]


def test_a_table_has_the_chosen_columns_in_order(dump: str, capfd: Capture) -> None:
    header, *rows = printed(
        capfd, "blocks", dump, "--columns", "Size,entry-size,address", "--limit", "2", "--bytes"
    ).splitlines()
    assert header.split() == ["size", "entry_size", "address"]
    records = data(capfd, "blocks", dump)
    shown = [[f"{one['size']:,}", f"{one['entry_size']:,}", one["address"]] for one in records[:2]]
    assert [line.split() for line in rows[:2]] == shown
    assert rows[2] == f"… {len(records) - 2:,} more (--all, or --limit N)"


@pytest.mark.parametrize("limit", ["0", "1", "9" * 30])
def test_a_table_of_chosen_columns_keeps_to_any_limit(dump: str, capfd: Capture, limit: str) -> None:
    every = printed(capfd, "blocks", dump, "--columns", "address", "--all").split()
    shown = printed(capfd, "blocks", dump, "--columns", "address", "--limit", limit)
    assert sum(word in shown for word in every if word.startswith("0x")) == min(
        int(limit), sum(word.startswith("0x") for word in every)
    )


def test_a_column_that_does_not_exist_is_answered_with_the_nearest(dump: str, capfd: Capture) -> None:
    assert run(["blocks", dump, "--columns", "adress"]) == 2
    assert "no column 'adress'; did you mean address?" in capfd.readouterr().err
    assert run(["modules", dump, "--columns", "zzzz"]) == 2
    assert "there are: name, path, address" in capfd.readouterr().err


@pytest.mark.parametrize("options", [["--json"], ["--format", "jsonl"]])
def test_json_has_all_members(options: list[str], dump: str, capfd: Capture) -> None:
    assert run(["blocks", dump, "--columns", "address", *options]) == 2
    assert "has all members of a record" in capfd.readouterr().err


def test_what_has_no_columns_refuses(dump: str, tmp_path: Path, capfd: Capture) -> None:
    assert run(["leaks", dump, "--export", "umdh", "--columns", "key"]) == 2
    assert run(["report", dump, "--columns", "key", "-o", str(tmp_path / "report.html")]) == 2
    assert "this answer has none" in capfd.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert run(["blocks", dump, "--columns", ","]) == 2


def test_what_the_page_would_say_is_said_on_stderr(tmp_path: Path, capfd: Capture) -> None:
    SAMPLES["damaged"](tmp_path / "crash.dmp")
    assert run(["heaps", str(tmp_path / "crash.dmp"), "--columns", "address"]) == 4
    assert "heapdump: incomplete: " in capfd.readouterr().err


@pytest.mark.parametrize("command", ["heaps", "struct", "blocks"])
def test_shells_complete_the_columns_that_there_are(command: str, dump: str, capfd: Capture) -> None:
    arguments = [dump, "_PEB", "peb"] if command == "struct" else [dump]
    header = next(csv.reader(printed(capfd, command, *arguments, "--format", "csv").splitlines()))
    assert tuple(header) == fields_of(command)


@pytest.mark.parametrize("options", [[], ["--format", "csv"]])
def test_a_column_that_does_not_exist_is_said_where_there_are_no_rows(
    dump: str, capfd: Capture, options: list[str]
) -> None:
    none = ["blocks", dump, "--size", "123456789", *options, "--columns"]
    assert run([*none, "adress"]) == 2
    assert "no column 'adress'; did you mean address?" in capfd.readouterr().err
    assert run([*none, "address"]) == 0


@pytest.mark.parametrize("name", ["\udcff", "\x1b[31m", "a b", "="])
def test_what_can_be_no_name_is_refused_where_there_are_no_rows(tmp_path: Path, capfd: Capture, name: str) -> None:
    SAMPLES["series"](tmp_path / "crash.dmp")
    assert run(["virt-blocks", str(tmp_path / "crash.dmp"), "--columns", f"size,{name}", "-q"]) == 2
    out, err = capfd.readouterr()
    assert out == ""
    assert f"no column {name.strip()!r}" in err
