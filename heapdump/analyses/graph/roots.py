"""The roots: memory and registers in which the program finds pointers to its blocks.

Strong roots: registers, stacks above the stack pointer, writable data of modules, TEBs and PEBs, and objects of managed
heaps. TLS and FLS slots lie in TEBs, or in blocks that TEBs point to. Weak roots: other writable memory (VirtualAlloc
arenas, shared sections, heaps that could not be walked); the program may have lost the pointer to it. Memory of walked
heaps is no root.

Memory of the allocators is no root: the stack trace database, the segment heap in which Windows keeps records of other
segment heaps, and data of Application Verifier's modules, whose logs point to nearly every block of a page heap
(recorded 19041: 741 of 1001).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.items import Item
from heapdump.analyses.memory.usage import UNKNOWN, UsageMap
from heapdump.blocks.heap import Heap
from heapdump.memory.regions import State
from heapdump.process.model import Process, Stack, Thread
from heapdump.process.reports.failure_record import FailureRecord
from heapdump.process.stacks.registers import Registers, read_context
from heapdump.runtimes.runtime import ObjectHeap
from heapdump.spans import Span, merged

_NO_EVIDENCE = (Item.STACK_DATABASE, Item.MANAGED_HEAP, Item.COLLECTOR)
_WRITABLE, _GUARD = 0x04 | 0x08 | 0x40 | 0x80, 0x100
_TOP = 1 << 48
_SEGMENT_HEAP = 0xDDEEDDEE
_VERIFIER = re.compile(
    r"(verifier|vrfcore|vfbasics|vfcompat|vfluapriv|vfnet|vfntlmless|vfnws|vfcuzz)\.dll", re.IGNORECASE
)


class RootKind(StrEnum):
    """A kind of root memory; only MEMORY is weak."""

    STACK = "stack"
    MODULE = "module"
    TEB = "teb"
    PEB = "peb"
    MANAGED = "managed"
    MEMORY = "memory"


_IN_WORDS = {
    RootKind.STACK: "stacks", RootKind.MODULE: "writable module data", RootKind.TEB: "TEBs", RootKind.PEB: "PEBs",
    RootKind.MANAGED: "managed heaps", RootKind.MEMORY: "other writable memory",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Area:
    """Root memory: it is searched for pointers.

    Attributes:
        span: the memory.
        kind: what it is.
        width: bytes of a pointer, 4 or 8.
        thread: index of the thread that it belongs to; -1 for none.
    """

    span: Span
    kind: RootKind
    width: int
    thread: int = -1

    @property
    def is_weak(self) -> bool:
        """True where it is not known whether the program still uses the memory."""
        return self.kind == RootKind.MEMORY


@dataclass(frozen=True, slots=True)
class Register:
    """A register, as a root.

    Attributes:
        thread: index of its thread; -1 for a thread that is not in the dump.
        name: of the register.
        value: of the register.
        of_exception: True for a register of the context of the exception.
    """

    thread: int
    name: str
    value: int
    of_exception: bool = False


@dataclass(frozen=True)
class Roots:
    """All roots of a process.

    Attributes:
        areas: root memory, ascending by width, then by start.
        registers: registers of all threads, and of the exception.
        missing: sentences about root memory that is not in the dump.
    """

    areas: tuple[Area, ...]
    registers: tuple[Register, ...]
    missing: tuple[str, ...]


def find_roots(
    process: Process,
    usage: UsageMap,
    heaps: Sequence[Heap],
    walked: Iterable[int],
    managed: Sequence[ObjectHeap] = (),
    failure: FailureRecord | None = None,
) -> Roots:
    """All roots of a process. `walked`: indices of heaps whose blocks are known; `managed`: heaps of runtimes.

    `failure`: ntdll's record of a heap failure, which names blocks and holds none.
    """
    known = set(walked)
    memory = (piece for area in _memory(process, usage, heaps, known) for piece in _outside(area, failure))
    found = [*_stacks(process), *_environment(process), *memory, *_managed(managed)]
    areas = [area for area in found if 0 <= area.span.start < area.span.end <= _TOP]  # another one is a damaged address
    areas.sort(key=lambda area: (area.width, area.span))
    registers = tuple(_registers(process))
    unknown = [heap for heap in heaps if heap.index not in known]
    return Roots(tuple(areas), registers, tuple(_missing(process, areas, unknown)))


def _outside(area: Area, failure: FailureRecord | None) -> Iterator[Area]:
    """The area without the words of the record."""
    if failure is None or not area.span & failure.span:
        yield area
        return
    hole = failure.span
    low, high = hole.start & -area.width, -(-hole.end // area.width) * area.width
    for start, end in ((area.span.start, low), (high, area.span.end)):
        if start < end:
            yield replace(area, span=Span(start, end))


def _registers(process: Process) -> Iterator[Register]:
    for thread in process.threads:
        for registers in (thread.registers, thread.registers32):
            yield from _values(thread.index, registers, of_exception=False)
    exception = process.exception
    index = next((t.index for t in process.threads if exception and t.id == exception.thread_id), -1)
    if exception is not None:
        yield from _values(index, read_context(exception.context), of_exception=True)


def _values(thread: int, registers: Registers | None, *, of_exception: bool) -> Iterator[Register]:
    if registers is None:
        return
    for name, value in registers.values.items():
        yield Register(thread, name, value, of_exception)
    words = 16 // (8 if registers.arch == "x64" else 4)
    for i, value in enumerate(registers.vectors):
        yield Register(thread, f"xmm{i // words}", value, of_exception)


def _stacks(process: Process) -> Iterator[Area]:
    widths = {view.arch: view.pointer_bytes for view in process.views}
    for thread in process.threads:
        for stack in thread.stacks:
            pointers = list(stack_pointers(process, thread, stack))
            low = min(pointers, default=stack.limit)
            width = widths[stack.view]
            yield Area(Span(low & -width, stack.base), RootKind.STACK, width, thread.index)


def stack_pointers(process: Process, thread: Thread, stack: Stack) -> Iterator[int]:
    """The stack pointers of a thread, of its registers and of its exception, that lie in one of its stacks."""
    found = [thread.registers, thread.registers32]
    if process.exception is not None and process.exception.thread_id == thread.id:
        found.append(read_context(process.exception.context))
    for registers in found:
        if registers is not None and registers.arch == stack.view and stack.limit <= registers.sp < stack.base:
            yield registers.sp


def _environment(process: Process) -> Iterator[Area]:
    widths = {view.arch: view.pointer_bytes for view in process.views}
    for thread in process.threads:
        for teb in thread.tebs:
            if teb.size:
                yield Area(Span(teb.address, teb.address + teb.size), RootKind.TEB, widths[teb.view], thread.index)
    for view in process.views:
        if view.peb:
            yield Area(Span(view.peb, view.peb + 0x1000), RootKind.PEB, view.pointer_bytes)


def _memory(process: Process, usage: UsageMap, heaps: Sequence[Heap], known: set[int]) -> Iterator[Area]:
    """Writable memory of images, writable memory without a known owner, and memory of heaps that are not walked."""
    widths = sorted({view.pointer_bytes for view in process.views})
    for span in merged(_spans(usage, _used(usage, "Image"))):
        for piece in _by_module(process, span):
            module = process.module_map.at(piece.start)
            if module is None or not _VERIFIER.fullmatch(module.name):
                yield from (Area(piece, RootKind.MODULE, width) for width in widths)
    for span in merged(_spans(usage, _unclaimed(process, usage))):
        yield from (Area(span, RootKind.MEMORY, width) for width in widths)
    for heap in heaps:
        if heap.index not in known:
            for span in merged(extent.span for extent in heap.extents):
                yield from (Area(span, RootKind.MEMORY, width) for width in widths)


def _managed(heaps: Sequence[ObjectHeap]) -> Iterator[Area]:
    """The objects of managed heaps. The free space between them holds what collected objects held: no evidence."""
    for heap in heaps:
        yield from (Area(span, RootKind.MANAGED, heap.pointer_bytes) for span in merged(heap.live_spans()))


def _unclaimed(process: Process, usage: UsageMap) -> NDArray[np.int64]:
    """Rows of writable memory without a known owner.

    Left out are the stack trace database, segment heaps that are not listed, and memory of managed heaps without
    objects, which still holds the pointers of collected objects.
    """
    table, rows = usage.table, _used(usage, UNKNOWN, "Other")
    rows = rows[~np.isin(table.claim[rows], [i for i, claim in enumerate(table.claims) if claim.item in _NO_EVIDENCE])]
    for offset in {
        layout["_SEGMENT_HEAP"].offset("Signature")
        for view in process.views
        for layout in view.layouts
        if "_SEGMENT_HEAP" in layout
    }:
        rows = rows[process.space.mapped.gather(table.start[rows] + np.uint64(offset), 4)[0] != _SEGMENT_HEAP]
    return rows


def _used(usage: UsageMap, *names: str) -> NDArray[np.int64]:
    """Rows of committed, writable memory of these usages. Without a memory map, unknown protection is writable."""
    table = usage.table
    codes = [code for code, name in enumerate(usage.names) if name in names]
    writable = (table.protect & np.uint32(_WRITABLE) > 0) & (table.protect & np.uint32(_GUARD) == 0)
    committed = table.state == State.MEM_COMMIT
    if not table.is_complete_map:
        writable |= table.protect == 0
        committed |= table.state == State.UNKNOWN
    return np.flatnonzero(np.isin(usage.codes, codes) & committed & writable)


def _spans(usage: UsageMap, rows: NDArray[np.int64]) -> Iterator[Span]:
    starts, ends = usage.table.start[rows].tolist(), usage.table.end[rows].tolist()
    return (Span(start, end) for start, end in zip(starts, ends, strict=True))


def _by_module(process: Process, span: Span) -> Iterator[Span]:
    """The span, cut where modules begin and end."""
    edges = {span.start, span.end}
    for module, _ in process.module_map:
        if module & span:
            edges |= {edge for edge in (module.start, module.end) if edge in span}
    cuts = sorted(edges)
    return (Span(low, high) for low, high in pairwise(cuts))


def _missing(process: Process, areas: Sequence[Area], unknown: Sequence[Heap]) -> Iterator[str]:
    """Sentences on roots that are not known. `unknown`: heaps without known blocks."""
    for kind, words in _IN_WORDS.items():
        spans = merged(area.span for area in areas if area.kind == kind)
        edges = np.array([[span.start, span.end] for span in spans], np.uint64).reshape(-1, 2)
        present = int(process.space.mapped.bytes_present(edges[:, 0], edges[:, 1]).sum())
        total = sum(span.size for span in spans)
        if present < total:
            missing = f"{total - present:,} of {total:,} bytes of {words}"
            yield f"{missing} are not in the dump: what only they hold looks leaked"
    if without := sum(thread.registers is None for thread in process.threads):
        yield f"the registers of {without:,} of {len(process.threads):,} threads are not in the dump"
    if without := sum(not thread.stacks for thread in process.threads):
        yield f"the stacks of {without:,} of {len(process.threads):,} threads are not known"
    if process.modules and not any(area.kind == RootKind.MODULE for area in areas):
        yield "no writable data of a module is known: what only global variables hold looks leaked"
    if process.is_filtered:
        yield (
            "the writer removed pointers to data from the stacks (filtered memory): what only stacks hold looks leaked"
        )
    if not process.regions.is_complete_map:
        yield "the dump has no memory map: which memory is writable is not known"
    for heap in unknown:
        yield f"heap {heap.address:#x}: its blocks are not known, all of its memory counts as weak roots"
