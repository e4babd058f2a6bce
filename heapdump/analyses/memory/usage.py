"""The usage of each address range, in WinDbg's words (`!address`).

The order of tests is that of semantics.md §2.1. Of several claims on the same bytes the later one wins; the claims
therefore come in the reverse order: recognised owners, runtimes, other, heaps, page heaps, stacks, PEB, TEB, images.
Free memory has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.items import ITEM_OF_EXTENT, ITEM_OF_OWNER, Item
from heapdump.blocks.heap import ExtentKind, Heap
from heapdump.blocks.kind import HeapKind
from heapdump.memory.regions import Kind, Region, RegionClaim, RegionTable, State
from heapdump.process.model import Process, Stack, Thread, View
from heapdump.process.stacks.trace_database import RecordedStacks
from heapdump.runtimes.owners import name_owners
from heapdump.runtimes.owners.owner import NamedOwner
from heapdump.runtimes.runtime import MemoryOwner
from heapdump.spans import Span, SpanMap
from heapdump.trust import Trust
from heapdump.wording import preview


class UsageKind(StrEnum):
    """A usage as WinDbg names it; the names of a WOW64 process have the suffix 32 or 64."""

    FREE = "Free"
    OTHER = "Other"
    HEAP = "Heap"
    PAGE_HEAP = "PageHeap"
    ASAN_SHADOW = "ASanShadow"
    STACK = "Stack"
    PEB = "PEB"
    TEB = "TEB"
    IMAGE = "Image"
    UNKNOWN = "<unknown>"


FREE, UNKNOWN = UsageKind.FREE.value, UsageKind.UNKNOWN.value
STACK_DATABASE = Item.STACK_DATABASE
"""The item of the reconciliation that the database of allocation stacks counts under."""

_KINDS = {f"{kind}{suffix}": kind for kind in UsageKind for suffix in ("", "32", "64")}
"""Name of a usage → its kind."""

_PAGE = 0x1000
_SHARED_USER_DATA = 0x7FFE0000
_RECORDS_STACKS = 0x1000 | 0x02000000 | 0x100
"""Bits of NtGlobalFlag: stack traces, page heap, Application Verifier (heap-structures.md §1.3)."""

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
"""Member of the PEB → the detail of the mapping it points into."""


@dataclass(frozen=True)
class UsageMap:
    """The regions of the memory map, cut where the usage changes. `codes`: (n,) int64 index of each into `names`."""

    table: RegionTable
    codes: NDArray[np.int64]
    names: tuple[str, ...]
    process: Process

    def kind(self, code: int) -> UsageKind:
        """The usage of a code without the suffix of WOW64 processes."""
        return _KINDS[self.names[code]]

    def regions(self, rows: NDArray[np.int64]) -> Iterator[Region]:
        """The rows with their usage and detail; unknown memory gets a preview of its first 16 bytes."""
        table, space = self.table, self.process.space
        present = space.mapped.bytes_present(table.start[rows], table.end[rows]).tolist()
        for i, in_dump in zip(rows.tolist(), present, strict=True):
            span, base, state, kind, protect, claim = table.row(i)
            usage = self.names[int(self.codes[i])]
            detail = claim.detail if claim else ""
            if usage == UNKNOWN and claim is None and state is State.MEM_COMMIT and in_dump:
                detail = _preview(space.try_read(span.start, 16) or b"")
            evidence, trust = (claim.evidence, claim.trust) if claim else ("", None)
            yield Region(span, base, state, kind, protect, usage, detail, in_dump, evidence, trust)


def _preview(data: bytes) -> str:
    """The bytes as text; "" where none of them is printable."""
    return preview(data) if any(0x20 < byte < 0x7F for byte in data) else ""


def classify(process: Process, heaps: Sequence[Heap], owners: Sequence[MemoryOwner] = ()) -> UsageMap:
    """The usage of every region of the process. `owners`: memory of runtimes; its usage stays `<unknown>`.

    So does the usage of memory whose owner is recognised by evidence; that is looked for in what nothing else claims.
    """
    runtime = (RegionClaim(one.span, UNKNOWN, one.detail, ITEM_OF_OWNER[one.kind], trust=one.trust) for one in owners)
    claims = (*runtime, *_claims(process, heaps))
    table = process.regions.split(claims)
    recognised = [_recognised(process, one) for one in name_owners(process, table)]
    if recognised:
        table = process.regions.split((*recognised, *claims))
    names: dict[str, int] = {UNKNOWN: 0, FREE: 1}
    by_claim = np.array([names.setdefault(c.usage, len(names)) for c in table.claims] + [0], np.int64)
    codes = by_claim[table.claim]
    codes[table.state == State.MEM_FREE] = names[FREE]
    return UsageMap(table, codes, tuple(names), process)


def _recognised(process: Process, owner: NamedOwner) -> RegionClaim:
    """A claim by evidence. A mapped file stays under the item of mapped files: that much is certain."""
    i = process.regions.index_at(owner.span.start)
    item = Item.NAMED_GUESS if owner.trust is Trust.GUESS else Item.NAMED
    if i is not None and process.regions.type[i] == Kind.MEM_MAPPED:
        item = Item.MAPPED
    return RegionClaim(owner.span, UNKNOWN, owner.name, item, owner.name, owner.evidence, owner.trust)


def _claims(process: Process, heaps: Sequence[Heap]) -> Iterator[RegionClaim]:
    yield from _other(process)
    for heap in sorted(heaps, key=lambda heap: heap.kind == HeapKind.PAGE):
        if heap.kind != HeapKind.UNKNOWN:
            yield from _heap(process, heap)
    for thread in process.threads:
        for stack in thread.stacks:
            name = _name(process, UsageKind.STACK, stack.view)
            yield RegionClaim(_stack_span(process, stack), name, _thread(thread), Item.STACKS)
    for view in process.views:
        if view.peb:
            name = _name(process, UsageKind.PEB, view.arch)
            yield RegionClaim(Span(view.peb, view.peb + _PAGE), name, item=Item.TEBS_AND_PEBS)
    for thread in process.threads:
        for teb in thread.tebs:
            if teb.size:
                span = Span(teb.address, teb.address + teb.size)
                name = _name(process, UsageKind.TEB, teb.view)
                yield RegionClaim(span, name, _thread(thread), Item.TEBS_AND_PEBS)
    yield from _images(process)


def _name(process: Process, kind: UsageKind, view: str) -> str:
    """The usage in one half of a process: `Heap32` and `Heap64` in a WOW64 process, else `Heap`."""
    return f"{kind}{'' if not process.is_wow64 else '32' if view == 'x86' else '64'}"


def _thread(thread: Thread) -> str:
    return f"~{thread.index} tid {thread.id:#x}"


def _stack_span(process: Process, stack: Stack) -> Span:
    """From the start of the reservation to its end; without a TEB, the reservation around the stack in the dump.

    The base of a 64-bit stack of a WOW64 process lies some bytes below the end of its page (real Windows 7 dump:
    0x20fd20). The rest of that page belongs to the stack.
    """
    base = -(-stack.base // _PAGE) * _PAGE
    if stack.reserved is not None:
        return Span(stack.reserved, base)
    reservation = process.regions.allocation(stack.limit)
    return Span(reservation.start if reservation else stack.limit, base)


def _heap(process: Process, heap: Heap) -> Iterator[RegionClaim]:
    usage = _name(process, UsageKind.PAGE_HEAP if heap.kind == HeapKind.PAGE else UsageKind.HEAP, heap.view)
    name = f"#{heap.index} {heap.address:#x}"
    # the extent of metadata is whole MiBs: other parts of the heap inside it come later and win
    for extent in sorted(heap.extents, key=lambda extent: extent.kind is not ExtentKind.LARGE_METADATA):
        is_shadow = extent.kind is ExtentKind.ASAN_SHADOW
        name_of_usage = UsageKind.ASAN_SHADOW if is_shadow else usage
        yield RegionClaim(extent.span, name_of_usage, f"{name} {extent.words}", ITEM_OF_EXTENT[extent.kind])
    for i, segment in enumerate(heap.segments):
        for uncommitted in segment.uncommitted:
            yield RegionClaim(uncommitted, usage, f"{name} segment {i}", Item.SEGMENTS_UNCOMMITTED)


def _other(process: Process) -> Iterator[RegionClaim]:
    for view in process.views:
        for member, words in _PEB_POINTERS.items():
            span = _mapped(process, view, view.peb_fields.get(member, 0))
            if span:
                yield RegionClaim(span, UsageKind.OTHER, words, Item.SYSTEM_DATA)
        if (view.global_flag or 0) & _RECORDS_STACKS and (span := RecordedStacks(process, view).span) is not None:
            yield RegionClaim(span, UsageKind.OTHER, "Stack Trace Database", Item.STACK_DATABASE)
    page = process.regions.index_at(_SHARED_USER_DATA)
    if page is not None and int(process.regions.start[page]) == _SHARED_USER_DATA:
        span = Span(_SHARED_USER_DATA, int(process.regions.end[page]))
        yield RegionClaim(span, UsageKind.OTHER, "Shared User Data", Item.SYSTEM_DATA)


def _mapped(process: Process, view: View, pointer: int) -> Span | None:
    """The mapping that a member of the PEB points into; None for a pointer into private memory (a heap block)."""
    i = process.regions.index_at(pointer) if pointer else None
    if i is None:
        return None
    if not process.regions.is_complete_map:
        return Span(int(process.regions.start[i]), int(process.regions.end[i]))
    return process.regions.allocation(pointer) if process.regions.type[i] == Kind.MEM_MAPPED else None


def _images(process: Process) -> Iterator[RegionClaim]:
    """Modules, and image mappings that no module list names: unloaded modules that are still mapped, data mappings."""
    table = process.regions
    unloaded = SpanMap((m.span, m.name) for m in process.unloaded)
    api_sets = {view.peb_fields.get("ApiSetMap") for view in process.views}  # Windows 7 maps them as an image
    image = table.type == Kind.MEM_IMAGE
    for i in np.flatnonzero(image).tolist():
        start, end = int(table.start[i]), int(table.end[i])
        if process.module_map.at(start) is None:
            was = unloaded.at(start)
            words = "API Set Map" if start in api_sets else f"was {was}" if was else ""
            yield RegionClaim(Span(start, end), UsageKind.IMAGE, words, Item.IMAGES)
    for module in process.modules:
        yield RegionClaim(module.span, UsageKind.IMAGE, module.name, Item.IMAGES)
