"""What each address range is used for, in WinDbg's words (`!address`).

The order of tests is that of semantics.md §2.1; a later claim wins over an earlier one, so they are listed backwards:
other, heaps, page heaps, stacks, PEB, TEB, images. Free memory is nobody's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import ExtentKind, Heap
from heapdump.blocks.kinds import HeapKind
from heapdump.memory.regions import Kind, Region, RegionClaim, RegionTable, State
from heapdump.process.model import Process, Stack, Thread, View
from heapdump.process.stacks.trace_database import StackDatabase
from heapdump.spans import Span, SpanMap
from heapdump.wording import preview

FREE = "Free"
STACK_DATABASE = "stack trace database"
"""The item of the reconciliation in which the database of allocation stacks counts."""

UNKNOWN = "<unknown>"
_PAGE = 0x1000
_SHARED_USER_DATA = 0x7FFE0000
_RECORDS_STACKS = 0x1000 | 0x02000000 | 0x100  # NtGlobalFlag: stack traces, page heap, Application Verifier
_PEB_POINTERS = {
    "ApiSetMap": "API Set Map",
    "ReadOnlySharedMemoryBase": "Read Only Shared Memory",
    "ReadOnlyStaticServerData": "Read Only Shared Memory",
    "AnsiCodePageData": "NLS Tables",
    "OemCodePageData": "NLS Tables",
    "UnicodeCaseTableData": "NLS Tables",
    "GdiSharedHandleTable": "GDI Shared Handle Table",
    "ActivationContextData": "Activation Context Data",
    "SystemDefaultActivationContextData": "System Default Activation Context Data",
}


@dataclass(frozen=True)
class UsageMap:
    """Regions cut where their usage changes. `codes`: (n,) int64 index into `names`, one for each region."""

    table: RegionTable
    codes: NDArray[np.int64]
    names: tuple[str, ...]
    process: Process

    def regions(self, rows: NDArray[np.int64]) -> Iterator[Region]:
        """The rows with their usage and detail; unknown memory gets a preview of its first 16 bytes."""
        table, space = self.table, self.process.space
        present = space.mapped.bytes_present(table.start[rows], table.end[rows]).tolist()
        for i, in_dump in zip(rows.tolist(), present, strict=True):
            span, base, state, kind, protect, claim = table.row(i)
            usage = self.names[int(self.codes[i])]
            detail = claim.detail if claim else ""
            if usage == UNKNOWN and state is State.MEM_COMMIT and in_dump:
                detail = preview(space.try_read(span.start, 16) or b"")
            yield Region(span, base, state, kind, protect, usage, detail, in_dump)


def classify(process: Process, heaps: Sequence[Heap]) -> UsageMap:
    """The usage of every region of the process."""
    table = process.regions.split(tuple(_claims(process, heaps)))
    names: dict[str, int] = {UNKNOWN: 0, FREE: 1}
    by_claim = np.array([names.setdefault(c.usage, len(names)) for c in table.claims] + [0], np.int64)
    codes = by_claim[table.claim]
    codes[table.state == State.MEM_FREE] = names[FREE]
    return UsageMap(table, codes, tuple(names), process)


def _claims(process: Process, heaps: Sequence[Heap]) -> Iterator[RegionClaim]:
    yield from _other(process)
    for heap in sorted(heaps, key=lambda heap: heap.kind == HeapKind.PAGE):
        if heap.kind != HeapKind.UNKNOWN:
            yield from _heap(process, heap)
    for thread in process.threads:
        for stack in thread.stacks:
            yield RegionClaim(_stack_span(process, stack), f"Stack{_suffix(process, stack.view)}", _thread(thread))
    for view in process.views:
        if view.peb:
            yield RegionClaim(Span(view.peb, view.peb + _PAGE), f"PEB{_suffix(process, view.arch)}")
    for thread in process.threads:
        for teb in thread.tebs:
            if teb.size:
                span = Span(teb.address, teb.address + teb.size)
                yield RegionClaim(span, f"TEB{_suffix(process, teb.view)}", _thread(thread))
    yield from _images(process)


def _suffix(process: Process, view: str) -> str:
    """WinDbg tells the two halves of a WOW64 process apart: Heap32, Heap64."""
    return "" if not process.is_wow64 else "32" if view == "x86" else "64"


def _thread(thread: Thread) -> str:
    return f"~{thread.index} tid {thread.id:#x}"


def _stack_span(process: Process, stack: Stack) -> Span:
    """From the reservation's start to its end; without a TEB, the reservation around the stack the dump holds.

    The base of a 64-bit WOW64 stack lies some bytes below the end of its page (real Windows 7 dump: 0x20fd20): the rest
    of that page is the stack's too.
    """
    base = -(-stack.base // _PAGE) * _PAGE
    if stack.reserved is not None:
        return Span(stack.reserved, base)
    whole = process.regions.allocation(stack.limit)
    return Span(whole.start if whole else stack.limit, base)


def _heap(process: Process, heap: Heap) -> Iterator[RegionClaim]:
    usage = ("PageHeap" if heap.kind == HeapKind.PAGE else "Heap") + _suffix(process, heap.view)
    name = f"#{heap.index} {heap.address:#x}"
    # metadata lies in whole MiBs: other parts of the heap inside them win
    for extent in sorted(heap.extents, key=lambda extent: extent.kind is not ExtentKind.LARGE_METADATA):
        yield RegionClaim(extent.span, usage, f"{name} {extent.words}", _item(extent.kind))
    for i, segment in enumerate(heap.segments):
        for part in segment.uncommitted:
            yield RegionClaim(part, usage, f"{name} segment {i}", "heap segments, uncommitted by the heap's own list")


def _item(part: ExtentKind) -> str:
    own = {
        ExtentKind.PAGE_HEAP: "page heaps",
        ExtentKind.SEGMENT_HEAP: "segment heaps (own reservation)",
        ExtentKind.LARGE_BLOCK: "heap large blocks",
        ExtentKind.FRONT_END: "heap front ends",
        ExtentKind.LARGE_METADATA: "heap large block metadata",
        ExtentKind.RANGE_DESCRIPTORS: "heap range descriptors",
    }
    return own.get(part, "heap segments")


def _other(process: Process) -> Iterator[RegionClaim]:
    for view in process.views:
        for field, words in _PEB_POINTERS.items():
            span = _mapped(process, view, view.peb_fields.get(field, 0))
            if span:
                yield RegionClaim(span, "Other", words)
        if (view.global_flag or 0) & _RECORDS_STACKS and (span := StackDatabase(process, view).span) is not None:
            yield RegionClaim(span, "Other", "Stack Trace Database", STACK_DATABASE)
    page = process.regions.index_at(_SHARED_USER_DATA)
    if page is not None and int(process.regions.start[page]) == _SHARED_USER_DATA:
        yield RegionClaim(Span(_SHARED_USER_DATA, int(process.regions.end[page])), "Other", "Shared User Data")


def _mapped(process: Process, view: View, pointer: int) -> Span | None:
    """The mapping that a PEB member points into. A pointer into private memory (a heap block) claims nothing."""
    i = process.regions.index_at(pointer) if pointer else None
    if i is None:
        return None
    if not process.regions.is_complete_map:
        return Span(int(process.regions.start[i]), int(process.regions.end[i]))
    return process.regions.allocation(pointer) if process.regions.type[i] == Kind.MEM_MAPPED else None


def _images(process: Process) -> Iterator[RegionClaim]:
    """Modules, and image mappings that no module list names: unloaded modules still mapped, or data mappings."""
    table = process.regions
    unloaded = SpanMap((m.span, m.name) for m in process.unloaded)
    api_sets = {view.peb_fields.get("ApiSetMap") for view in process.views}  # Windows 7 maps them as an image
    image = table.type == Kind.MEM_IMAGE
    for i in np.flatnonzero(image).tolist():
        start, end = int(table.start[i]), int(table.end[i])
        if process.module_map.at(start) is None:
            was = unloaded.at(start)
            words = "API Set Map" if start in api_sets else f"was {was}" if was else ""
            yield RegionClaim(Span(start, end), "Image", words)
    for module in process.modules:
        yield RegionClaim(module.span, "Image", module.name)
