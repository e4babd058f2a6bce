"""32-bit dumps: dbghelp writes addresses from 0x80000000 on with their upper half set; the process has them plain."""

from __future__ import annotations

from typing import Literal

import pytest

from heapdump.dump.open import open_minidump
from heapdump.process.load import load_process
from tests.builders import BuiltDump, DumpBuilder

HIGH = 0xFFFFFFFF_00000000
TEB, PEB = 0xFFFDE000, 0xFFFDF000


def words(at: dict[int, int], size: int = 0x1000) -> bytes:
    data = bytearray(size)
    for offset, value in at.items():
        data[offset : offset + 4] = value.to_bytes(4, "little")
    return bytes(data)


def sign_extended(memory_list: Literal["64", "32"]) -> BuiltDump:
    builder = DumpBuilder(arch="x86", os=(6, 1, 7601), memory_list=memory_list)
    builder.module(HIGH + 0x80010000, 0x20000, "C:\\high.dll", version=None).module(0x10000, 0x1000, "C:\\low.exe")
    builder.module(HIGH + 0xFFFF0000, 0xF000, "C:\\top.dll")
    builder.unloaded(HIGH + 0x90000000, 0x10000, "gone.dll")
    builder.thread(4, HIGH + TEB, stack=(HIGH + 0xC0000000, 0x1000), ip=0x80011000, sp=0xC0000010)
    builder.thread_info(4, start_address=HIGH + 0x80011234)
    teb = words({0x4: 0xC0001000, 0x8: 0xC0000000, 0x18: TEB, 0x20: 99, 0x24: 4, 0x30: PEB, 0xE0C: 0xBFF01000})
    peb = words({0x18: 0x90000000, 0x88: 2, 0x8C: 16, 0x90: PEB + 0x800, 0x800: 0x90000000, 0x804: 0xA0000000})
    builder.memory(HIGH + TEB, teb).memory(HIGH + PEB, peb).memory(HIGH + 0xC0000000, bytes(0x1000)).memory(
        0x10000, b"MZ"
    )
    builder.region(HIGH + 0xBFF01000, 0xFF000, allocation_base=HIGH + 0xBFF01000, state="MEM_RESERVE")
    builder.region(HIGH + 0xC0000000, 0x1000, allocation_base=HIGH + 0xBFF01000)
    builder.region(HIGH + TEB, 0x2000)
    return builder.exception(4, 0xC0000005, HIGH + 0x80011000, (1, HIGH + 0xDEADBEEF), ip=0x80011000).build()


@pytest.fixture(params=["64", "32"])
def process(request, write_dump):
    with open_minidump(write_dump(sign_extended(request.param))) as dump:
        yield load_process(dump)


def test_modules_are_plain(process):
    assert [(m.span.start, m.span.end) for m in process.modules] == [
        (0x80010000, 0x80030000), (0x10000, 0x11000), (0xFFFF0000, 0xFFFFF000),
    ]  # fmt: skip
    assert process.where(0x80011000) == "high.dll+0x1000"


def test_memory_is_read_at_plain_addresses(process):
    assert process.space.try_pointer(TEB + 0x18) == TEB
    assert process.space.read(0x10000, 2) == b"MZ"
    assert process.space.try_read(HIGH + TEB, 4) is None


def test_teb_peb_and_heap_list_are_found(process):
    (view,) = process.views
    assert [(t.address, t.size) for t in process.threads[0].tebs] == [(TEB, 0x1000)]
    assert (view.peb, view.heap_addresses) == (PEB, (0x90000000, 0xA0000000))
    (stack,) = process.threads[0].stacks
    assert (stack.limit, stack.base, stack.reserved) == (0xC0000000, 0xC0001000, 0xBFF01000)


def test_the_memory_map_is_plain(process):
    assert process.regions.start.tolist() == [0xBFF01000, 0xC0000000, TEB]
    assert process.regions.allocation(0xC0000800).start == 0xBFF01000


def test_the_exception_is_plain(process):
    assert process.exception.address == 0x80011000
    assert process.exception.parameters == (1, 0xDEADBEEF)


def test_a_thread_s_start_address_is_plain(process):
    assert process.threads[0].start_address == 0x80011234


def test_unloaded_modules_are_plain(process):
    assert [(m.span.start, m.span.end) for m in process.unloaded] == [(0x90000000, 0x90010000)]


def test_a_64_bit_dump_keeps_high_addresses_as_they_are(write_dump):
    built = (
        DumpBuilder()
        .module(HIGH + 0x80010000, 0x1000, "C:\\a.dll")
        .memory(HIGH + 0x90000000, b"x")
        .thread(4, 0)
        .build()
    )
    with open_minidump(write_dump(built)) as dump:
        process = load_process(dump)
        assert process.modules[0].span.start == HIGH + 0x80010000
        assert process.space.read(HIGH + 0x90000000, 1) == b"x"
