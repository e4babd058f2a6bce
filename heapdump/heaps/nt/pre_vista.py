"""The claim on, and the record of, an NT heap of XP and Server 2003 (docs/reference/heap-structures.md §2.1, table 2).

It has 64 pointers to segments, and uncommitted ranges on singly linked lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
from heapdump.heaps.allocator import (
    HEAP_SIGNATURE,
    PAGE,
    DiscoveryContext,
    Evidence,
    HeapClaim,
    Weight,
    claim_of,
)
from heapdump.heaps.nt.discovery import FRONT_ENDS, HeapReader, HeapStructures, listed_extents, nt_heap
from heapdump.heaps.nt.heap_header import report_pre_vista_front_end, report_pre_vista_header
from heapdump.heaps.nt.large_block_list import read_large_blocks
from heapdump.heaps.nt.lookaside_lists import lists_at, lookaside_bytes
from heapdump.heaps.nt.pre_vista_segments import read_pre_vista_segments, segment_fields, segment_pointers
from heapdump.layouts import Layout, load
from heapdump.memory import limits
from heapdump.process.model import View
from heapdump.spans import Span

_USER_STACK_TRACE_DB = 0x1000  # NtGlobalFlag (§1.3)
_MAX_DESCRIPTOR_BYTES = 1 << 24


def claim(view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
    """The claim of the layout with the highest score: the signature, and a first segment or front end that fits.

    Of a heap that the process lists, a first segment that begins with it and names it stands for a damaged signature.
    """
    best: HeapClaim | None = None
    for layout in _pre_vista_layouts(view.layout_names):
        struct = layout["_HEAP"]
        has_signature = view.space.try_integer(address + struct.offset("Signature"), 4) == HEAP_SIGNATURE
        fields = view.struct("_HEAP", address, layout) if has_signature or is_listed else None
        if fields is None:
            continue
        first = segment_fields(view, layout, address, next(segment_pointers(view, layout, address), (0, 0))[1])
        names_heap, begins_here = first is not None, first is not None and first["BaseAddress"] == address
        if not has_signature and not begins_here:
            continue
        seen = {
            Evidence("heap signature EEFFEEFF", Weight.SIGNATURE): has_signature,
            Evidence("a first segment that begins with the heap", Weight.SIGNATURE): begins_here,
            Evidence("a first segment that names the heap", Weight.LINKED): names_heap,
            Evidence("a front end type that exists", Weight.PLAUSIBLE): fields["FrontEndHeapType"] in FRONT_ENDS,
        }
        exact = layout.name == view.layout.name and view.is_layout_exact
        found = claim_of(address, seen, layout, is_layout_exact=exact)
        if len(found.evidence) >= 2 and (best is None or found.score > best.score):
            best = found
    return best


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of a claimed heap: header, segments, large blocks, Windows' counters."""
    reader = HeapReader.of(context, claim)
    report_pre_vista_header(reader)
    view, layout, fields = reader.view, reader.layout, reader.fields
    segments, has_all_segments = read_pre_vista_segments(reader)
    large_blocks, has_all_large_blocks = read_large_blocks(reader)
    lists = lists_at(view, layout, reader.address, segments)
    report_pre_vista_front_end(reader, lists)
    on_lists = lookaside_bytes(view, layout, lists)
    if on_lists is None:
        what = f"the lookaside lists of heap {reader.address:#x} are not in the dump"
        reader.notes.append(f"{what}: blocks on them count as busy")
    free_granules = fields.get("TotalFreeSize")
    found = HeapStructures(
        segments,
        has_all_segments,
        large_blocks,
        has_all_large_blocks,
        extents=(*listed_extents(reader.process, segments, large_blocks), *_descriptor_extents(reader)),
        counters=WindowsCounters(
            free_bytes=None if free_granules is None else free_granules * view.granularity,
            lock_contention=_lock_contention(view, layout, fields.get("LockVariable", 0)),
        ),
        stack_traces=None if view.global_flag is None else bool(view.global_flag & _USER_STACK_TRACE_DB),
        lookaside_bytes=on_lists,
    )
    heap = nt_heap(reader, claim, index, found)
    return replace(heap, front_end="lookaside") if lists else heap


@cache
def _pre_vista_layouts(names: tuple[str, ...]) -> tuple[Layout, ...]:
    return tuple(layout for layout in map(load, names) if "Segments" in layout["_HEAP"])


def _descriptor_extents(reader: HeapReader) -> Iterator[Extent]:
    """The reservations that hold descriptors of uncommitted ranges: the list from _HEAP.UCRSegments on."""
    seen: set[int] = set()
    node = reader.fields.get("UCRSegments", 0)
    while node and node not in seen and len(seen) < limits.MAX_LIST_NODES:
        fields = reader.view.struct("_HEAP_UCR_SEGMENT", node, reader.layout)
        if fields is None or node % PAGE or fields["ReservedSize"] % PAGE:
            break
        if not 0 < fields["ReservedSize"] <= _MAX_DESCRIPTOR_BYTES:
            break
        seen.add(node)
        yield Extent(Span(node, node + fields["ReservedSize"]), ExtentKind.RANGE_DESCRIPTORS)
        node = fields["Next"]


def _lock_contention(view: View, layout: Layout, lock: int) -> int | None:
    fields = view.struct("_HEAP_LOCK", lock, layout) if lock else None
    debug = view.struct("_RTL_CRITICAL_SECTION_DEBUG", fields["DebugInfo"], layout) if fields else None
    return debug["ContentionCount"] if debug else None
