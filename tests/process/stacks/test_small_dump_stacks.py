"""Call stacks of dumps without code: frame pointer chains, leaves, words that are no return addresses."""

from __future__ import annotations

import json
import struct

import pytest
from click.testing import CliRunner

from heapdump.cli import cli
from heapdump.process.stacks.frames import StackEnd, thread_stack
from tests.asking import ask
from tests.builders import BuiltDump, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke, without_memory
from tests.process.stacks.test_thread_stacks import BASE, CODE, SIZE, STACK, built, info, q, ret

BOTTOM = STACK + 0x4000
LOW = STACK + 0x1000


def without_code(
    arch: HeapArch, words: dict[int, int], registers: dict[str, int], ip: int, bottom: int = BOTTOM
) -> BuiltDump:
    """A thread whose stack holds pointer-sized words at these addresses; no code is in the dump."""
    size = 8 if arch == "x64" else 4
    content = bytearray(bottom - LOW)
    for address, word in words.items():
        content[address - LOW : address - LOW + size] = word.to_bytes(size, "little")
    process = ProcessBuilder(arch=arch, build=19041).module(BASE, SIZE, r"C:\acme\vision.dll")
    process.thread(7, stack=(STACK, bottom), sp=LOW, ip=ip, registers=registers, content=bytes(content))
    return process.build()


def end_of(open_built, dump: BuiltDump | bytes) -> StackEnd:
    with open_built(dump) as snapshot:
        process = snapshot.process
        return thread_stack(process, process.threads[0], process.views[0], snapshot.namer()).end


def frames(open_built, dump: BuiltDump) -> list[tuple[int, str, str]]:
    with open_built(dump) as snapshot:
        process = snapshot.process
        found = thread_stack(process, process.threads[0], process.views[0], snapshot.namer())
        return [(f.frame.address, str(f.how), str(f.frame.trust)) for f in found.frames]


def chain(*frames: tuple[int, int, int]) -> dict[int, int]:
    """Words of links: (frame pointer, the caller's, return address)."""
    return {at: value for frame, caller, back in frames for at, value in ((frame, caller), (frame + 4, back))}


CALLER, MIDDLE, START = BASE + CODE + 0x100, BASE + CODE + 0x200, BASE + CODE + 0x300
FULL = chain(
    (LOW + 0x40, LOW + 0x80, CALLER),
    (LOW + 0x80, LOW + 0xC0, MIDDLE),
    (LOW + 0xC0, BOTTOM - 0x20, START),
    (BOTTOM - 0x20, 0, 0),
)


def test_a_chain_that_ends_at_the_threads_start_is_its_own_witness(open_built):
    dump = without_code("x86", FULL, {"ebp": LOW + 0x40}, BASE + CODE)
    assert frames(open_built, dump) == [
        (BASE + CODE, "context", "exact"), (CALLER, "frame-pointer", "derived"),
        (MIDDLE, "frame-pointer", "derived"), (START, "frame-pointer", "derived"),
    ]  # fmt: skip


def test_a_chain_may_end_with_all_bits_set(open_built):
    words = chain(
        (LOW + 0x40, LOW + 0x80, CALLER), (LOW + 0x80, BOTTOM - 0x20, MIDDLE), (BOTTOM - 0x20, 0xFFFFFFFF, START)
    )
    dump = without_code("x86", words, {"ebp": LOW + 0x40}, BASE + CODE)
    assert frames(open_built, dump)[1:] == [
        (address, "frame-pointer", "derived") for address in (CALLER, MIDDLE, START)
    ]  # fmt: skip


def test_a_chain_that_is_cut_is_a_guess(open_built):
    words = chain((LOW + 0x40, LOW + 0x80, CALLER), (LOW + 0x80, 0x1234, MIDDLE))
    dump = without_code("x86", words, {"ebp": LOW + 0x40}, BASE + CODE)
    assert frames(open_built, dump)[1][1:] == ("frame-pointer", "guess")


