"""Turns the parts of a process into dump records: images, stacks, TEBs, PEBs, and a memory map without gaps.

In: `ProcessParts`. Out: calls of a `DumpBuilder`. The layouts that it uses are restated by hand on purpose
(see `process_blocks`); nothing of the tool under test is imported.
"""

from __future__ import annotations

from . import process_blocks as blocks
from .cpu_context import cpu_context
from .dump import DumpBuilder
from .image_header import DATA_BYTES, ImageFacts, image_header
from .memory_image import PAGE, MemoryImage
from .process_plan import pool_bytes
from .process_records import ModulePart, ProcessParts, ThreadPart, View

_SHARED_PAGE = 0x7FFE0000


class ProcessAssembler:
    """Assembles one process, once."""

    def __init__(self, parts: ProcessParts, dump: DumpBuilder) -> None:
        """Prepare; nothing is written yet."""
        self.parts = parts
        self.plan = parts.plan
        self.dump = dump
        self._image = MemoryImage(8 if parts.own_view == "x64" else 4)
        self._image32 = MemoryImage(4)

    def assemble(self) -> None:
        """Write modules, threads, memory and a gapless memory map into the dump."""
        self._add_own_modules()
        for module in self.parts.modules:
            self._finish_module(module)
        for number, thread in enumerate(self.parts.threads):
            self._finish_thread(number, thread)
        self._finish_pebs()
        self.parts.memory.extend(self._image.pieces())
        self.parts.memory.extend(self._image32.pieces())
        for address, data in sorted(self.parts.memory, key=lambda item: item[0]):
            if isinstance(data, int):
                self.dump.zeros(address, data)
            else:
                self.dump.memory(address, data)
        self._tile()

    def _private(self, image: MemoryImage, base: int, size: int, allocation: int | None = None) -> None:
        image.commit(base, size)
        self.parts.region(base, size, allocation_base=allocation)

    def _add_own_modules(self) -> None:
        system = "C:\\Windows\\System32\\"
        names = {module.path.lower() for module in self.parts.modules}
        own: list[tuple[int, int, str]] = [(self.plan.exe, 0xC000, self.parts.exe)]
        own.append((self.plan.ntdll, 0x1F5000, system + "ntdll.dll"))
        if self.parts.arch == "wow64":
            own.append((self.plan.ntdll32, 0x19D000, "C:\\Windows\\SysWOW64\\ntdll.dll"))
            high = self.plan.ntdll + 0x1000000
            for i, name in enumerate(("wow64.dll", "wow64win.dll")):
                own.append((high + i * 0x100000, 0x59000, system + name))
            own.append((self.plan.ntdll32 - 0x10000, 0xA000, system + "wow64cpu.dll"))
        added = []
        for base, size, path in own:
            if path.lower() not in names:
                wide = self.parts.arch == "x64" or (self.parts.arch == "wow64" and path.startswith(system))
                arch: View = "x64" if wide else "x86"
                facts = self.parts.exe_facts if path == self.parts.exe else ImageFacts()
                part = ModulePart(base, size, path, arch, self.parts.version, 0x5F000000, 0, None, facts)
                added.append(part)
        self.parts.modules[:0] = added  # the process' own images come first

    def _finish_module(self, m: ModulePart) -> None:
        self.dump.module(
            m.base, m.size, m.path, version=m.version, timestamp=m.timestamp, checksum=m.checksum, pdb=m.pdb
        )
        data = m.base + m.size - DATA_BYTES
        for base, end, protect in (
            (m.base, m.base + PAGE, 2),
            (m.base + PAGE, data, 0x20),
            (data, m.base + m.size, 4),
        ):
            self.parts.regions.append((base, end - base, "MEM_COMMIT", "MEM_IMAGE", protect, m.base, 0x80))
        self.parts.memory.append((m.base, image_header(m.arch, m.size, m.timestamp, m.checksum, m.facts)))
        image = self._image if m.arch == self.parts.own_view else self._image32
        image.commit(data, DATA_BYTES)
        image.write(data, m.facts.data)

    def _finish_thread(self, number: int, thread: ThreadPart) -> None:
        teb = self.plan.teb + number * self.plan.teb_step
        limit, base = thread.stack
        if self.parts.arch == "wow64":
            self._finish_wow64_thread(number, teb, thread)
            return
        self._stack(self._image, thread)
        self._image.commit(teb, self.plan.teb_bytes)
        peb = self.plan.peb
        facts = blocks.TebFacts(self.parts.pid, thread.tid, peb, base, limit, thread.bottom)
        blocks.write_teb(self._image, teb, facts)
        used = thread.sp & ~(PAGE - 1)
        self.dump.thread(
            thread.tid,
            teb,
            stack=(used, base - used),
            ip=thread.ip,
            sp=thread.sp,
            registers=dict(thread.registers),
        )

    def _finish_wow64_thread(self, number: int, teb: int, thread: ThreadPart) -> None:
        limit, base = thread.stack
        self._stack(self._image32, thread)
        bottom = self.plan.stacks + number * 0x50000
        base64 = bottom + 0x40000
        native = ThreadPart(thread.tid, (base64 - 0x4000, base64), bottom, 0, base64 - 0x800, (), b"")
        self._stack(self._image, native)
        self._image.commit(teb, 0x2000)
        self._image32.commit(teb + 0x2000, PAGE)
        facts = blocks.TebFacts(self.parts.pid, thread.tid, self.plan.peb, base64, base64 - 0x4000, bottom)
        blocks.write_teb(self._image, teb, facts)
        facts = blocks.TebFacts(self.parts.pid, thread.tid, self.plan.peb32, base, limit, thread.bottom)
        blocks.write_teb(self._image32, teb + 0x2000, facts)
        area = base64 - 0x600
        blocks.join_wow64_tebs(self._image, self._image32, teb, self.parts.os[2], area)
        self._image.u16(area + 2, 0x14C)
        self._image.write(area + 4, cpu_context("x86", thread.ip, thread.sp))
        ip = self.plan.ntdll32 - 0x10000 + 0x1CBC  # in wow64cpu.dll
        self.dump.thread(
            thread.tid,
            teb,
            stack=(base64 - PAGE, PAGE),
            ip=ip,
            sp=native.sp,
            registers=dict(thread.registers),
        )

    def _stack(self, image: MemoryImage, thread: ThreadPart) -> None:
        limit, base = thread.stack
        bottom = thread.bottom
        image.commit(limit, base - limit)
        image.write(thread.sp, thread.content)
        guard = limit - PAGE
        if guard > bottom:
            self.parts.region(bottom, guard - bottom, state="MEM_RESERVE", allocation_base=bottom)
        if guard >= bottom:
            self.parts.region(guard, PAGE, protect=0x104, allocation_base=bottom)
        self.parts.region(limit, base - limit, allocation_base=bottom)

    def _finish_pebs(self) -> None:
        plan, native = self.plan, self.parts.arch != "wow64"
        peb_bytes = 0x3000 if self.parts.arch == "x86" and plan.pool is not None else PAGE
        self._image.commit(plan.peb, peb_bytes)
        self._finish_view(self.parts.own_view, self._image, plan.peb, plan.parameters)
        if not native:
            self._image32.commit(plan.peb32, PAGE)
            self._finish_view("x86", self._image32, plan.peb32, plan.parameters32)
        self._map_pool(peb_bytes)
        self._image.commit(_SHARED_PAGE, PAGE)
        self.parts.region(_SHARED_PAGE, PAGE, protect=2, allocation_protect=2)
        blocks.write_shared_page(self._image, _SHARED_PAGE, self.parts.os)

    def _finish_view(self, view: View, image: MemoryImage, peb: int, parameters: int) -> None:
        heaps = tuple(self.parts.heaps[view])
        wanted = (m for m in self.parts.modules if m.path.lower().endswith("\\ntdll.dll") and m.arch == view)
        ntdll = next(wanted)
        heap_list = ntdll.base + ntdll.size - DATA_BYTES + 0x100
        if blocks.heap_slots(len(heaps)) > 16:
            heap_list = self.plan.heap_list + (0x4000 if view != self.parts.own_view else 0)
            self._private(image, heap_list, -(-blocks.heap_slots(len(heaps)) * image.pointer // PAGE) * PAGE)
        self._private(image, parameters, blocks.PARAMETERS_BYTES)
        blocks.write_parameters(image, parameters, self.parts.exe, self.parts.command_line)
        exe = next(m.base for m in self.parts.modules if m.path == self.parts.exe)
        facts = blocks.PebFacts(exe, parameters, heaps, heap_list, self.parts.global_flag, self.parts.os)
        blocks.write_peb(image, peb, facts)

    def _map_pool(self, peb_bytes: int) -> None:
        plan, count = self.plan, len(self.parts.threads)
        if plan.pool is None:
            pieces = [(plan.peb, PAGE)] + ([(plan.peb32, PAGE)] if self.parts.arch == "wow64" else [])
            pieces += [(plan.teb + i * plan.teb_step, plan.teb_bytes) for i in range(count)]
            for base, size in pieces:
                self.parts.region(base, size)
            return
        end = plan.teb + count * plan.teb_step
        if end > plan.pool + pool_bytes():
            raise ValueError(f"{count} TEBs do not fit the reservation")
        self.parts.region(plan.pool, plan.peb - plan.pool, state="MEM_RESERVE", allocation_base=plan.pool)
        for i in range(count) if plan.teb_step != plan.teb_bytes else ():
            self._image.commit(plan.teb + i * plan.teb_step + plan.teb_bytes, plan.teb_step - plan.teb_bytes)
        self.parts.region(plan.peb, end - plan.peb, allocation_base=plan.pool)
        if end < plan.pool + pool_bytes():
            rest = plan.pool + pool_bytes() - end
            self.parts.region(end, rest, state="MEM_RESERVE", allocation_base=plan.pool)

    def _tile(self) -> None:
        """Write the memory map in order, with free regions in its gaps."""
        at = 0
        for base, size, state, kind, protect, allocation, first in sorted(self.parts.regions):
            if base < at:
                raise ValueError(f"the region at 0x{base:x} overlaps one that ends at 0x{at:x}")
            if base > at:
                self.dump.region(at, base - at, state="MEM_FREE")
            self.dump.region(
                base, size, state=state, type=kind, protect=protect,
                allocation_base=allocation, allocation_protect=first,
            )  # fmt: skip
            at = base + size
        if at < self.plan.top:
            self.dump.region(at, self.plan.top - at, state="MEM_FREE")
