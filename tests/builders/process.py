"""A whole process: PEB, TEBs, heap list, images, stacks, and a memory map without gaps, in one dump.

In: heaps, threads, modules and extra memory. Out: a dump and its truth. The layouts that the parts use are
restated by hand on purpose (see `process_blocks`); nothing of the tool under test is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from .dump import DumpBuilder
from .dump_truth import BuiltDump, DumpTruth, Pdb, Version
from .image_header import ImageFacts
from .memory_image import PAGE
from .nt_heap_truth import BuiltHeap
from .page_heap import BuiltPageHeap
from .process_assembly import ProcessAssembler
from .process_plan import Plan, ProcessArch, process_plan
from .process_records import ModulePart, ProcessParts, ThreadPart, View

_OS = {2600: (5, 1), 3790: (5, 2), 6000: (6, 0), 6001: (6, 0), 6002: (6, 0), 7600: (6, 1), 7601: (6, 1)}
_OS |= {9200: (6, 2), 9600: (6, 3)}


class ProcessBuilder:
    """A process in the making. Regions and memory are written by ascending address, whatever the call order.

    `dump` takes every other stream; its module, thread, region and memory records are written by `build`.
    """

    def __init__(
        self,
        *,
        arch: ProcessArch = "x64",
        build: int = 19041,
        revision: int = 508,
        pid: int = 4242,
        nt_global_flag: int = 0,
        exe: str = "C:\\Program Files\\App\\app.exe",
        command_line: str | None = None,
        memory_list: Literal["64", "32"] = "64",
        create_time: int = 1_699_990_000,
        timestamp: int = 1_700_000_000,
        exe_facts: ImageFacts | None = None,
    ) -> None:
        """Begin a process; see `process_plan` for the addresses it uses itself.

        `create_time` of the process, `timestamp` of the dump: seconds since 1970. `exe_facts`: of the program's header.
        """
        self.arch = arch
        self.plan: Plan = process_plan(arch, build)
        major, minor = _OS.get(build, (10, 0))
        line = f'"{exe}"' if command_line is None else command_line
        version = (major, minor, build, revision)
        os = (major, minor, build)
        self._parts = ProcessParts(
            arch, self.plan, os, version, pid, nt_global_flag, exe, line, exe_facts or ImageFacts()
        )
        self._finished = False
        self.dump = DumpBuilder(arch=self._parts.own_view, os=os, memory_list=memory_list, timestamp=timestamp)
        self.dump.misc(pid, create_time=create_time, size=1364 if build >= 10240 else 24)

    def heap(self, built: BuiltHeap | BuiltPageHeap, *, view: View | None = None) -> Self:
        """Add a heap's memory and regions, and its handle; the first of a view is the process heap."""
        self._parts.heaps[view or built.truth.arch].append(built.truth.address)
        for base, size, state, kind, protect, allocation in built.regions:
            self.region(base, size, state=state, type=kind, protect=protect, allocation_base=allocation)
        self._parts.memory.extend(built.memory)
        self._parts.memory.extend(built.zeros)
        return self

    def heap_handle(self, address: int, data: bytes = b"", *, view: View | None = None) -> Self:
        """Put a bare handle in the heap list; `data` is committed memory at it, none leaves nothing there."""
        self._parts.heaps[view or ("x86" if self.arch == "wow64" else self._parts.own_view)].append(address)
        if data:
            size = -(-len(data) // PAGE) * PAGE
            self.region(address, size)
            self._parts.memory.append((address, data.ljust(size, b"\0")))
        return self

    def thread(
        self,
        tid: int,
        *,
        stack: tuple[int, int] | None = None,
        stack_reserve: int = 0x100000,
        ip: int = 0,
        sp: int = 0,
        registers: dict[str, int] | None = None,
        content: bytes = b"",
        name: str | None = None,
    ) -> Self:
        """Add a thread whose stack is committed in [limit, base) of `stack`, by default the next free place.

        `sp` defaults to 0x400 bytes below the base; `content` lies at `sp`, the rest of the stack is zero.
        In a wow64 process, stack, ip and sp are the 32-bit ones, `registers` are those of the 64-bit context.
        """
        number = len(self._parts.threads)
        first = self.plan.stacks32 if self.arch == "wow64" else self.plan.stacks
        base = first + number * 0x110000 + stack_reserve
        limit, base = stack or (base - 4 * PAGE, base)
        sp = sp or base - 0x400
        if not limit <= sp <= sp + len(content) <= base:
            raise ValueError(f"thread {tid}: stack pointer or content outside [0x{limit:x}, 0x{base:x})")
        named = tuple((registers or {}).items())
        part = ThreadPart(tid, (limit, base), base - stack_reserve, ip, sp, named, bytes(content))
        self._parts.threads.append(part)
        if name is not None:
            self.dump.thread_name(tid, name)
        return self

    def teb(self, tid: int) -> int:
        """Address of a thread's TEB, the 64-bit one in a wow64 process."""
        numbers = [thread.tid for thread in self._parts.threads]
        return self.plan.teb + numbers.index(tid) * self.plan.teb_step

    def module(
        self,
        base: int,
        size: int,
        path: str,
        *,
        version: Version | None = (10, 0, 19041, 508),
        timestamp: int = 0x5F000000,
        checksum: int = 0,
        pdb: Pdb | None = None,
        arch: View | None = None,
        facts: ImageFacts | None = None,
    ) -> Self:
        """Add an image with its regions; the dump gets its header page and its writable section only."""
        if size < 0x4000 or size % PAGE:
            raise ValueError("an image has at least 4 whole pages")
        view: View = arch or ("x86" if self.arch == "wow64" and base < 1 << 32 else self._parts.own_view)
        said = facts or ImageFacts()
        self._parts.modules.append(ModulePart(base, size, path, view, version, timestamp, checksum, pdb, said))
        return self

    def region(
        self,
        base: int,
        size: int,
        *,
        state: str = "MEM_COMMIT",
        type: str = "MEM_PRIVATE",
        protect: int = 0x04,
        allocation_base: int | None = None,
        allocation_protect: int = 0x04,
    ) -> Self:
        """Add a record of the memory map; free ones are added by `build`."""
        self._parts.region(
            base, size, state=state, type=type, protect=protect,
            allocation_base=allocation_base, allocation_protect=allocation_protect,
        )  # fmt: skip
        return self

    def memory(self, address: int, data: bytes) -> Self:
        """Add a memory range; its region is up to the caller."""
        self._parts.memory.append((address, bytes(data)))
        return self

    def zeros(self, address: int, size: int) -> Self:
        """Add a memory range of zero bytes, a hole in the file; its region is up to the caller."""
        self._parts.memory.append((address, size))
        return self

    def exception(
        self,
        tid: int,
        code: int,
        address: int,
        parameters: Sequence[int] = (),
        *,
        flags: int = 0,
        ip: int = 0,
        sp: int = 0,
    ) -> Self:
        """Set the exception record."""
        self.dump.exception(tid, code, address, parameters, flags=flags, ip=ip, sp=sp)
        return self

    def build(self) -> BuiltDump:
        """Return the dump's bytes and truth."""
        self._finish()
        return self.dump.build()

    def write(self, path: Path) -> DumpTruth:
        """Write the dump sparsely."""
        self._finish()
        return self.dump.write(path)

    def _finish(self) -> None:
        if self._finished:
            return
        self._finished = True
        if not self._parts.threads:
            self.thread(self._parts.pid + 4)
        ProcessAssembler(self._parts, self.dump).assemble()