def test_frame_pointers_that_go_down_end_the_chain(open_built):
    words = chain((LOW + 0x40, LOW + 0x20, CALLER), (LOW + 0x20, LOW + 0x40, MIDDLE))
    found = frames(open_built, without_code("x86", words, {"ebp": LOW + 0x40}, BASE + CODE))
    assert "frame-pointer" not in {how for _, how, _ in found}


def test_a_system_call_has_its_callers_at_the_stack_pointer(open_built):
    words = FULL | {LOW: BASE + CODE + 0x50, LOW + 4: BASE + CODE + 0x80}
    found = frames(open_built, without_code("x86", words, {"ebp": LOW + 0x40}, BASE + CODE))
    assert found[1:4] == [
        (BASE + CODE + 0x50, "scan", "guess"), (BASE + CODE + 0x80, "scan", "guess"),
        (CALLER, "frame-pointer", "derived"),
    ]  # fmt: skip


def test_the_chain_is_found_above_a_register_that_is_no_frame_pointer(open_built):
    words = FULL | {LOW + 0x10: BASE + CODE + 0x444}
    found = frames(open_built, without_code("x86", words, {"ebp": 5}, BASE + CODE))
    assert [address for address, _, _ in found] == [BASE + CODE, CALLER, MIDDLE, START]


def test_a_caller_without_frame_pointer_is_found_by_the_call_that_enters_the_leaf(open_built):
    """A leaf at +0x100 in a function that +0x80 calls; the frame pointer is that of the caller of +0x80."""
    leaf, between, outer = CODE + 0x100, CODE + 0x80, CODE + 0x20
    dump = built(
        "x86",
        {},
        struct.pack("<6I", 1, ret(3) + 1, BASE + between, LOW + 0x14, LOW + 0x14, 0),
        {"ebp": LOW + 0x10},
        BASE + leaf + 2,
    )
    words = [(LOW + 0x10, struct.pack("<2I", 0, BASE + outer))]
    calls = [
        (BASE + between - 5, b"\xe8" + struct.pack("<i", leaf - between)),
        (BASE + outer - 5, b"\xe8" + struct.pack("<i", CODE + 0x900 - outer)),
    ]
    assert [found[:2] for found in frames(open_built, poke(dump, *words, *calls))][:3] == [
        (BASE + leaf + 2, "context"), (BASE + between, "call-scan"), (BASE + outer, "frame-pointer"),
    ]  # fmt: skip


def test_a_call_through_null_returns_to_the_word_at_the_stack_pointer(open_built):
    functions = {CODE: (CODE + 0x800, info(0, []))}
    dump = built("x64", functions, q(ret(60), ret(80), 0), {}, 0)
    assert frames(open_built, dump)[:3] == [
        (0, "context", "exact"), (ret(60), "call-scan", "derived"), (ret(80), "unwind", "exact"),
    ]  # fmt: skip


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_addresses_in_an_exception_record_or_a_context_are_no_frames(open_built, arch):
    size = 8 if arch == "x64" else 4
    record, context = LOW + 0x100, LOW + 0x200
    words = {
        record: 0xC0000005, record + 8 + size: CALLER, record + 8 + 2 * size: 2,
        context + (0x30 if arch == "x64" else 0): 0x10001F if arch == "x64" else 0x1007F,
        context + (0xF8 if arch == "x64" else 0xB8): MIDDLE, BOTTOM - 0x40: START,
    }  # fmt: skip
    found = frames(open_built, without_code(arch, words, {}, BASE + CODE))
    assert [address for address, _, _ in found] == [BASE + CODE, START]


