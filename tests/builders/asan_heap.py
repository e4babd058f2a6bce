"""Chunks of AddressSanitizer with their shadow, laid out by hand, and a module that exports the runtime's names.

In: sizes, states, stack ids. Out: memory and regions of a process, and the truth. The layout is restated on purpose;
nothing of the tool under test is imported.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import Literal

from tests.builders.process import ProcessBuilder

PAGE = 0x1000
RUNTIME, RUNTIME_BYTES = 0x180000000, 0x10000
X86_RUNTIME, X86_SHADOW = 0x60000000, 0x30000000
SHADOW = 0x100000000000
EXPORTS, VARIABLE = 0x2000, 0xF000
DATA = RUNTIME_BYTES - 0x2000
ALLOCATED, QUARANTINED = 2, 3


@dataclass(frozen=True)
class Chunk:
    """A chunk as the program sees it: address and requested bytes."""

    address: int
    size: int
    busy: bool
    stack: int


@dataclass
class AsanHeapBuilder:
    """One allocation full of chunks. `old`: headers of runtimes before LLVM 12."""

    arch: Literal["x64", "x86"] = "x64"
    base: int = 0x7F6C8D920000
    old: bool = False
    name: str = "clang_rt.asan_dynamic-x86_64.dll"
    chunks: list[Chunk] = field(default_factory=list)
    _memory: bytearray = field(default_factory=bytearray)
    _shadow: bytearray = field(default_factory=bytearray)

    @property
    def runtime(self) -> int:
        """Base of the runtime's module."""
        return RUNTIME if self.arch == "x64" else X86_RUNTIME

    @property
    def shadow(self) -> int:
        """Base of the shadow."""
        return SHADOW if self.arch == "x64" else X86_SHADOW

    def shadow_of(self, address: int) -> int:
        """The address of the shadow byte of an address."""
        return self.shadow + (address >> 3)

    def chunk(self, size: int, *, busy: bool = True, stack: int = 7, kind: int = 1, redzone: int = 16) -> int:
        """Add a chunk behind the last one; the address of its user data."""
        body = -(-size // 8) * 8
        total = -(-(redzone + body + 8) // 16) * 16
        at = len(self._memory)
        address = self.base + at + redzone
        self._memory += bytes(redzone - 16) + self._header(size, busy=busy, stack=stack, kind=kind)
        self._memory += (b"\x41" * size).ljust(total - redzone, b"\0")
        inside = [0] * (size // 8) + ([size % 8] if size % 8 else []) if busy else [0xFD] * (body // 8)
        self._shadow += bytes([0xFA] * (redzone // 8) + inside).ljust(total // 8, b"\xfa")
        self.chunks.append(Chunk(address, size, busy, stack))
        return address

    def _header(self, size: int, *, busy: bool, stack: int, kind: int) -> bytes:
        state = ALLOCATED if busy else QUARANTINED
        if self.old:
            return struct.pack("<4I", state, kind << 25, size, stack)
        return struct.pack("<BBHIII", state, kind, size >> 32, size & 0xFFFFFFFF, stack, 0)

    def add_to(self, process: ProcessBuilder) -> ProcessBuilder:
        """The process with the module, the chunks and their shadow."""
        process.module(self.runtime, RUNTIME_BYTES, f"C:\\acme\\{self.name}")
        process.memory(self.runtime + EXPORTS, _exports(["__asan_init", "__asan_shadow_memory_dynamic_address"]))
        memory = bytes(self._memory.ljust(-(-len(self._memory) // PAGE) * PAGE, b"\0"))
        process.region(self.base, len(memory)).memory(self.base, memory)
        low = self.shadow_of(self.base) & -PAGE
        shadow = bytes(self.shadow_of(self.base) - low) + bytes(self._shadow)
        size = -(-len(shadow) // PAGE) * PAGE
        process.region(low, size).memory(low, shadow.ljust(size, b"\xfa"))
        return process

    def patches(self) -> list[tuple[int, bytes]]:
        """Bytes to write over the module's header page and data: the export directory, and the shadow's base."""
        directories = 0x98 + (112 if self.arch == "x64" else 96)
        base = self.shadow.to_bytes(8, "little")
        return [(self.runtime + directories, struct.pack("<2I", EXPORTS, 0x400)), (self.runtime + VARIABLE, base)]


def _exports(names: list[str]) -> bytes:
    """An export directory at EXPORTS. `__asan_init` is code at 0x1000; the other one is data at VARIABLE."""
    data = bytearray(0x400)
    struct.pack_into("<6I", data, 0x10, 1, len(names), len(names), EXPORTS + 0x100, EXPORTS + 0x140, EXPORTS + 0x180)
    at = 0x200
    for i, (name, place) in enumerate(zip(sorted(names), (0x1000, VARIABLE), strict=True)):
        struct.pack_into("<I", data, 0x100 + 4 * i, place)
        struct.pack_into("<I", data, 0x140 + 4 * i, EXPORTS + at)
        struct.pack_into("<H", data, 0x180 + 2 * i, i)
        data[at : at + len(name) + 1] = name.encode() + b"\0"
        at += 0x40
    return bytes(data)
