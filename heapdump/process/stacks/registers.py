"""Register records: the CONTEXT of x64 and x86 threads (winnt.h)."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

_X64 = (
    "rax",
    "rcx",
    "rdx",
    "rbx",
    "rsp",
    "rbp",
    "rsi",
    "rdi",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "rip",
)
_X64_AT, _X64_BYTES = 0x78, 0x4D0
_X86 = ("edi", "esi", "ebx", "edx", "ecx", "eax", "ebp", "eip", "cs", "eflags", "esp")
_X86_AT, _X86_BYTES = 0x9C, 0xCC


_X64_VECTORS_AT, _X86_VECTORS_AT, _X86_LONG_BYTES = 0x1A0, 0xCC + 0xA0, 0x2CC
_X64_FLAGS_AT, _X64_HAS_VECTORS, _X86_HAS_VECTORS = (
    0x30,
    0x08,
    0x20,
)  # CONTEXT_FLOATING_POINT, CONTEXT_EXTENDED_REGISTERS


@dataclass(frozen=True, slots=True)
class Registers:
    """The registers of one thread.

    Attributes:
        arch: processor of the CONTEXT.
        values: name → value of the integer registers; 64 bits wide on x64, 32 on x86.
        vectors: xmm0, xmm1 … (16 bytes each) cut into words of pointer size, lowest first; () where the CONTEXT has
            none.
    """

    arch: Literal["x64", "x86"]
    values: Mapping[str, int]
    vectors: tuple[int, ...] = ()

    @property
    def ip(self) -> int:
        """Instruction pointer."""
        return self.values["rip" if self.arch == "x64" else "eip"]

    @property
    def sp(self) -> int:
        """Stack pointer."""
        return self.values["rsp" if self.arch == "x64" else "esp"]


def read_context(context: bytes) -> Registers | None:
    """The registers of a raw CONTEXT (winnt.h): x64 of 0x4D0 bytes and more, x86 of 0xCC and more; None for fewer."""
    if len(context) >= _X64_BYTES:
        values = struct.unpack_from("<17Q", context, _X64_AT)
        has_vectors = int.from_bytes(context[_X64_FLAGS_AT : _X64_FLAGS_AT + 4], "little") & _X64_HAS_VECTORS
        vectors = struct.unpack_from("<32Q", context, _X64_VECTORS_AT) if has_vectors else ()
        return Registers("x64", MappingProxyType(dict(zip(_X64, values, strict=True))), vectors)
    if len(context) >= _X86_BYTES:
        values = struct.unpack_from("<11I", context, _X86_AT)
        has_vectors = len(context) >= _X86_LONG_BYTES and int.from_bytes(context[:4], "little") & _X86_HAS_VECTORS
        vectors = struct.unpack_from("<32I", context, _X86_VECTORS_AT) if has_vectors else ()
        return Registers("x86", MappingProxyType(dict(zip(_X86, values, strict=True))), vectors)
    return None
