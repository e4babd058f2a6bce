"""Access violations whose pointer was read from a freed block: the instruction, the pointer, the block."""

from __future__ import annotations

import struct

import pytest

from heapdump.snapshot import Snapshot
from tests.builders import BuiltDump, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.patching import poke

TID = 99
LOAD_AND_USE = {"x64": bytes.fromhex("488b01 488b5010"), "x86": bytes.fromhex("558bec 8b4508 8b00 8b5008")}
"""x64: mov rax,[rcx]; mov rdx,[rax+0x10]. x86: push ebp; mov ebp,esp; mov eax,[ebp+8]; mov eax,[eax]; mov edx,[eax+8]."""

AT = {"x64": 3, "x86": 8}
"""Offset of the instruction that fails."""


def crashed(arch: HeapArch, held: int, *, is_free: bool, address: int | None = None) -> tuple[BuiltDump, int]:
    """(dump of a process whose code used the word `held` at 0x20 of a block, the address of that word)."""
    width, base = (8, 0x20000000000) if arch == "x64" else (4, 0x20000000)
    heap = NtHeapBuilder(arch=arch, base=base)
    heap.busy(40)
    block = heap.free(8) + 2 * width if is_free else heap.busy(100)
    heap.busy(40)
    process = ProcessBuilder(arch=arch).heap(heap.build())
    code = process.plan.exe + 0x1000
    process.memory(code, LOAD_AND_USE[arch].ljust(64, b"\x90"))
    place = block + 0x20
    stack = struct.pack("<4I", 0, 0x401234, place, 0) if arch == "x86" else bytes(16)
    sp = (process.plan.stacks + 0x100000) - 0x400
    process.thread(TID, content=stack)
    registers = {"rax": held, "rcx": place, "rsp": sp} if arch == "x64" else {"eax": held, "ebp": sp}
    if address is None:
        address = (1 << 64) - 1 if held >> 47 else held + (0x10 if arch == "x64" else 8)
    process.dump.exception(TID, 0xC0000005, code + AT[arch], (0, address), sp=sp, registers=registers)
    return poke(process.build(), (place, held.to_bytes(width, "little"))), place


def message(snapshot: Snapshot) -> str:
    return snapshot.incidents[0].leading.finding.message


@pytest.mark.parametrize(("arch", "held"), [("x64", 0x4C43524F000000DF), ("x64", 0x1234567890), ("x86", 0xDF)])
def test_a_pointer_that_was_read_from_a_freed_block_is_a_use_after_free(open_built, arch, held):
    built, place = crashed(arch, held, is_free=True)
    with open_built(built) as snapshot:
        (incident,) = snapshot.incidents
        assert (incident.bug, incident.is_error, incident.address) == ("heap-use-after-free", True, place)
        assert incident.block is not None and incident.block.state == "free"
        assert incident.leading.report is not None and incident.leading.report.is_likely
        holder = "rcx" if arch == "x64" else "[ebp+0x8]"
        assert f"reads through {holder} = +0x20 in the freed" in message(snapshot)
        assert incident.sentence.startswith(f"app.exe+{0x1000 + AT[arch]:#x} reads through {holder}")
        access = incident.leading.report.access
        assert access is not None and (access.kind, access.bytes) == ("read", 8 if arch == "x64" else 4)
        assert access.instruction.startswith("mov ")


@pytest.mark.parametrize(("arch", "held"), [("x64", 0x4C43524F000000DF), ("x86", 0xDF)])
def test_the_same_crash_through_a_busy_block_is_no_damage(open_built, arch, held):
    built, _ = crashed(arch, held, is_free=False)
    with open_built(built) as snapshot:
        (incident,) = snapshot.incidents
        assert (incident.bug, incident.is_error) == (None, False)


@pytest.mark.parametrize(
    ("held", "words", "is_freed"),
    [
        (0xFEEEFEEEFEEEFEEE, "feeefeee: the heap's fill of freed memory", True),
        (0xCDCDCDCDCDCDCDCD, "cdcdcdcd: the debug CRT's fill of new memory", False),
        (0x7266206F6C6C6548, "looks like text: 'Hello fr'", False),
        (0, "rax = 0x0 in mov rdx, qword ptr [rax+0x10]: null", False),
        (0x20, "null + 0x20, a member of a null pointer", False),
    ],
)
def test_bad_pointers_are_read(open_built, held, words, is_freed):
    built, _ = crashed("x64", held, is_free=False)
    with open_built(built) as snapshot:
        assert words in message(snapshot)
        assert snapshot.incidents[0].bug == ("heap-use-after-free" if is_freed else None)
        assert snapshot.incidents[0].is_error is is_freed


def test_the_register_that_no_address_can_have_is_named(open_built):
    process = ProcessBuilder().heap(NtHeapBuilder(base=0x20000000000).build())
    code = process.plan.exe + 0x1000
    process.memory(code, bytes.fromhex("48c7040841414141").ljust(64, b"\x90"))  # mov qword ptr [rax+rcx], 0x41414141
    sp = process.plan.stacks + 0x100000 - 0x400
    process.thread(TID, content=bytes(16))
    bad = 0xFEFEFEFEFEFEFEFE
    process.dump.exception(
        TID, 0xC0000005, code, (1, (1 << 64) - 1), sp=sp, registers={"rax": 0, "rcx": bad, "rsp": sp}
    )
    with open_built(process.build()) as snapshot:
        assert f"; rcx = {bad:#x} in mov qword ptr [rax+rcx], 0x41414141: non-canonical" in message(snapshot)


def test_code_that_does_not_lead_to_the_address_is_not_believed(open_built):
    built, _ = crashed("x64", 0x1234567890, is_free=True, address=0x5000000)
    with open_built(built) as snapshot:
        assert snapshot.incidents[0].bug is None
