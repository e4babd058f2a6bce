"""Thread stacks: unwind codes laid out by hand, frame pointers, verified return addresses, damage."""

from __future__ import annotations

import csv
import json
import struct

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from heapdump.cli import cli
from heapdump.process.stacks.disassembly import CALL_BYTES, ends_with_call
from heapdump.process.stacks.frames import thread_frames
from heapdump.process.stacks.unwind import caller_registers
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke
from tests.process.symbols.test_namer import directories

BASE, SIZE = 0x67000000, 0x10000
CODE, UNWIND = 0x2000, 0x5000
STACK = 0x30000000
CALL = bytes.fromhex("e800000000")  # call next


def image(arch: HeapArch, functions: dict[int, tuple[int, bytes]]) -> tuple[bytes, bytes, bytes]:
    """(code section full of calls, unwind section, data directories). `functions`: begin → (end, UNWIND_INFO)."""
    code = (CALL * 0x400)[:0x1000]
    data = bytearray(0x1000)
    at = 0x800
    for i, (begin, (end, info)) in enumerate(sorted(functions.items())):
        struct.pack_into("<3I", data, 12 * i, begin, end, UNWIND + at)
        data[at : at + len(info)] = info
        at += 0x40
    size = 12 * len(functions) if arch == "x64" else 0
    return code, bytes(data), struct.pack("<8I", 0, 0, 0, 0, 0, 0, UNWIND if size else 0, size)


def info(
    prolog: int, codes: list[tuple[int, int, int] | int], *, frame: int = 0, scaled: int = 0, flags: int = 0
) -> bytes:
    """UNWIND_INFO; a code is (offset, operation, info), a plain number an operand slot."""
    operands = [code if isinstance(code, int) else code[0] | code[1] << 8 | code[2] << 12 for code in codes]
    data = struct.pack("<BBBB", 1 | flags << 3, prolog, len(operands), frame | scaled << 4)
    return data + b"".join(struct.pack("<H", operand) for operand in operands + [0] * (len(operands) % 2))


def built(
    arch: HeapArch, functions: dict[int, tuple[int, bytes]], stack: bytes, registers: dict[str, int], ip: int
) -> BuiltDump:
    code, unwind, tables = image(arch, functions)
    process = ProcessBuilder(arch=arch, build=19041).module(BASE, SIZE, r"C:\acme\vision.dll")
    process.memory(BASE + CODE, code).memory(BASE + UNWIND, unwind)
    process.thread(7, stack=(STACK, STACK + 0x4000), sp=STACK + 0x1000, ip=ip, registers=registers, content=stack)
    return poke(process.build(), (BASE + directories(arch), tables))


def ret(number: int) -> int:
    """A return address: behind the call with that number."""
    return BASE + CODE + 5 * number


def frames(open_built, dump: BuiltDump) -> list[tuple[int, str, str]]:
    with open_built(dump) as snapshot:
        process = snapshot.process
        found = thread_frames(process, process.threads[0], process.views[0], snapshot.namer())
        return [(f.frame.address, f.how, f.frame.trust) for f in found]


def q(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}Q", *words)


PUSH, LARGE, SMALL, SETFP, SAVE, SAVE_FAR = 0, 1, 2, 3, 4, 5
RBP, RBX, RSI = 5, 3, 6
PROLOGUES = {
    # push rbp; sub rsp, 0x20
    "push and small": (info(5, [(5, SMALL, 3), (1, PUSH, RBP)]), q(0, 0, 0, 0, 0x1111)),
    # sub rsp, 0x88 (scaled), and with the full size
    "large scaled": (info(7, [(7, LARGE, 0), 0x11]), q(*[0] * 0x11)),
    "large full": (info(7, [(7, LARGE, 1), 0x100, 0]), q(*[0] * 0x20)),
    # sub rsp, 0x28; mov [rsp+0x20], rbx
    "saved": (info(9, [(9, SAVE, RBX), 4, (4, SMALL, 4)]), q(0, 0, 0, 0, 0x2222)),
    "saved far": (info(9, [(9, SAVE_FAR, RSI), 0x20, 0, (4, SMALL, 4)]), q(0, 0, 0, 0, 0x3333)),
    "nothing": (info(0, []), b""),
}


