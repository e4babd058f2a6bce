"""`modules --symbols`: where each PDB came from, or why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heapdump import cli
from tests.builders import ProcessBuilder
from tests.builders.pdb import FrameStreams, TypeStream, pdb

GUID, BASE = bytes(range(16)), 0x140000000


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    made = ProcessBuilder().module(BASE, 0x8000, r"C:\acme\app.exe", pdb=(r"C:\b\app.pdb", GUID, 1)).thread(7)
    made.module(BASE + 0x100000, 0x8000, r"C:\acme\other.dll", pdb=("other.pdb", GUID, 2))
    made.module(BASE + 0x200000, 0x8000, r"C:\acme\bare.dll")
    (tmp_path / "sym").mkdir()
    (tmp_path / "sym" / "app.pdb").write_bytes(pdb(TypeStream().build(), GUID, 1, FrameStreams()))
    path = tmp_path / "symbols.dmp"
    path.write_bytes(made.build().data)
    return path


def test_the_record_says_where_or_why(dump, capsys):
    folder = str(dump.parent / "sym")
    cli.run(["modules", str(dump), "--json", "--no-cache", "--symbols", folder])
    found = {one["name"]: one["pdb"] for one in json.loads(capsys.readouterr().out)["data"]}
    app, other, bare = found["app.exe"], found["other.dll"], found["bare.dll"]
    assert (app["source"], app["reason"]) == (f"{folder}/app.pdb", None)
    assert (other["source"], other["reason"]) == (None, f"not in {folder}")
    assert bare is None


def test_the_page_and_the_table_say_it(dump, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "600")
    folder = str(dump.parent / "sym")
    cli.run(["modules", str(dump), "app", "--no-cache", "--symbols", folder])
    assert f"from {folder}/app.pdb" in capsys.readouterr().out
    cli.run(["modules", str(dump), "-v", "--no-cache", "--symbols", folder])
    assert f"none: not in {folder}" in capsys.readouterr().out


def test_an_empty_path_means_none(dump, capsys, monkeypatch):
    monkeypatch.setenv("_NT_SYMBOL_PATH", str(dump.parent / "sym"))
    cli.run(["modules", str(dump), "--json", "--no-cache"])
    assert '"source": null' not in capsys.readouterr().out.partition("other.dll")[0].partition("app.exe")[2]
    cli.run(["modules", str(dump), "--json", "--no-cache", "--symbols", ""])
    assert "no symbol path was given" in capsys.readouterr().out
