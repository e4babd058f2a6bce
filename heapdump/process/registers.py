"""Register records: the CONTEXT of x64 and x86 threads (winnt.h)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

_X64 = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rip")
_X64_AT, _X64_BYTES = 0x78, 0x4D0
_X86 = ("edi", "esi", "ebx", "edx", "ecx", "eax", "ebp", "eip", "cs", "eflags", "esp")
_X86_AT, _X86_BYTES = 0x9C, 0xCC


@dataclass(frozen=True, slots=True)
class Registers:
    """The integer registers of one thread by name."""

    arch: Literal["x64", "x86"]
    values: Mapping[str, int]

    @property
    def ip(self) -> int:
        """Instruction pointer."""
        return self.values["rip" if self.arch == "x64" else "eip"]

    @property
    def sp(self) -> int:
        """Stack pointer."""
        return self.values["rsp" if self.arch == "x64" else "esp"]


def read_context(context: bytes) -> Registers | None:
    """The registers of a raw CONTEXT; None where it is too short to be one."""
    if len(context) >= _X64_BYTES:
        values = struct.unpack_from("<17Q", context, _X64_AT)
        return Registers("x64", MappingProxyType(dict(zip(_X64, values, strict=True))))
    if len(context) >= _X86_BYTES:
        values = struct.unpack_from("<11I", context, _X86_AT)
        return Registers("x86", MappingProxyType(dict(zip(_X86, values, strict=True))))
    return None
