"""Thread CONTEXT records of x64 (0x4D0 bytes), x86 (0x2CC bytes) and arm64 (0x390 bytes).

In: register names and values. Out: the record's bytes. The layouts are restated by hand on purpose; this
module knows nothing of the tool under test.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from .dump_truth import Arch

X64_SIZE, X86_SIZE, ARM64_SIZE = 0x4D0, 0x2CC, 0x390

_X64 = {
    "rax": 0x78, "rcx": 0x80, "rdx": 0x88, "rbx": 0x90, "rsp": 0x98, "rbp": 0xA0, "rsi": 0xA8, "rdi": 0xB0,
    "r8": 0xB8, "r9": 0xC0, "r10": 0xC8, "r11": 0xD0, "r12": 0xD8, "r13": 0xE0, "r14": 0xE8, "r15": 0xF0,
    "rip": 0xF8,
}  # fmt: skip
_X86 = {
    "edi": 0x9C, "esi": 0xA0, "ebx": 0xA4, "edx": 0xA8, "ecx": 0xAC, "eax": 0xB0, "ebp": 0xB4, "eip": 0xB8,
    "esp": 0xC4,
}  # fmt: skip
_ARM64 = {f"x{i}": 0x8 + 8 * i for i in range(29)} | {"fp": 0xF0, "lr": 0xF8, "sp": 0x100, "pc": 0x108}


def cpu_context(arch: Arch, ip: int, sp: int, registers: Mapping[str, int] | None = None) -> bytes:
    """CONTEXT record with these values; registers that are not named are 0.

    Raises:
        ValueError: a register the architecture does not have.
    """
    if arch == "x64":
        record, offsets, word = _x64_frame(), _X64, "<Q"
        values = {"rip": ip, "rsp": sp}
    elif arch == "x86":
        record, offsets, word = _x86_frame(), _X86, "<I"
        values = {"eip": ip, "esp": sp}
    else:
        record, offsets, word = _arm64_frame(), _ARM64, "<Q"
        values = {"pc": ip, "sp": sp}
    for name, value in (values | dict(registers or {})).items():
        if name not in offsets:
            raise ValueError(f"{arch} has no register {name!r}; it has {', '.join(offsets)}")
        struct.pack_into(word, record, offsets[name], value)
    return bytes(record)


def _x64_frame() -> bytearray:
    record = bytearray(X64_SIZE)
    struct.pack_into("<II", record, 0x30, 0x10001F, 0x1F80)  # ContextFlags: all of AMD64; MxCsr
    struct.pack_into("<6H", record, 0x38, 0x33, 0x2B, 0x2B, 0x53, 0x2B, 0x2B)  # cs ds es fs gs ss
    struct.pack_into("<I", record, 0x44, 0x246)  # EFlags
    struct.pack_into("<H", record, 0x100, 0x27F)  # FltSave.ControlWord
    struct.pack_into("<II", record, 0x118, 0x1F80, 0xFFFF)  # FltSave.MxCsr, MxCsr_Mask
    return record


def _x86_frame() -> bytearray:
    record = bytearray(X86_SIZE)
    struct.pack_into("<I", record, 0x00, 0x1003F)  # ContextFlags: i386 with all but XSTATE
    struct.pack_into("<I", record, 0x1C, 0x27F)  # FloatSave.ControlWord
    struct.pack_into("<4I", record, 0x8C, 0x2B, 0x53, 0x2B, 0x2B)  # gs fs es ds
    struct.pack_into("<II", record, 0xBC, 0x23, 0x246)  # cs, EFlags
    struct.pack_into("<I", record, 0xC8, 0x2B)  # ss
    return record


def _arm64_frame() -> bytearray:
    record = bytearray(ARM64_SIZE)
    struct.pack_into("<II", record, 0, 0x400007, 0x60000000)  # ContextFlags: control, integer, float; Cpsr
    return record
