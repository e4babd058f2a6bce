"""The NT heap before Vista (XP, Server 2003): 64 segment pointers, uncommitted ranges on singly linked lists.

Structures: heap-structures.md §2.1 and §2.2, second tables. The large-block list is the one of later versions.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, ExtentKind, Heap, LargeBlock, Segment, WindowsCounters
from heapdump.heaps.allocator import (
    HEAP_SIGNATURE,
    PAGE,
    SEGMENT_SIGNATURE,
    DiscoveryContext,
    Evidence,
    HeapClaim,
    Weight,
    claim_of,
    is_missing,
)
from heapdump.heaps.nt.large_blocks import read_large_blocks
from heapdump.heaps.nt.modern import reservation
from heapdump.heaps.nt.record import FRONT_ENDS, Parts, nt_heap
from heapdump.heaps.nt.segments import MAX_SEGMENT_BYTES, address_limit
from heapdump.layouts import Layout, load
from heapdump.memory import limits
from heapdump.process.model import Process, View
from heapdump.spans import Span, merged

_USER_STACK_TRACE_DB = 0x1000
_LOOKASIDE_LISTS = 128


def claim(view: View, address: int) -> HeapClaim | None:
    """Needs the heap signature, and a first segment inside the heap that names it."""
    best: HeapClaim | None = None
    for layout in _old_layouts(view.layout_names):
        struct = layout["_HEAP"]
        if view.space.try_integer(address + struct.offset("Signature"), 4) != HEAP_SIGNATURE:
            continue
        fields = view.struct("_HEAP", address, layout)
        if fields is None:
            continue
        first = next(_segment_pointers(view, layout, address), (0, 0))[1]
        seen = {
            Evidence("heap signature EEFFEEFF", Weight.SIGNATURE): True,
            Evidence("a first segment that names the heap", Weight.LINKED): _segment_fields(
                view, layout, address, first
            )
            is not None,
            Evidence("a front end type that exists", Weight.PLAUSIBLE): fields["FrontEndHeapType"] in FRONT_ENDS,
        }
        exact = layout.name == view.layout.name and view.is_layout_exact
        found = claim_of(address, seen, layout, is_layout_exact=exact)
        if len(found.evidence) >= 2 and (best is None or found.score > best.score):
            best = found
    return best


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """Header, segments, large blocks, counters."""
    assert claim.layout is not None
    process, view = context.process, context.view
    heap, layout = claim.address, claim.layout
    fields = view.struct("_HEAP", heap, layout) or {}
    findings: list[Finding] = []
    notes = [f"heap {heap:#x}: expected {doubt}" for doubt in claim.doubts]
    segments, all_segments = _segments(context.process, view, layout, heap, findings, notes)
    blocks, all_blocks = read_large_blocks(context, layout, heap, findings, notes)
    free, parked = fields.get("TotalFreeSize"), _parked_bytes(view, layout, fields)
    if parked is None:
        notes.append(f"the lookaside lists of heap {heap:#x} are not in the dump: blocks parked there count as busy")
    stated = WindowsCounters(
        free_bytes=None if free is None else free * view.granularity,
        lock_contention=_lock_contention(view, layout, fields.get("LockVariable", 0)),
    )
    traces = None if view.global_flag is None else bool(view.global_flag & _USER_STACK_TRACE_DB)
    extents = _extents(process, view, layout, segments, blocks, fields.get("UCRSegments", 0))
    parts = Parts(
        fields, segments, all_segments, blocks, all_blocks, extents, stated, parked, traces, findings, notes
    )  # fmt: skip
    return nt_heap(context, claim, index, parts)


@cache
def _old_layouts(names: tuple[str, ...]) -> tuple[Layout, ...]:
    return tuple(layout for layout in map(load, names) if "Segments" in layout["_HEAP"])


def _segment_pointers(view: View, layout: Layout, heap: int) -> Iterator[tuple[int, int]]:
    """(address of the slot, segment) of each used slot of Segments[64]."""
    field = layout["_HEAP"].fields["Segments"]
    for i in range(field.count):
        slot = heap + field.offset + i * view.pointer_bytes
        if segment := view.space.try_pointer(slot):
            yield slot, segment


def _segment_fields(view: View, layout: Layout, heap: int, segment: int) -> dict[str, int] | None:
    fields = view.struct("_HEAP_SEGMENT", segment, layout) if segment else None
    if fields is None or fields["Signature"] != SEGMENT_SIGNATURE or fields["Heap"] != heap:
        return None
    base, size = fields["BaseAddress"], fields["NumberOfPages"] * PAGE
    fits = base % PAGE == 0 and base <= segment < base + size and size <= MAX_SEGMENT_BYTES
    return fields if fits and base + size < address_limit(view) else None


def _segments(
    process: Process, view: View, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[tuple[Segment, ...], bool]:
    out: list[Segment] = []
    complete = True
    for slot, segment in _segment_pointers(view, layout, heap):
        fields = _segment_fields(view, layout, heap, segment)
        if fields is None:
            complete = False
            message = f"segment pointer at {slot:#x} of heap {heap:#x} leads to no segment of this heap"
            if not is_missing(process, segment):
                findings.append(
                    Finding("segment", "error", heap, slot, view.pointer_bytes, message, "a segment", f"{segment:#x}")
                )
            notes.append(message)
            continue
        base = fields["BaseAddress"]
        span = Span(base, base + fields["NumberOfPages"] * PAGE)
        if any(span & other.span for other in out):
            complete = False
            message = f"segment {segment:#x} of heap {heap:#x} overlaps another segment and was left out"
            findings.append(Finding("segment", "error", heap, segment, 1, message, "memory of its own", f"{base:#x}"))
            notes.append(message)
            continue
        ranges, whole = _uncommitted(process, view, layout, heap, span, fields["UnCommittedRanges"], findings, notes)
        complete = complete and whole
        out.append(Segment(segment, span, ranges, fields["NumberOfUnCommittedPages"] * PAGE, whole))
    return tuple(out), complete


def _uncommitted(
    process: Process,
    view: View,
    layout: Layout,
    heap: int,
    span: Span,
    node: int,
    findings: list[Finding],
    notes: list[str],
) -> tuple[tuple[Span, ...], bool]:
    """(ranges ascending, whether the list ended as it should)."""
    found: list[Span] = []
    seen: set[int] = set()
    while node and len(seen) < limits.MAX_LIST_NODES:
        fields = view.struct("_HEAP_UNCOMMMTTED_RANGE", node, layout)
        part = Span(fields["Address"], fields["Address"] + fields["Size"]) if fields else Span(0, 0)
        if fields is None or node in seen or not span.covers(part) or part.start % PAGE or part.end % PAGE:
            message = f"the list of uncommitted ranges of segment {span.start:#x} breaks at {node:#x}"
            if not is_missing(process, node):
                findings.append(
                    Finding("ucr", "error", heap, node, 1, message, "a range inside the segment", f"{part.start:#x}")
                )
            notes.append(f"{message}: {len(found)} ranges were read")
            return tuple(merged(found)), False
        seen.add(node)
        found.append(part)
        node = fields["Next"]
    return tuple(merged(found)), not node and sum(part.size for part in merged(found)) == sum(p.size for p in found)


def _extents(
    process: Process,
    view: View,
    layout: Layout,
    segments: tuple[Segment, ...],
    blocks: tuple[LargeBlock, ...] | None,
    node: int,
) -> tuple[Extent, ...]:
    out = [Extent(reservation(process, s.span), ExtentKind.SEGMENT, i) for i, s in enumerate(segments)]
    out += [Extent(block.span, ExtentKind.LARGE_BLOCK) for block in blocks or ()]
    seen: set[int] = set()
    while node and node not in seen and len(seen) < limits.MAX_LIST_NODES:
        # the descriptors of uncommitted ranges have a reservation of their own
        fields = view.struct("_HEAP_UCR_SEGMENT", node, layout)
        if fields is None or fields["ReservedSize"] % PAGE or not 0 < fields["ReservedSize"] <= 1 << 24 or node % PAGE:
            break
        seen.add(node)
        out.append(Extent(Span(node, node + fields["ReservedSize"]), ExtentKind.RANGE_DESCRIPTORS))
        node = fields["Next"]
    return tuple(out)


def _parked_bytes(view: View, layout: Layout, fields: dict[str, int]) -> int | None:
    """Bytes of the blocks on the 128 lookaside lists: list i holds blocks of i granules, its SLIST knows how many.

    None where the lists are not in the dump.
    """
    base = fields.get("FrontEndHeap", 0)
    if not base or FRONT_ENDS.get(fields.get("FrontEndHeapType", 0)) != "lookaside":
        return 0
    struct = layout["_HEAP_LOOKASIDE"]
    depth_at = struct.offset("ListHead") + (4 if view.pointer_bytes == 4 else 0)  # SLIST_HEADER (winnt.h)
    total = 0
    for i in range(_LOOKASIDE_LISTS):
        depth = view.space.try_integer(base + i * struct.size + depth_at, 2)
        if depth is None:
            return None
        total += depth * i * view.granularity
    return total


def _lock_contention(view: View, layout: Layout, lock: int) -> int | None:
    fields = view.struct("_HEAP_LOCK", lock, layout) if lock else None
    debug = view.struct("_RTL_CRITICAL_SECTION_DEBUG", fields["DebugInfo"], layout) if fields else None
    return debug["ContentionCount"] if debug else None
