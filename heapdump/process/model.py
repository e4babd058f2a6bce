"""The process as immutable facts: Process, View, Module, Thread. `load.py` makes them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heapdump import layouts
from heapdump.dump.streams import ExceptionRecord, MiscInfo, PdbId, ProcessCounters, SystemMemory, UnloadedModule
from heapdump.layouts import Layout
from heapdump.memory.regions import RegionTable
from heapdump.memory.space import AddressSpace
from heapdump.process.reports.exceptions import exception_words
from heapdump.process.stacks.registers import Registers
from heapdump.process.version import WindowsVersion
from heapdump.spans import Span, SpanMap

Arch = Literal["x64", "x86"]
_FILTERED = 0x8
"""MiniDumpFilterMemory."""

_WIPED, _ENOUGH_WIPED = (0x0DEFACED).to_bytes(4, "little"), 16
_LOOKED_AT, _TOPS = 8, (0x1000, 0x400, 0x100)
"""The most threads whose stacks are examined; bytes of each from the stack pointer on: the first that the dump has."""


@dataclass(frozen=True, slots=True)
class Module:
    """A loaded image.

    Attributes:
        name: the last part of `path`.
        path: of its file.
        span: the image in memory.
        version: file version, four numbers; None where the file has none.
        checksum: of the PE header.
        timestamp: of the PE header; in most files seconds since 1970.
        pdb: identifies its PDB; None where it is not recorded.
    """

    name: str
    path: str
    span: Span
    version: tuple[int, int, int, int] | None
    checksum: int
    timestamp: int
    pdb: PdbId | None


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack of a thread in one view.

    Attributes:
        view: the view.
        limit: lowest committed address: [limit, base) is committed.
        base: address behind the stack.
        reserved: lowest reserved address: [reserved, base) is the reservation; None where the TEB is not in the dump.
    """

    view: Arch
    limit: int
    base: int
    reserved: int | None


@dataclass(frozen=True, slots=True)
class Teb:
    """A thread environment block of one view: address and size in bytes (whole pages)."""

    view: Arch
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread.

    Attributes:
        index: place in the dump's list, from 0.
        id: of the thread.
        name: None where it has none.
        tebs: one for each view, as far as they are known.
        stacks: one for each view, as far as they are known.
        registers: of the dump's processor; None where they are not in the dump.
        registers32: 32-bit registers of a WOW64 thread; None likewise.
        start_address: of its start function; None where it is not recorded.
    """

    index: int
    id: int
    name: str | None
    tebs: tuple[Teb, ...]
    stacks: tuple[Stack, ...]
    registers: Registers | None
    registers32: Registers | None
    start_address: int | None

    @property
    def ip(self) -> int | None:
        """Instruction pointer of the dump's own processor."""
        return self.registers.ip if self.registers else None

    @property
    def sp(self) -> int | None:
        """Stack pointer of the dump's own processor."""
        return self.registers.sp if self.registers else None

    @property
    def ip32(self) -> int | None:
        """32-bit instruction pointer under WOW64."""
        return self.registers32.ip if self.registers32 else None

    @property
    def sp32(self) -> int | None:
        """32-bit stack pointer under WOW64."""
        return self.registers32.sp if self.registers32 else None


@dataclass(frozen=True)
class View:
    """The part of a process that uses one pointer size. A WOW64 process has two views, the 64-bit one first.

    Attributes:
        arch: `x64` or `x86`.
        space: the memory, with this pointer size.
        layout: the likeliest struct layout.
        layout_names: names of all layouts to try, the likeliest first.
        is_layout_exact: True where `layout` is that of this very build.
        peb: address of the PEB; None where no TEB is in the dump.
        peb_fields: name → value of the members of the PEB that are in the dump.
        heap_addresses: handles on the heap list, in its order.
        heap_list_complete: True where the list was read to its end.
    """

    arch: Arch
    space: AddressSpace
    layout: Layout
    layout_names: tuple[str, ...]
    is_layout_exact: bool
    peb: int | None
    peb_fields: dict[str, int]
    heap_addresses: tuple[int, ...]
    heap_list_complete: bool

    @property
    def pointer_bytes(self) -> int:
        """4 or 8."""
        return self.space.pointer_bytes

    @property
    def granularity(self) -> int:
        """Heap granularity in bytes: sizeof(_HEAP_ENTRY), 8 or 16."""
        return 2 * self.pointer_bytes

    @property
    def process_heap(self) -> int | None:
        """The default heap's handle, or None where the PEB is not in the dump."""
        return self.peb_fields.get("ProcessHeap") or None

    @property
    def global_flag(self) -> int | None:
        """PEB.NtGlobalFlag, or None where the PEB is not in the dump."""
        return self.peb_fields.get("NtGlobalFlag")

    @cached_property
    def layouts(self) -> tuple[Layout, ...]:
        """Every layout of this processor, the likeliest first; structures in memory decide between them."""
        return tuple(layouts.load(name) for name in self.layout_names)

    def struct(self, name: str, address: int, layout: Layout | None = None) -> dict[str, int] | None:
        """Scalar members of the structure at an address, or None where its bytes are not in the dump."""
        struct = (layout or self.layout)[name]
        data = self.space.try_read(address, struct.size)
        return None if data is None else struct.decode(data, self.pointer_bytes)