@pytest.mark.parametrize("prologue", PROLOGUES)
def test_unwind_codes_lead_to_the_caller(open_built, prologue):
    codes, used = PROLOGUES[prologue]
    functions = {CODE: (CODE + 0x400, codes), CODE + 0x400: (CODE + 0x800, info(0, []))}
    stack = used + q(ret(0xD8), 0)
    assert frames(open_built, built("x64", functions, stack, {}, ret(60))) == [
        (ret(60), "context", "exact"), (ret(0xD8), "unwind", "exact"),
    ]  # fmt: skip


def test_a_frame_register_and_a_chained_function(open_built):
    # push rbp; sub rsp, 0x30; lea rbp, [rsp+0x20]: rsp may be anything since
    codes = info(10, [(10, SETFP, 0), (5, SMALL, 5), (1, PUSH, RBP)], frame=RBP, scaled=2)
    chained = info(0, [], flags=4) + struct.pack("<3I", CODE, CODE + 0x400, UNWIND + 0x800)
    functions = {
        CODE: (CODE + 0x400, codes),
        CODE + 0x400: (CODE + 0x800, chained),
        CODE + 0x800: (CODE + 0x900, info(0, [])),
    }
    stack = q(0xDEAD, 0xDEAD, *[0] * 6, 0x4444, ret(0x1A0), 0)
    frame = STACK + 0x1000 + 0x10 + 0x20
    dump = built("x64", functions, stack, {"rbp": frame}, BASE + CODE + 0x450)
    assert frames(open_built, dump)[1][:2] == (ret(0x1A0), "unwind")


def test_a_prolog_is_undone_as_far_as_it_went(open_built):
    functions = {
        CODE: (CODE + 0x400, info(5, [(5, SMALL, 3), (1, PUSH, RBP)])),
        CODE + 0x400: (CODE + 0x800, info(0, [])),
    }
    inside = built("x64", functions, q(0x1111, ret(0xD8), 0), {}, BASE + CODE + 1)
    assert frames(open_built, inside)[1][0] == ret(0xD8)


def test_without_unwind_data_return_addresses_are_verified_by_their_call(open_built):
    stack = q(0, 5, ret(9) + 1, STACK, ret(12), 0, 0, ret(20))
    assert frames(open_built, built("x64", {}, stack, {}, ret(3))) == [
        (ret(3), "context", "exact"), (ret(12), "call-scan", "guess"), (ret(20), "call-scan", "guess"),
    ]  # fmt: skip


def test_x86_goes_by_the_frame_pointers(open_built):
    low = STACK + 0x1000
    stack = struct.pack("<8I", 0, 1, low + 16, ret(4), low + 24, ret(8), 0, ret(12))
    dump = built("x86", {}, stack, {"ebp": low + 8}, ret(2))
    assert frames(open_built, dump) == [
        (ret(2), "context", "exact"), (ret(4), "frame-pointer", "derived"), (ret(8), "frame-pointer", "derived"),
        (ret(12), "frame-pointer", "derived"),
    ]  # fmt: skip


def test_a_stack_that_leads_into_itself_ends(open_built):
    low = STACK + 0x1000
    loop = struct.pack("<4I", low, ret(4), low, ret(4))
    assert len(frames(open_built, built("x86", {}, loop, {"ebp": low}, ret(2)))) < 10


@given(data=st.binary(min_size=0, max_size=64))
def test_random_unwind_information_is_survived(data):
    class Image:
        def function_at(self, rva: int) -> tuple[int, int, int]:
            return 0, 0x1000, 0

        def read(self, rva: int, size: int) -> bytes | None:
            return data[rva : rva + size] if rva + size <= len(data) else None

    class Space:
        def try_integer(self, address: int, size: int) -> int | None:
            return address if address < 1 << 40 else None

    names = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)), "rip")
    found = caller_registers(Space(), Image(), 0x1000, dict.fromkeys(names, 0x1100), is_top=True)  # type: ignore[arg-type]
    assert found is None or found.keys() == set(names)


@pytest.mark.parametrize(
    ("code", "expected"),
    [("e812345678", True), ("ffd0", True), ("41ffd3", True), ("ff1512345678", True), ("ff5020", True), ("ff942480000000", True),
     ("9090909090", False), ("e912345678", False), ("c3", False), ("e8123456", False)],
)  # fmt: skip
def test_calls_are_recognised(code, expected):
    padded = bytes.fromhex(code).rjust(CALL_BYTES, b"\x90")
    assert ends_with_call(padded, 0x67001000, 8) is expected


