"""`disasm` on built processes: alignment, targets, operands of a frame, code from a file, what is missing."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heapdump import cli
from heapdump.analyses.by_hand import code as code_module
from tests.builders import ProcessBuilder
from tests.patching import poke
from tests.process.symbols.test_namer import directories

BASE, STACK, OTHER = 0x67000000, 0x30000000, 0x68000000
CODE, TABLE = 0x1000, 0x3000
WAIT = BASE + CODE + 0x100
CALLER = bytes.fromhex("558bec83ec10 ff75fc 6850c30000 ff750c") + b"\xff\x15" + struct.pack("<I", BASE + TABLE + 0x100)
"""push ebp; mov ebp, esp; sub esp, 10h; push [ebp-4]; push 50000; push [ebp+0xc]; call [slot]."""

RETURN = BASE + CODE + len(CALLER)
Rows = list[dict[str, Any]]


def imports() -> bytes:
    """An import table at 0x3000: one function of kernel32, whose slot is at +0x100."""
    data = bytearray(0x200)
    struct.pack_into("<5I", data, 0, TABLE + 0x80, 0, 0, TABLE + 0xC0, TABLE + 0x100)
    struct.pack_into("<2I", data, 0x80, TABLE + 0xA0, 0)
    data[0xA0:0xB6] = b"\0\0WaitForSingleObject\0"
    data[0xC0:0xCD] = b"KERNEL32.dll\0"
    struct.pack_into("<I", data, 0x100, OTHER + 0x1234)
    return bytes(data)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """An x86 thread that waits: its frame 1 called WaitForSingleObject with 50,000 ms."""
    made = ProcessBuilder(arch="x86", build=19041)
    made.module(BASE, 0x8000, r"C:\acme\vision.dll").module(OTHER, 0x8000, r"C:\Windows\System32\kernel32.dll")
    code = (CALLER + bytes.fromhex("33c0 c9 c20800")).ljust(0x100, b"\xcc") + bytes.fromhex("8bff558bec 90 c3")
    made.memory(BASE + CODE, code).memory(BASE + TABLE, imports())
    frame = STACK + 0x1100
    stack = bytearray(0x300)
    struct.pack_into("<2I", stack, 0, frame, RETURN)
    struct.pack_into("<5I", stack, frame - 4 - STACK - 0x1000, 0x1234, 0, 0, 0x66, 0xC350)
    made.thread(
        7,
        stack=(STACK, STACK + 0x4000),
        sp=STACK + 0x1000,
        ip=WAIT + 5,
        registers={"ebp": STACK + 0x1000},
        content=bytes(stack),
    )
    table = struct.pack("<4I", 0, 0, TABLE, 0x100)
    path = tmp_path / "wait.dmp"
    path.write_bytes(poke(made.build(), (BASE + directories("x86"), table)).data)
    return path


@pytest.fixture
def ask(dump: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Rows]]:
    """Exit code and rows."""

    def asked(*arguments: str) -> tuple[int, Rows]:
        code = cli.run(["disasm", str(dump), *arguments, "--json", "-q"])
        return code, json.loads(capfd.readouterr().out)["data"]

    return asked


def test_a_frame_tells_what_it_called_and_with_what(ask):
    code, rows = ask("eip", "--frame", "1", "--before", "4", "--after", "1")
    assert code == 0
    assert [row["text"] for row in rows] == [
        "push dword ptr [ebp-4]", "push 0xc350", "push dword ptr [ebp+0xc]", f"call dword ptr [{BASE + TABLE + 0x100:#x}]",
        "xor eax, eax", "leave",
    ]  # fmt: skip
    assert rows[3]["target"] == "kernel32.dll+0x1234 (KERNEL32.dll!WaitForSingleObject)"
    assert rows[3]["target_address"] == hex(OTHER + 0x1234)
    assert rows[2]["operand"] == {
        "text": "[ebp+0xc]",
        "address": hex(STACK + 0x110C),
        "value": "0xc350",
        "points_to": None,
    }
    assert rows[0]["operand"]["value"] == "0x1234"
    assert [row["is_current"] for row in rows] == [False, False, False, False, True, False]


def test_the_page_shows_it_at_80_columns(dump, capfd, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.run(["disasm", str(dump), "eip", "--frame", "1", "--before", "2", "--after", "0"]) == 0
    out = capfd.readouterr().out
    assert "[ebp+0xc] = 0xc350" in out
    assert max(len(line) for line in out.splitlines()) <= 80


def test_a_whole_function_by_its_prologue(ask):
    rows = ask(hex(RETURN), "--function")[1]
    assert rows[0]["address"] == hex(BASE + CODE) and rows[-1]["text"] == "ret 8"
    assert [row["text"] for row in ask(hex(WAIT + 5), "--function")[1]] == [
        "mov edi, edi",
        "push ebp",
        "mov ebp, esp",
        "nop",
        "ret",
    ]


def test_operands_before_the_frame_is_set_up_are_left_alone(ask):
    rows = ask("eip", "--frame", "0", "--before", "3")[1]
    assert rows[0]["text"] == "mov edi, edi" and all(row["operand"] is None for row in rows)


def test_code_that_is_not_there_ends_with_exit_4(ask, dump, capfd):
    assert ask(hex(BASE + 0x5000))[0] == 4
    code, rows = ask(hex(WAIT), "--after", "100", "--before", "0")
    assert code == 4 and rows[0]["text"] == "mov edi, edi"
    cli.run(["disasm", str(dump), hex(BASE + 0x5000)])
    assert "--image-path DIR" in capfd.readouterr().err


LARGE = BASE + 0x10000
INFO = 0x4000
NOP, RETURNS = bytes.fromhex("0f1f840000000000"), bytes.fromhex("0f1f8000000000c3")
"""nop with 8 bytes; nop with 7 bytes and ret."""


@pytest.fixture
def ask_large(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[[int, int, int], tuple[int, Rows, str]]:
    """Exit code, rows and gaps at an address of a function of so many bytes, of which the dump holds so many."""

    def asked(address: int, function: int, held: int) -> tuple[int, Rows, str]:
        made = ProcessBuilder(build=19041).module(BASE, 0x800000, r"C:\acme\vision.dll").thread(7, ip=address)
        unwind = struct.pack("<3I", 0x10000, 0x10000 + function, INFO + 0x100).ljust(0x100, b"\0")
        code = (NOP * (function // len(NOP) - 1) + RETURNS)[:held]
        made.memory(LARGE, code).memory(BASE + INFO, unwind + b"\1\0\0\0")
        table = struct.pack("<8I", 0, 0, 0, 0, 0, 0, INFO, 12)
        path = tmp_path / "large.dmp"
        path.write_bytes(poke(made.build(), (BASE + directories("x64"), table)).data)
        code_of = cli.run(["disasm", str(path), hex(address), "--function", "--json"])
        answer = capfd.readouterr()
        return code_of, json.loads(answer.out)["data"], answer.err

    return asked


def test_a_large_function_is_listed_to_its_end(ask_large):
    code, rows, _ = ask_large(LARGE + 0x20000, 0x30000, 0x30000)
    assert (code, len(rows), rows[-1]["address"]) == (0, 0x30000 // len(NOP) + 1, hex(LARGE + 0x2FFFF))
    assert [row["address"] for row in rows if row["is_current"]] == [hex(LARGE + 0x20000)]


def test_a_function_of_which_the_dump_holds_the_first_part_says_where_it_ends(ask_large):
    code, rows, err = ask_large(LARGE + 0x100, 0x30000, 0x3000)
    assert (code, len(rows)) == (4, 0x3000 // len(NOP))
    assert f"the code at {LARGE + 0x3000:#x} is not in the dump" in err


def test_a_function_that_is_too_large_says_where_the_listing_stops(ask_large, monkeypatch):
    monkeypatch.setattr(code_module, "_LONGEST_KNOWN", 0x2000)
    code, rows, err = ask_large(LARGE, 0x3000, 0x3000)
    assert (code, len(rows)) == (4, 0x2000 // len(NOP))
    assert f"the listing stops at {LARGE + 0x2000:#x}: the function goes on up to {LARGE + 0x3000:#x}" in err


def test_a_function_with_too_many_instructions_says_where_the_listing_stops(ask_large, monkeypatch):
    monkeypatch.setattr(code_module, "_MOST_INSTRUCTIONS", 5)
    code, rows, err = ask_large(LARGE, 0x3000, 0x3000)
    assert (code, len(rows)) == (4, 5)
    assert f"the listing stops at {LARGE + 5 * len(NOP):#x}" in err


def test_data_at_the_end_of_a_function_is_listed(ask_large, monkeypatch):
    monkeypatch.setitem(globals(), "RETURNS", bytes.fromhex("c30fffffffffffff"))
    code, rows, _ = ask_large(LARGE, 0x40, 0x40)
    assert (code, rows[-1]["address"], rows[-1]["text"]) == (0, hex(LARGE + 0x3F), "db 0xff")


def test_a_function_without_a_known_end_says_where_the_listing_stops(tmp_path, capfd):
    made = ProcessBuilder(arch="x86", build=19041).module(BASE, 0x80000, r"C:\acme\vision.dll")
    code = bytes.fromhex("cccccc 558bec") + NOP * 0x4000
    made.memory(LARGE, code).thread(7, ip=LARGE + 6)
    path = tmp_path / "endless.dmp"
    path.write_bytes(made.build().data)
    assert cli.run(["disasm", str(path), "eip", "--function", "--json"]) == 4
    answer = capfd.readouterr()
    assert json.loads(answer.out)["data"][0]["address"] == hex(LARGE + 3)
    stops = LARGE + 6 + (0x10000 - 3) // len(NOP) * len(NOP)
    assert f"the listing stops at {stops:#x}: the end of the function is not known" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eip", "--before", "-1"], "from 0 to"), (["eip", "--after", "99999999999"], "from 0 to"),
        (["0", "--function"], "no function is known"), (["eip", "--function", "--after", "3"], "--function shows"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(dump, capfd, arguments, words):
    assert cli.run(["disasm", str(dump), *arguments]) == 2
    err = capfd.readouterr().err
    assert words in err and err.count("\n") == 1


@pytest.mark.parametrize("address", ["0", "ffffffff", "ffffffffffffffff", "1"])
def test_addresses_at_the_ends(ask, address):
    assert ask(address) == (4, [])


def test_a_wait_is_found_by_hand(dump, capfd):
    """docs/questions/a-stack-by-hand.md: the stack, the code before the return address, the argument."""

    def data(*arguments: str) -> Rows:
        """Rows of a JSON answer."""
        assert cli.run([arguments[0], str(dump), *arguments[1:], "--json", "-q"]) in (0, 4)
        rows: Rows = json.loads(capfd.readouterr().out)["data"]
        return rows

    frames = data("threads", "--frames", "--args")[0]["frames"]
    number = next(i for i, frame in enumerate(frames) if "0xc350" in (frame["args"] or []))
    rows = data("disasm", "eip", "--frame", str(number), "--before", "4", "--after", "0")
    pushed = [row["operand"] for row in rows if row["text"].startswith("push") and row["operand"]]
    assert pushed[-1]["text"] == "[ebp+0xc]"
    (found,) = data("memory", "ebp+0xc", "--frame", str(number), "--as", "dwords", "--count", "1")
    assert (found["address"], int(found["value"], 16)) == (pushed[-1]["address"], 50_000)
