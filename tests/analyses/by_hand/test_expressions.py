"""Address expressions on a built process: numbers, modules, registers, PEB and TEB, pointers; what is none."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from heapdump.analyses.by_hand.expressions import Expressions
from heapdump.analyses.by_hand.place import FramePlace, find_thread
from heapdump.commands.common.thread_stacks import stack_gaps
from heapdump.errors import WrongUsage
from heapdump.process.stacks.frames import thread_stack
from heapdump.process.stacks.registers import Registers
from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, ProcessBuilder
from tests.conftest import OpenBuilt
from tests.patching import poke
from tests.process.symbols.test_namer import EXPORT_AT, directories, sections, tables

BASE, STACK = 0x67000000, 0x30000000
CODE = 0x1000
CALL = bytes.fromhex("e800000000")


def process(*, arch: str = "x64") -> BuiltDump:
    """A module with exports, another with a hyphen and one that is also a number, a thread with an x86 frame chain."""
    made = ProcessBuilder(arch=arch, build=19041)  # type: ignore[arg-type]
    made.module(BASE, 0x8000, r"C:\acme\vision.dll").memory(BASE + EXPORT_AT, sections())
    made.module(0x68000000, 0x4000, r"C:\acme\api-ms-two.dll").module(0x69000000, 0x4000, r"C:\acme\add.dll")
    made.memory(BASE + CODE, CALL * 0x40)
    frame = STACK + 0x1040
    stack = struct.pack("<16I", *[0x11] * 16) + struct.pack("<4I", frame + 0x20, BASE + CODE + 5, 0xC350, 7)
    registers = {"ebp": frame, "ebx": 0x77} if arch == "x86" else {"rbp": frame, "rbx": 0x123456789A}
    made.thread(
        0x10, stack=(STACK, STACK + 0x4000), sp=STACK + 0x1000, ip=BASE + CODE + 2, registers=registers, content=stack
    )
    made.thread(0x20, ip=0x1234)
    made.dump.exception(0x20, 0xC0000005, 0x4444, (0, 0), sp=0x9999)
    return poke(
        made.build(), (BASE + directories("x86" if arch == "x86" else "x64"), tables("x64" if arch == "x64" else "x86"))
    )


def value(snapshot: Snapshot, text: str, thread: str | None = "~0", frame: int | None = None) -> int:
    return Expressions(FramePlace(snapshot.process, snapshot.namer(), thread, frame)).value(text)


ALIKE = {
    "29fb0000": 0x29FB0000, "0x29fb0000": 0x29FB0000, "00000000`29fb0000": 0x29FB0000, "0n16": 16, "add": 0xADD,
    "10 + 20 - 8": 0x28, "(10+20)-(8-4)": 0x2C, "-8+10": 8, "vision+10": BASE + 0x10, "VISION.dll": BASE,
    "vision.dll+0x1234": BASE + 0x1234, "vision!alloc": BASE + 0x2000, "VISION!Alloc": BASE + 0x2000, "vision.dll!release+10": BASE + 0x2110,
    "api-ms-two+1": 0x68000001, "api_ms_two": 0x68000000, "add.dll": 0x69000000, " vision - 1 ": BASE - 1,
    "ffffffffffffffff": (1 << 64) - 1,
}  # fmt: skip


@pytest.mark.parametrize("text", ALIKE)
def test_numbers_and_modules(text, open_built):
    with open_built(process()) as snapshot:
        assert value(snapshot, text) == ALIKE[text]


def test_registers_peb_teb_and_pointers(open_built):
    with open_built(process()) as snapshot:
        view, thread = snapshot.process.views[0], snapshot.process.threads[0]
        expected = {
            "rsp": STACK + 0x1000, "@rsp+8": STACK + 0x1008, "rbx": 0x123456789A, "ebx": 0x3456789A,
            "peb": view.peb, "@$teb": thread.tebs[0].address, "poi(teb+60)": view.peb, "poi(rsp)": 0x1100000011,
            "poi(poi(teb+60)+30)": view.process_heap or 0, "rip": BASE + CODE + 2,
            "ip": BASE + CODE + 2, "@$ip": BASE + CODE + 2, "$csp": STACK + 0x1000,
        }  # fmt: skip
        assert {text: value(snapshot, text) for text in expected} == expected


def test_without_a_thread_named_the_registers_are_those_of_the_exception(open_built):
    with open_built(process()) as snapshot:
        assert value(snapshot, "rip", None) == 0x4444
        assert value(snapshot, "rsp", None) == 0x9999
        assert value(snapshot, "teb", None) == snapshot.process.threads[1].tebs[0].address


def test_a_frame_has_the_registers_that_are_known_there(open_built):
    with open_built(process(arch="x86")) as snapshot:
        assert value(snapshot, "ebp", frame=0) == STACK + 0x1040
        assert value(snapshot, "poi(ebp+8)", frame=0) == 0xC350
        assert value(snapshot, "eip", frame=1) == BASE + CODE + 5
        assert value(snapshot, "ip", frame=1) == BASE + CODE + 5
        assert value(snapshot, "ebp", frame=1) == STACK + 0x1060
        with pytest.raises(WrongUsage, match="ebx is not known in frame 1"):
            value(snapshot, "ebx", frame=1)
        with pytest.raises(WrongUsage, match="has no frame 99"):
            value(snapshot, "ebp", frame=99)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not an address"), ("zz", "'zz' is no number"), ("10+", "is not an address"), ("1 2", "is not an address"),
        ("vision!", "is not an address"), ("vision!nothing", "has no symbol 'nothing'"), ("poi(10)", "has no memory there"),
        ("poi(10", "is not an address"), ("8-10", "below zero"), ("ffffffffffffffff+1", "above 2"), ("xmm0", "is not an address"),
        ("r8+", "is not an address"), ("add!alloc", "has no symbol that is known"), ("1234567890123456789", "above 2"),
        ("(" * 40 + "1" + ")" * 40, "brackets"), ("poi(" * 40, "brackets"), ("1+" * 600 + "1", "characters"),
        ("+" * 900, "is not an address"), ("-" * 900, "is not an address"), ("()", "is not an address"), ("\0", "is not an address"),
    ],
)  # fmt: skip
def test_what_is_no_address_is_said_in_one_line(text, words, open_built):
    with open_built(process()) as snapshot:
        with pytest.raises(WrongUsage, match=words) as raised:
            value(snapshot, text)
        assert "\n" not in str(raised.value) and len(str(raised.value)) < 300


@pytest.mark.parametrize(
    ("text", "index"), [("~0", 0), ("~1", 1), ("0x10", 0), ("10", 0), ("0n32", 1), ("20", 1), ("16", 0)]
)
def test_threads_by_index_and_id(text, index, open_built):
    with open_built(process()) as snapshot:
        assert find_thread(snapshot.process, text).index == index


@pytest.mark.parametrize("text", ["~2", "30", "", "zz", "~"])
def test_a_thread_that_is_not_there(text, open_built: OpenBuilt):
    with open_built(process()) as snapshot, pytest.raises(WrongUsage, match=r"there are: ~0 0x10, ~1 0x20"):
        find_thread(snapshot.process, text)


def test_two_threads_of_one_name_are_told_apart(open_built):
    made = ProcessBuilder().thread(0x10).thread(10)
    with open_built(made) as snapshot:
        with pytest.raises(WrongUsage, match="names 2 threads"):
            find_thread(snapshot.process, "10")
        assert find_thread(snapshot.process, "0n10").index == 1
        assert find_thread(snapshot.process, "0x10").index == 0


def test_the_half_of_a_wow64_process(open_built):
    made = ProcessBuilder(arch="wow64", build=19041).thread(7)
    with open_built(made) as snapshot:
        process = snapshot.process
        wide, narrow = process.views
        stack = next(stack for stack in process.threads[0].stacks if stack.view == "x64")
        plain, wanted = FramePlace(process, snapshot.namer()), FramePlace(process, snapshot.namer(), arch="x64")
        assert (plain.view, wanted.view) == (narrow, wide)
        assert Expressions(plain).value("peb") == narrow.peb
        assert Expressions(wanted).value("peb") == wide.peb
        assert plain.view_at(stack.limit) == wide and plain.view_at(1 << 33) == wide and plain.view_at(0x10) == narrow


def test_a_32_bit_program_that_wrote_a_wow64_dump_has_32_bit_registers(open_built):
    with open_built(ProcessBuilder(arch="wow64", build=19041).thread(7)) as snapshot:
        narrow = snapshot.process.views[-1]
        sp = next(one for one in snapshot.process.threads[0].stacks if one.view == "x86").base - 0x10
        own = Registers("x86", {"eip": 0x1000, "esp": sp, "ebp": sp})
        thread = replace(snapshot.process.threads[0], registers=own, registers32=None)
        process = replace(snapshot.process, threads=(thread,))
        assert Expressions(FramePlace(process, snapshot.namer())).value("peb") == narrow.peb
        stacks = [thread_stack(process, thread, view, snapshot.namer()) for view in reversed(process.views)]
        assert stacks[0].frames and not stacks[1].frames
        assert not [gap for gap in stack_gaps({0: stacks}) if "registers" in gap]


def test_a_folder_in_place_of_a_thread_is_the_shells_doing(open_built):
    with open_built(ProcessBuilder().thread(1)) as snapshot, pytest.raises(WrongUsage, match="write '~0' in quotes"):
        find_thread(snapshot.process, "/home/me")