def test_threads_shows_and_records_frames(write_dump):
    functions = {CODE: (CODE + 0x400, info(0, [])), CODE + 0x400: (CODE + 0x800, info(0, []))}
    path = str(write_dump(built("x64", functions, q(ret(0xD8), 0), {}, ret(60))))
    shown = CliRunner().invoke(cli, ["threads", path, "--frames"]).stdout
    assert [line.split()[-2:] for line in shown.splitlines() if "vision.dll+" in line] == [
        ["vision.dll+0x212c", "context"],
        ["vision.dll+0x2438", "unwind"],
    ]
    (record,) = json.loads(CliRunner().invoke(cli, ["threads", path, "--frames", "--json"]).stdout)["data"]
    assert [(f["address"], f["how"]) for f in record["frames"]] == [
        (hex(ret(60)), "context"),
        (hex(ret(0xD8)), "unwind"),
    ]
    (plain,) = json.loads(CliRunner().invoke(cli, ["threads", path, "--json"]).stdout)["data"]
    assert "frames" not in plain


def test_frames_stand_in_the_place_of_the_table_of_threads(write_dump):
    functions = {CODE: (CODE + 0x400, info(0, [])), CODE + 0x400: (CODE + 0x800, info(0, []))}
    path = str(write_dump(built("x64", functions, q(ret(0xD8), 0), {}, ret(60))))
    for options in (["--frames"], ["--registers"], ["--frames", "--registers"]):
        first = CliRunner().invoke(cli, ["threads", path, *options]).stdout.splitlines()[0]
        assert first.startswith("~0 tid ")
    cut = CliRunner().invoke(cli, ["threads", path, "--frames", "--limit", "0"]).stdout
    assert cut.splitlines()[-1] == "… 1 more (--all, or --limit N)"


def test_csv_of_frames_has_a_row_for_each_frame(write_dump):
    functions = {CODE: (CODE + 0x400, info(0, [])), CODE + 0x400: (CODE + 0x800, info(0, []))}
    path = str(write_dump(built("x64", functions, q(ret(0xD8), 0), {}, ret(60))))
    rows = list(
        csv.DictReader(CliRunner().invoke(cli, ["threads", path, "--frames", "--format", "csv"]).stdout.splitlines())
    )
    (record,) = json.loads(CliRunner().invoke(cli, ["threads", path, "--frames", "--json"]).stdout)["data"]
    assert [(row["id"], row["frame"], row["address"], row["how"]) for row in rows] == [
        (str(record["id"]), str(number), found["address"], found["how"])
        for number, found in enumerate(record["frames"])
    ]
    assert None not in rows[0]


def test_csv_of_registers_has_a_row_for_each_register(write_dump):
    functions = {CODE: (CODE + 0x400, info(0, [])), CODE + 0x400: (CODE + 0x800, info(0, []))}
    path = str(write_dump(built("x64", functions, q(ret(0xD8), 0), {}, ret(60))))
    (record,) = json.loads(CliRunner().invoke(cli, ["threads", path, "--frames", "--registers", "--json"]).stdout)[
        "data"
    ]
    registers = [("", one["name"], one["value"]) for one in record["registers"]]
    frames = [(str(number), "", "") for number in range(len(record["frames"]))]
    for options, expected in (["--registers"], registers), (["--frames", "--registers"], frames + registers):
        shown = CliRunner().invoke(cli, ["threads", path, *options, "--format", "csv"]).stdout
        rows = list(csv.DictReader(shown.splitlines()))
        assert [(row.get("frame", ""), row["register"], row["value"]) for row in rows] == expected
        assert "points_to.text" in rows[0] and None not in rows[0]


def test_args_are_the_words_behind_the_return_address(write_dump):
    low = STACK + 0x1000
    stack = struct.pack("<10I", low + 16, ret(4), 0xA1, 0xA2, 0, 0, 0xB1, 0xB2, 0xB3, 0)
    path = str(write_dump(built("x86", {}, stack, {"ebp": low}, ret(2))))
    shown = CliRunner().invoke(cli, ["threads", path, "--args"]).stdout
    assert "000000a1 000000a2 00000000  vision.dll+0x200a  context" in shown
    (record,) = json.loads(CliRunner().invoke(cli, ["threads", path, "--args", "--json"]).stdout)["data"]
    assert record["frames"][0]["args"] == ["0xa1", "0xa2", "0x0"]
    assert record["frames"][1]["args"] == ["0xb1", "0xb2", "0xb3"]
