"""Stacks of x86 code without frame pointers, by the frame data of PDBs laid out by hand."""

from __future__ import annotations

import struct
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heapdump.process.stacks.frame_programs import caller_of
from heapdump.process.stacks.frames import thread_frames
from heapdump.process.symbols.frame_data import FrameRecord
from heapdump.process.symbols.namer import Namer
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.pdb import FrameStreams, TypeStream, fpo, frame_data, pdb

BASE, CODE, STACK = 0x67000000, 0x2000, 0x30000000
SP = STACK + 0x1000
GUID = uuid.UUID("11111111-2222-3333-4444-555555555555").bytes_le
CALL = bytes.fromhex("e800000000")  # call next
PLAIN = b"$T0 .raSearch = $eip $T0 ^ = $esp $T0 4 + =\0"
EBP = b"$T0 $ebp = $eip $T0 4 + ^ = $ebp $T0 ^ = $esp $T0 8 + =\0"
STRINGS = b"\0" + PLAIN + EBP
INNER, OUTER = CODE + 0x100, CODE + 0x200
"""RVAs of two functions of 0x100 bytes."""


def ret(function: int, number: int) -> int:
    """A return address in a function."""
    return BASE + function + 5 * number


def built(stack: bytes, ebp: int = 0) -> BuiltDump:
    """A thread in the middle of INNER, its stack at SP."""
    process = ProcessBuilder(arch="x86", build=19041)
    process.module(BASE, 0x8000, r"C:\acme\vision.dll", pdb=("vision.pdb", GUID, 1))
    for function in (CODE, INNER, OUTER):  # the calls of each enter elsewhere
        process.memory(BASE + function, (CALL * 0x40)[:0x100])
    registers = {"ebp": ebp}
    process.thread(7, stack=(STACK, STACK + 0x4000), sp=SP, ip=ret(INNER, 8), registers=registers, content=stack)
    return process.build()


def frames(open_built, dump: BuiltDump, folder: Path, data: FrameStreams) -> list[tuple[int, str, str]]:
    (folder / "vision.pdb").write_bytes(pdb(TypeStream().build(), GUID, 1, data))
    with open_built(dump) as snapshot:
        process = snapshot.process
        namer = Namer(process, symbol_path=str(folder))
        found = thread_frames(process, process.threads[0], process.views[0], namer)
        return [(f.frame.address, f.how, f.frame.trust) for f in found]


NEW = FrameStreams(
    new=frame_data(INNER, 0x100, 1, local_bytes=8, parameter_bytes=8, saved=4)
    + frame_data(OUTER, 0x100, 1, local_bytes=4, parameter_bytes=0, saved=0),
    strings=STRINGS,
)
OLD = FrameStreams(
    fpo=fpo(INNER, 0x100, local_words=2, parameter_words=2, prolog=3, registers=1)
    + fpo(OUTER, 0x100, local_words=1, parameter_words=0, prolog=1, registers=0)
)


@pytest.mark.parametrize("data", [NEW, OLD], ids=["new", "old"])
def test_frames_without_a_frame_pointer_are_found_by_the_pdb(open_built, tmp_path, data):
    # INNER: a saved register and two locals, one of which looks like a return address; then its two parameters;
    # OUTER: one local, then its return address
    stale = ret(CODE, 20)
    stack = struct.pack("<9I", 0, stale, 1, ret(OUTER, 9), 5, 6, 0, ret(CODE, 4), 0)
    assert frames(open_built, built(stack), tmp_path, data)[:3] == [
        (ret(INNER, 8), "context", "exact"),
        (ret(OUTER, 9), "unwind", "derived"),
        (ret(CODE, 4), "unwind", "derived"),
    ]


def test_without_the_pdb_the_stale_word_is_taken(open_built, tmp_path):
    stack = struct.pack("<9I", 0, ret(CODE, 20), 1, ret(OUTER, 9), 5, 6, 0, ret(CODE, 4), 0)
    empty = FrameStreams()
    assert frames(open_built, built(stack), tmp_path, empty)[1][0] == ret(CODE, 20)


def test_a_program_may_go_by_the_frame_pointer(open_built, tmp_path):
    data = FrameStreams(new=frame_data(INNER, 0x100, 1 + len(PLAIN), local_bytes=0, parameter_bytes=0, saved=0),
                        strings=STRINGS)  # fmt: skip
    stack = struct.pack("<6I", 0, ret(CODE, 20), 0, 0, ret(OUTER, 9), 0)
    assert frames(open_built, built(stack, SP + 12), tmp_path, data)[1] == (ret(OUTER, 9), "unwind", "derived")


def test_a_place_that_holds_no_return_address_is_searched_on(open_built, tmp_path):
    stack = struct.pack("<9I", 0, 0, 1, 0x1234, 0, ret(OUTER, 9), 0, 0, 0)
    assert frames(open_built, built(stack), tmp_path, NEW)[1][:2] == (ret(OUTER, 9), "unwind")


class Memory:
    """Words that are all alike."""

    def try_integer(self, at: int, width: int) -> int | None:
        """A word, absent at odd multiples of 4."""
        return at if at & 4 else None


WORDS = st.sampled_from(
    [
        "$eip",
        "$esp",
        "$ebp",
        "$T0",
        ".raSearch",
        ".cbLocals",
        "^",
        "=",
        "+",
        "-",
        "*",
        "/",
        "%",
        "@",
        "0",
        "4",
        "x",
        "0x7fffffff",
    ]
)


@given(words=st.lists(WORDS, max_size=40))
def test_any_program_ends_with_registers_or_none(words):
    record = FrameRecord(0, 1, 4, 4, 4, " ".join(words))
    found = caller_of(Memory(), record, {"eip": 1, "esp": 16, "ebp": 32}, 0, lambda address: address % 3 == 0)  # type: ignore[arg-type]
    assert found is None or all(0 <= value <= 0xFFFFFFFF for value in found.values())
