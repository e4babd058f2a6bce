"""PEB, TEB, process parameters and heap list of a built process.

In: addresses and values. Out: structures in a `MemoryImage` of the right pointer size. All layouts are
restated by hand on purpose; nothing of the tool under test is imported.
"""

from __future__ import annotations

from dataclasses import dataclass

from .memory_image import MemoryImage

PARAMETERS_BYTES = 0x2000


@dataclass(frozen=True)
class PebFacts:
    """What a PEB tells."""

    image_base: int
    parameters: int
    heaps: tuple[int, ...]
    heap_list: int
    global_flag: int
    os: tuple[int, int, int]


@dataclass(frozen=True)
class TebFacts:
    """What a TEB tells; the stack is committed in [limit, base) and reserved from `bottom`."""

    pid: int
    tid: int
    peb: int
    stack_base: int
    stack_limit: int
    stack_bottom: int


def heap_slots(count: int) -> int:
    """Entries of the array that holds so many heap handles: 16, doubled as often as needed."""
    slots = 16
    while slots < count:
        slots *= 2
    return slots


def write_peb(image: MemoryImage, at: int, facts: PebFacts) -> None:
    """Write a PEB of the image's pointer size."""
    x64 = image.pointer == 8
    image.word(at + (0x10 if x64 else 0x08), facts.image_base)
    image.word(at + (0x20 if x64 else 0x10), facts.parameters)
    image.word(at + (0x30 if x64 else 0x18), facts.heaps[0] if facts.heaps else 0)
    image.u32(at + (0xB8 if x64 else 0x64), 2)  # NumberOfProcessors
    image.u32(at + (0xBC if x64 else 0x68), facts.global_flag)
    image.u32(at + (0xE8 if x64 else 0x88), len(facts.heaps), heap_slots(len(facts.heaps)))
    image.word(at + (0xF0 if x64 else 0x90), facts.heap_list)
    major, minor, build = facts.os
    image.u32(at + (0x118 if x64 else 0xA4), major, minor)
    image.u16(at + (0x120 if x64 else 0xAC), build)
    image.word(facts.heap_list, *facts.heaps)


def write_teb(image: MemoryImage, at: int, facts: TebFacts) -> None:
    """Write a TEB of the image's pointer size."""
    x64 = image.pointer == 8
    image.word(at + image.pointer, facts.stack_base, facts.stack_limit)
    image.word(at + (0x30 if x64 else 0x18), at)  # NtTib.Self
    image.word(at + (0x40 if x64 else 0x20), facts.pid, facts.tid)
    image.word(at + (0x60 if x64 else 0x30), facts.peb)
    image.word(at + (0x1478 if x64 else 0xE0C), facts.stack_bottom)
    if not x64:
        image.word(at, 0xFFFFFFFF)  # no exception handlers


def join_wow64_tebs(image: MemoryImage, image32: MemoryImage, teb: int, build: int, cpu_area: int) -> None:
    """Link a 64-bit TEB with its 32-bit one at +0x2000, as the build does it."""
    teb32 = teb + 0x2000
    if build >= 10240:
        image.u32(teb + 0x180C, 0x2000)  # WowTebOffset
        image32.u32(teb32 + 0xFDC, 0x100000000 - 0x2000)
    else:
        image.word(teb, teb32)  # NtTib.ExceptionList
        image32.word(teb32 + 0xF70, teb)  # GdiBatchCount
    image.word(teb + 0x1480 + 8, cpu_area)  # TlsSlots[1]: the 32-bit context


def write_parameters(image: MemoryImage, at: int, exe: str, command_line: str) -> None:
    """Write RTL_USER_PROCESS_PARAMETERS, its strings and a short environment into PARAMETERS_BYTES."""
    x64 = image.pointer == 8
    size = 0x440 if x64 else 0x298
    image.u32(at, size, size, 1)  # maximum length, length, flags: normalised
    tail = at + 0x480

    def put(field: int, text: str) -> None:
        """Write a UNICODE_STRING at a field and its text behind what is there."""
        nonlocal tail
        data = text.encode("utf-16-le", "surrogatepass")
        image.u16(at + field, len(data))
        image.u16(at + field + 2, len(data) + 2)
        image.word(at + field + image.pointer, tail)
        image.write(tail, data + b"\0\0")
        tail += (len(data) + 2 + 15) & ~15

    put(0x38 if x64 else 0x24, exe[: exe.rfind("\\") + 1])
    put(0x60 if x64 else 0x38, exe)
    put(0x70 if x64 else 0x40, command_line)
    image.word(at + (0x80 if x64 else 0x48), tail)
    image.write(
        tail,
        "PATH=C:\\Windows\0SystemRoot=C:\\Windows\0USERNAME=quincy\0COMPUTERNAME=ORACLE-77\0\0".encode(
            "utf-16-le", "surrogatepass"
        ),
    )


def write_shared_page(image: MemoryImage, at: int, os: tuple[int, int, int]) -> None:
    """Write the version fields of KUSER_SHARED_DATA."""
    major, minor, build = os
    image.u32(at + 0x260, build)
    image.u32(at + 0x26C, major, minor)
    image.write(at + 0x30, "C:\\Windows".encode("utf-16-le", "surrogatepass"))
