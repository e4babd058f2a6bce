"""`search` on a built process: texts, pointers, bytes, filters, owners of places, what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from heapdump.analyses.blocks.search import patterns
from heapdump.snapshot import open_dump
from heapdump.spans import Span
from tests.builders import NtHeapBuilder, ProcessBuilder

DATA, STACK = 0x5000000, 0x30000000
Rows = list[dict[str, Any]]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=0x20000000000)
    block = heap.busy(96)
    made = ProcessBuilder().heap(heap.build()).region(DATA, 0x1000).module(0x67000000, 0x8000, r"C:\acme\vision.dll")
    made.thread(7, stack=(STACK, STACK + 0x4000), sp=STACK + 0x1000, content=block.to_bytes(8, "little"))
    made.memory(DATA, b"grabber lost".ljust(0x100, b"\0") + "grabber".encode("utf-16-le").ljust(0xF00, b"\0"))
    path = tmp_path / "search.dmp"
    made.write(path)
    with open_dump(path) as snapshot:
        place = snapshot.process.space.mapped.file_place(Span(block + 16, block + 32))
    data = bytearray(path.read_bytes())
    data[place or 0 : (place or 0) + 8] = b"grabber!"
    path.write_bytes(data)
    return path


@pytest.fixture
def ask(dump: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Rows]]:
    """Exit code and rows."""

    def asked(*arguments: str) -> tuple[int, Rows]:
        code = cli.run(["search", str(dump), *arguments, "--json", "-q"])
        return code, json.loads(capfd.readouterr().out)["data"]

    return asked


def test_a_text_is_found_in_both_encodings_with_its_owner(ask):
    code, rows = ask("grabber")
    assert code == 0
    assert [(row["address"], row["usage"], row["text"]) for row in rows[:2]] == [
        (hex(DATA), "<unknown>", "grabber lost"), (hex(DATA + 0x100), "<unknown>", "grabber"),
    ]  # fmt: skip
    assert [row["block"] for row in rows[:2]] == [None, None]
    assert (rows[2]["usage"], rows[2]["block"]["size"], rows[2]["lies_in"]["offset"]) == ("Heap", 96, 16)


def test_pointers_and_bytes(ask):
    block = ask("grabber")[1][2]["block"]["address"]
    stack = [row for row in ask(block)[1] if row["usage"] == "Stack"]
    assert [(row["address"], row["lies_in"]["kind"]) for row in stack] == [(hex(STACK + 0x1000), "stack")]
    assert ask("poi(rsp)", "--as", "pointer", "--thread", "~0") == ask(block)
    assert ask("hex:67 72 61 62")[1] == ask("67726162", "--as", "bytes")[1] == ask("grab")[1][::2]
    assert ask("0x10", "--as", "text") == (0, [])


def test_filters(ask):
    assert {row["usage"] for row in ask("grabber", "--usage", "heap")[1]} == {"Heap"}
    assert len(ask("grabber", "--at", f"{DATA:x}..{DATA + 0x100:x}")[1]) == 1
    assert len(ask("grabber", "--at", f"{DATA:x}..{DATA + 6:x}")[1]) == 0
    code, rows = ask("hex:00", "--count", "10")
    assert (code, len(rows)) == (4, 10)
    assert ask("grabber", "--count", "9" * 30) == ask("grabber")


def test_the_page_counts_by_usage(dump, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["search", str(dump), "grabber"]) == 0
    out = capfd.readouterr().out
    assert "3 places: <unknown> 2, Heap 1" in out and max(map(len, out.splitlines())) <= 80
    cli.run(["search", str(dump), "nowhere"])
    assert "no place holds that" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([""], "nothing to look for"), (["hex:"], "nothing to look for"), (["hex:zz"], "is no byte string"), (["a", "b"], "not 3 arguments"),
        ([], "is a file"), (["a", "--usage", "bogus"], "there are:"), (["a", "--count", "0"], "less than 1"),
        (["zz", "--as", "pointer"], "is not an address"), (["a", "--at", "20..10"], "ends before it begins"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(dump, capfd, arguments, words):
    assert cli.run(["search", str(dump), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize("text", ["\udcff", "\ud800", "a\udcff\ud800"])
def test_bytes_of_the_command_line_that_are_no_text_are_looked_for(ask, text):
    assert ask(text)[0] == 0
    assert patterns(text, (8,))[0][-1:] == (b"\xff" if text == "\udcff" else b"\x80")


def test_a_number_that_no_pointer_of_the_process_holds_has_8_bytes() -> None:
    assert patterns("0x20000000040", (4,)) == ((0x20000000040).to_bytes(8, "little"),)
    assert patterns("0x40", (4, 8)) == (b"@\0\0\0", b"@\0\0\0\0\0\0\0")
