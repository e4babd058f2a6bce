"""`memory` on a built process: every form, gaps, pointers, lists; addresses by expressions in other commands."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from tests.builders import NtHeapBuilder, ProcessBuilder

DATA = 0x5000000
Ask = Callable[..., Any]


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    heap = NtHeapBuilder(base=0x20000000000)
    block = heap.busy(96)
    made = ProcessBuilder().heap(heap.build()).module(0x67000000, 0x8000, r"C:\acme\vision.dll")
    made.thread(7, registers={"rbx": DATA}).region(DATA, 0x3000)
    page = bytearray(0x1000)
    page[:16] = bytes(range(16))
    teb = made.teb(7)
    struct.pack_into("<5Q", page, 0x20, block + 8, 0x67001234, teb, 0x10, DATA + 0x100)
    page[0x100:0x110] = b"connection lost\0"
    page[0x200:0x220] = "wide and short\0".encode("utf-16-le").ljust(32, b"\0")
    nodes = [DATA + at for at in (0x300, 0x340, 0x3C0)]
    for i, node in enumerate(nodes):
        struct.pack_into("<2Q", page, node - DATA, nodes[(i + 1) % 3], nodes[i - 1])
    made.memory(DATA, bytes(page)).memory(DATA + 0x2000, b"x" * 0x1000)  # a page between is not in the dump
    made.write(tmp_path / "memory.dmp")
    return tmp_path / "memory.dmp"


@pytest.fixture
def ask(dump: Path, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Data of a JSON answer, its exit code as the first item."""

    def asked(*arguments: str, command: str = "memory") -> tuple[int, Any]:
        code = cli.run([command, str(dump), *arguments, "--json", "-q"])
        return code, json.loads(capfd.readouterr().out)["data"]

    return asked


def test_bytes_come_in_lines_of_16(ask):
    code, rows = ask("rbx", "--count", "20")
    assert code == 0
    assert [(row["address"], row["bytes"]) for row in rows] == [
        (hex(DATA), "000102030405060708090a0b0c0d0e0f"), (hex(DATA + 16), "00000000"),
    ]  # fmt: skip
    assert {row["value"] for row in rows} == {None}


@pytest.mark.parametrize(
    ("form", "values"), [("words", ["0x100", "0x302"]), ("dwords", ["0x3020100", "0x7060504"]), ("qwords", ["0x706050403020100", "0xf0e0d0c0b0a0908"])]
)  # fmt: skip
def test_numbers_are_little_endian(ask, form, values):
    assert [row["value"] for row in ask("rbx", "--as", form, "--count", "2")[1]] == values


def test_pointers_say_what_they_lead_to(ask):
    _, rows = ask("rbx+20", "--as", "pointers", "--count", "5")
    leads = [row["points_to"] for row in rows]
    assert [lead and lead["kind"] for lead in leads] == ["block", "module", "region", None, "region"]
    assert "96 bytes" in leads[0]["text"] and leads[0]["offset"] == 8
    assert leads[1]["text"] == "vision.dll+0x1234"
    assert leads[2]["text"].startswith("TEB [~0 tid 0x7]")


def test_text_ends_at_its_zero(ask):
    assert ask("rbx+100", "--as", "text")[1][0]["value"] == "connection lost"
    assert ask("rbx+200", "--as", "utf16")[1][0]["value"] == "wide and short"
    assert ask("rbx+100", "--as", "text", "--count", "4")[1][0]["value"] == "conn"


def test_missing_bytes_are_question_marks_and_exit_4(ask, dump, capfd):
    code, rows = ask("rbx+ff8", "--count", "16")
    assert (code, rows[0]["bytes"]) == (4, "00" * 8 + "??" * 8)
    code, rows = ask("rbx+1ffc", "--as", "qwords", "--count", "1")
    assert (code, rows[0]["bytes"], rows[0]["value"]) == (4, "????????78787878", None)
    assert cli.run(["memory", str(dump), "rbx+1ffc", "--as", "pointers", "--count", "2"]) == 4
    out, err = capfd.readouterr()
    assert "78787878????????" in out and "4 bytes of what was asked for" in err


def test_a_sound_list_is_followed_to_its_start(ask, dump, capfd):
    code, rows = ask("rbx+300", "--as", "links")
    assert code == 0
    assert [row["address"] for row in rows] == [hex(DATA + at) for at in (0x300, 0x340, 0x3C0)]
    cli.run(["memory", str(dump), "rbx+300", "--as", "links"])
    assert "3 entries: the list leads back to 0x5000300, and every back link fits" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ({0x348: DATA + 0x3C0}, "the back link of 0x5000340 leads to 0x50003c0, not to 0x5000300"),
        ({0x3C0: DATA + 0x340}, "0x50003c0 leads back to entry 1, 0x5000340: a cycle"),
        ({0x308: DATA}, "the back link of 0x5000300 leads to 0x5000000, not to 0x50003c0"),
        ({0x340: 0}, "2 entries: the list ends with a null link"),
        ({0x340: 0xDEAD0000}, "the dump does not hold the entry at 0xdead0000"),
    ],
)
def test_a_broken_list_says_where(dump, capfd, links, words):
    from heapdump.snapshot import open_dump
    from heapdump.spans import Span

    with open_dump(dump) as snapshot:
        places = {at: snapshot.process.space.mapped.file_place(Span(DATA + at, DATA + at + 8)) for at in links}
    data = bytearray(dump.read_bytes())
    for at, target in links.items():
        struct.pack_into("<Q", data, places[at] or 0, target)
    dump.write_bytes(data)
    assert cli.run(["memory", str(dump), "5000300", "--as", "links"]) in (0, 4)
    assert words in capfd.readouterr().out


@pytest.mark.parametrize("count", ["0", "-1", "99999999999999999999"])
def test_a_count_that_makes_no_sense_ends_with_one_line(dump, capfd, count):
    assert cli.run(["memory", str(dump), "0", "--count", count]) == 2
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("address", ["0", "ffffffffffffffff", "7fffffffffffffff", "fffffffffffffff8"])
def test_addresses_at_the_ends_of_the_address_space(ask, address):
    for form in ("bytes", "qwords", "pointers", "text", "utf16", "links"):
        code, rows = ask(address, "--as", form, "--count", "100")
        assert code == 4 and all(row["value"] in (None, "") for row in rows)


def test_expressions_name_addresses_in_other_commands(ask):
    assert ask("poi(rbx+20)", command="block")[1]["offset"] == 8
    assert ask("--at", "vision+10", command="regions")[1][0]["usage"] == "Image"
    heap = ask(command="heaps")[1][0]["address"]
    assert len(ask("--heap", "poi(peb+30)", command="blocks")[1]) == len(ask("--heap", heap, command="blocks")[1]) > 0
    assert ask("--at", "poi(rbx+20)-8..poi(rbx+20)", command="blocks")[1][0]["size"] == 96


def test_eighty_columns_hold_a_line_of_bytes(dump, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["memory", str(dump), "rbx", "--count", "16"]) == 0
    line = capfd.readouterr().out.splitlines()[1]
    assert line == "0x5000000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f ................"