def test_x64_arguments_come_from_home_slots_that_the_function_filled(write_dump):
    functions = {CODE: (CODE + 0x400, info(14, [(14, 2, 3)])), CODE + 0x400: (CODE + 0x800, info(0, []))}
    stack = q(0, 0, 0, 0, ret(0xD8), 0xC350, 0xBAD, 0x77)
    dump = built("x64", functions, stack, {}, ret(60))
    # mov [rsp+8], rcx; mov [rsp+0x18], r8; sub rsp, 0x20
    dump = poke(dump, (BASE + CODE, bytes.fromhex("48894c24084c894424184883ec20")))
    run = CliRunner().invoke(cli, ["threads", str(write_dump(dump)), "--args", "--json"])
    (record,) = json.loads(run.stdout)["data"]
    assert [frame["args"] for frame in record["frames"]] == [["0xc350", None, "0x77"], [], []]
    assert record["frames"][0]["return"] == hex(ret(0xD8))


@pytest.mark.parametrize("arch", ["x64", "x86"])
@pytest.mark.parametrize(
    ("distance", "bottom", "end"),
    [
        (0x6000, LOW + 0x8000, StackEnd.SCAN),
        (0x3000, LOW + 0x3800, StackEnd.BOTTOM),
        (0, LOW + 0x3000, StackEnd.BOTTOM),
    ],
)
def test_a_scan_that_gives_up_is_no_bottom(open_built, arch, distance, bottom, end):
    words = {LOW + distance: CALLER} if distance else {}
    assert end_of(open_built, without_code(arch, words, {}, BASE + CODE, bottom)) is end


@pytest.mark.parametrize("arch", ["x64", "x86"])
def test_a_scan_over_a_hole_ends_at_memory(open_built, arch):
    dump = without_code(arch, {BOTTOM - 0x800: CALLER}, {}, BASE + CODE)
    assert end_of(open_built, dump) is StackEnd.BOTTOM
    assert end_of(open_built, without_memory(dump, (BOTTOM - 0x1000, BOTTOM))) is StackEnd.MEMORY


def test_a_scan_that_gave_up_is_said_and_exits_with_4(tmp_path):
    path = tmp_path / "deep.dmp"
    path.write_bytes(without_code("x86", {LOW + 0x6000: CALLER}, {}, BASE + CODE, LOW + 0x8000).data)
    answer = ask(tmp_path, ["threads", str(path), "--frames"])
    words = "no return address in the next 16,384 bytes of the stack"
    assert (answer.exit_code, words in answer.stdout) == (4, True)
    assert answer.stderr == f"heapdump: incomplete: frames of 1 thread are missing: {words}\n"


def test_a_stack_that_is_not_in_the_dump_is_said_once_and_exits_with_4(tmp_path):
    process = ProcessBuilder(arch="x64", build=19041).module(BASE, SIZE, r"C:\acme\vision.dll")
    stacks = [(STACK * tid, STACK * tid + 0x4000) for tid in (7, 8)]
    for tid, stack in zip((7, 8), stacks, strict=True):
        process.thread(tid, stack=stack, ip=BASE + CODE)
    path = tmp_path / "small.dmp"
    path.write_bytes(without_memory(process.build(), *stacks))
    answer = ask(tmp_path, ["threads", str(path), "--frames"])
    assert answer.exit_code == 4
    assert answer.stderr == "heapdump: incomplete: frames of 2 threads are missing: stack memory is not in the dump\n"


def test_one_thread_by_its_id_or_index_with_its_registers(tmp_path):
    process = ProcessBuilder(arch="x64", build=19041).module(BASE, SIZE, r"C:\acme\vision.dll")
    for tid in (7, 0x28):
        process.thread(tid, ip=BASE + CODE + tid, registers={"rcx": BASE + CODE})
    path = tmp_path / "two.dmp"
    path.write_bytes(process.build().data)
    for name in ("~1", "0x28"):
        (record,) = json.loads(ask(tmp_path, ["threads", str(path), name, "--registers", "--json"]).stdout)["data"]
        assert record["id"] == 0x28
        values = {row["name"]: row for row in record["registers"]}
        assert values["rip"]["value"] == hex(BASE + CODE + 0x28)
        assert values["rcx"]["points_to"]["text"] == "vision.dll+0x2000"
        assert values["rax"]["points_to"] is None
    missing = ask(tmp_path, ["threads", str(path), "~9"])
    assert (missing.exit_code, missing.stdout) == (2, "")