@dataclass(frozen=True)
class Process:
    """All facts of a dump except the heaps.

    Attributes:
        pid: process id; None where it is not recorded.
        image: path of the program; None where it is not known.
        command_line: None where it is not in the dump.
        windows: the version of Windows.
        views: the 64-bit view, the 32-bit view, or both in this order.
        modules: loaded images, in the order of the dump.
        unloaded: images that were unloaded.
        threads: in the order of the dump.
        regions: the memory map.
        exception: None for a dump of a running process.
        misc: process times; None without the stream.
        missing_bytes: bytes of memory that the dump lists, but that the truncated file does not have.
        has_all_threads: True where the dump has a list of threads and it was read to its end.
        flags: MINIDUMP_TYPE bits of the dump.
        counters: Windows' memory counters of the process; None without the stream.
        system_memory: memory counters of the system; None without the stream.
        notes: sentences that say what is missing, and why.
    """

    pid: int | None
    image: str | None
    command_line: str | None
    windows: WindowsVersion
    views: tuple[View, ...]
    modules: tuple[Module, ...]
    unloaded: tuple[UnloadedModule, ...]
    threads: tuple[Thread, ...]
    regions: RegionTable
    exception: ExceptionRecord | None
    misc: MiscInfo | None
    missing_bytes: int
    has_all_threads: bool
    flags: int
    counters: ProcessCounters | None
    system_memory: SystemMemory | None
    notes: tuple[str, ...]

    @property
    def is_wow64(self) -> bool:
        """True for a 32-bit process on 64-bit Windows whose both halves are in the dump."""
        return len(self.views) == 2

    @property
    def arch(self) -> str:
        """`x64`, `x86` or `wow64`."""
        return "wow64" if self.is_wow64 else self.views[0].arch

    @cached_property
    def module_map(self) -> SpanMap[Module]:
        """Modules by address."""
        return SpanMap((m.span, m) for m in self.modules)

    def in_modules(self, addresses: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """True for each address in a loaded module; (n,) bool."""
        starts, ends = self._module_edges
        if not len(starts):
            return np.zeros(len(addresses), bool)
        i = np.maximum(np.searchsorted(starts, addresses, side="right"), 1) - 1
        inside: NDArray[np.bool_] = (addresses >= starts[i]) & (addresses < ends[i])
        return inside

    @cached_property
    def _module_edges(self) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
        spans = [span for span, _ in self.module_map]
        return np.array([span.start for span in spans], np.uint64), np.array([span.end for span in spans], np.uint64)

    @cached_property
    def is_filtered(self) -> bool:
        """True where the writer wiped words of the stacks that are no code addresses.

        By the flag MiniDumpFilterMemory, or the pattern that Breakpad's sanitizer leaves on a stack.
        """
        if self.flags & _FILTERED:
            return True
        for thread in self.threads[:_LOOKED_AT]:
            tops = (self.space.try_read(thread.sp, size) for size in _TOPS) if thread.sp is not None else ()
            top = next((data for data in tops if data), b"")
            if top.count(_WIPED) >= _ENOUGH_WIPED:
                return True
        return False

    @property
    def exception_words(self) -> str:
        """The exception for a person: `access violation writing 0x10`; "" without one."""
        return exception_words(self.exception) if self.exception else ""

    @property
    def space(self) -> AddressSpace:
        """The memory, with the pointer size of the first view."""
        return self.views[0].space

    def where(self, address: int) -> str:
        """`module+0x1234` for an address in a module, else the bare address."""
        module = self.module_map.at(address)
        return f"{module.name}+{address - module.span.start:#x}" if module else f"{address:#x}"
