"""The large-address flag of a program."""

from __future__ import annotations

import pytest

from heapdump.analyses.memory.summary import summarize
from heapdump.process.image_header import is_large_address_aware
from tests.builders import NtHeapBuilder, ProcessBuilder
from tests.conftest import OpenBuilt
from tests.patching import peek, poke, without_memory


@pytest.mark.parametrize("flags", [0x22, 0x2])
def test_the_large_address_flag_of_a_32_bit_program(open_built: OpenBuilt, flags: int) -> None:
    heap = NtHeapBuilder(arch="x86", base=0x1000000)
    heap.busy(40)
    process = ProcessBuilder(arch="x86").heap(heap.build())
    built = process.build()
    exe = process.plan.exe
    at = exe + peek(built, exe + 0x3C, 4) + 4 + 18
    with open_built(poke(built, (at, flags.to_bytes(2, "little")))) as snapshot:
        assert is_large_address_aware(snapshot.process) is bool(flags & 0x20)
    with open_built(without_memory(built, (exe, exe + 0x1000))) as snapshot:
        assert is_large_address_aware(snapshot.process) is None


@pytest.mark.parametrize(("flags", "top"), [(0x22, 0xFFFF0000), (0x2, 0x7FFF0000)])
def test_a_wow64_program_can_allocate_in_the_32_bit_part_of_its_memory(
    open_built: OpenBuilt, flags: int, top: int
) -> None:
    heap = NtHeapBuilder(arch="x86", base=0x1000000)
    heap.busy(40)
    process = ProcessBuilder(arch="wow64").heap(heap.build())
    built = process.build()
    exe = process.plan.exe
    at = exe + peek(built, exe + 0x3C, 4) + 4 + 18
    with open_built(poke(built, (at, flags.to_bytes(2, "little")))) as snapshot:
        free = summarize(snapshot.usage, snapshot.heaps, snapshot.walk).largest_allocatable
        assert free is not None
        assert free.address + free.bytes <= top
        assert (free.address + free.bytes > 0x80000000) == (top > 0x80000000)
