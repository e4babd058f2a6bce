"""The claim and the record of a page heap (docs/reference/heap-structures.md §5.3).

The page at the handle is filled with EE bytes; the root lies in the next page. It names an ordinary heap, NormalHeap,
in which the light blocks lie.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, ExtentKind, Heap, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import PAGE, DiscoveryContext, Evidence, HeapClaim, Weight, role_of
from heapdump.heaps.page.structures import root_of
from heapdump.layouts import Layout
from heapdump.memory import limits
from heapdump.process.model import Process, View
from heapdump.spans import Span
from heapdump.trust import Trust

FILL = 0xEEEEEEEE
"""Every 32-bit word of the page at the handle."""

ROOT_SIGNATURE = 0xFFEEDDCC
_COLLECTS_STACKS = 0x2  # ExtraFlags (§5.5)


def claim(view: View, address: int) -> HeapClaim | None:
    """The claim under the layout whose list of reservations holds; None without the filled page or the signature."""
    if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != FILL:
        return None
    if view.space.try_integer(root_of(address), 4) != ROOT_SIGNATURE:
        return None
    known = [layout for layout in view.layouts if "_DPH_HEAP_BLOCK" in layout]
    layout = next((layout for layout in known if _lists_itself(view, layout, address)), None)
    evidence = [
        Evidence("handle page filled with EE", Weight.SIGNATURE),
        Evidence("root signature FFEEDDCC", Weight.SIGNATURE),
    ]
    evidence += [Evidence("a list of reservations that holds the root", Weight.LINKED)] if layout else []
    doubts = () if layout else ("a list of reservations that holds the root",) if known else ("a known layout",)
    layout = layout or next(iter(known), None)
    exact = layout is not None and layout.name == view.layout.name and view.is_layout_exact
    linked = tuple(_linked(view, layout, root_of(address))) if layout else ()
    return HeapClaim(address, tuple(evidence), doubts, layout, exact, linked)


def describe(context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
    """The record of a claimed heap: root, reservations, the ordinary heap behind it."""
    process, view, layout = context.process, context.view, claim.layout
    root = root_of(claim.address)
    fields = (view.struct("_DPH_HEAP_ROOT", root, layout) if layout else None) or {}
    notes, findings = _remarks(claim, fields), list[Finding]()
    spans, has_all = _reservations(context, layout, claim.address, notes) if layout else ([], False)
    own = process.regions.allocation(claim.address)
    spans = sorted({*spans, *([own] if own else [])})
    flags = fields.get("HeapFlags")
    extra = fields.get("ExtraFlags")
    committed = (
        sum(process.regions.committed_bytes(span) for span in spans) if process.regions.is_complete_map else None
    )
    return Heap(
        address=claim.address,
        index=index,
        kind=HeapKind.PAGE,
        role=role_of(view, claim.address, (flags or 0) & 0xF000),
        view=view.arch,
        flags=flags,
        segments=(),
        large_blocks=None,
        extents=tuple(Extent(span, ExtentKind.PAGE_HEAP) for span in spans),
        reserved_bytes=sum(span.size for span in spans) or None,
        committed_bytes=committed,
        counters=WindowsCounters(),
        front_end=None,
        lookaside_bytes=0,
        stack_traces=None if extra is None else bool(extra & _COLLECTS_STACKS),
        trust=claim.trust if has_all else Trust.DERIVED,
        layout=layout.name if layout else None,
        findings=tuple(findings),
        notes=tuple(notes),
        is_fully_walked=has_all,
        normal_heap=fields.get("NormalHeap") or None,
        lock=fields.get("HeapCritSect") or None,
    )


def _lists_itself(view: View, layout: Layout, heap: int) -> bool:
    """True when the root's list of reservations, read with this layout, contains the reservation of the root itself."""
    return any(start <= heap < end for start, end, _ in _reservation_nodes(view, layout, heap))


def _reservation_nodes(view: View, layout: Layout, heap: int) -> Iterator[tuple[int, int, int]]:
    """(start, end, next node) for each node of the root's list of reservations, as far as it can be followed."""
    struct = layout["_DPH_HEAP_BLOCK"]
    head = root_of(heap) + layout["_DPH_HEAP_ROOT"].offset("pVirtualStorageListHead")
    node, seen = view.space.try_pointer(head), set[int]()
    while node and node != head and node not in seen and len(seen) < limits.MAX_LIST_NODES:
        seen.add(node)
        fields = view.struct(struct.name, node, layout)
        following = view.space.try_pointer(node)
        if fields is None or following is None:
            return
        yield fields["pVirtualBlock"], fields["pVirtualBlock"] + fields["nVirtualBlockSize"], following
        node = following


def _remarks(claim: HeapClaim, fields: dict[str, int]) -> list[str]:
    """Notes where the structures of this Windows, or the root, are not known."""
    if claim.layout is None:
        return [
            f"heap {claim.address:#x} is a page heap of a Windows whose page heap structures are not known: "
            "only its own reservation is counted as PageHeap, its blocks are not walked"
        ]
    if fields:
        return []
    root = f"the root of page heap {claim.address:#x} is not whole in the dump"
    return [f"{root}: what it says of its blocks may be missing"]


def _linked(view: View, layout: Layout, root: int) -> Iterator[int]:
    """Handles of the page heaps before and after this one on the list of roots."""
    struct, pointer = layout["_DPH_HEAP_ROOT"], view.pointer_bytes
    if "NextHeap" in struct:
        place = struct.offset("NextHeap")
        found = [view.space.try_pointer(root + place + link) for link in (0, pointer)]
        roots = [node - place for node in found if node and node > place]
    else:
        place = struct.offset("pNextHeapRoot")
        roots = [node for link in (0, pointer) if (node := view.space.try_pointer(root + place + link))]
    for other in roots:
        if other % PAGE == 0 and view.space.try_integer(other, 4) == ROOT_SIGNATURE:
            yield other - PAGE


def _reservations(context: DiscoveryContext, layout: Layout, heap: int, notes: list[str]) -> tuple[list[Span], bool]:
    """(the reservations that the root lists; True when the list was followed to its end).

    From 10 on it is a ring through its head, on XP a list that ends with 0 (§5.1).
    """
    head = root_of(heap) + layout["_DPH_HEAP_ROOT"].offset("pVirtualStorageListHead")
    spans, last = list[Span](), -1
    for start, end, following in _reservation_nodes(context.view, layout, heap):
        span = _reservation(context.process, start, end)
        if span is None:
            break
        spans.append(span)
        last = following
    has_all = last in (0, head)
    if not has_all:
        notes.append(
            f"the reservations of page heap {heap:#x} end after {len(spans)}: the list is damaged or not in the dump"
        )
    return spans, has_all


def _reservation(process: Process, start: int, end: int) -> Span | None:
    """The reservation [start, end) of a node; None where the memory map has none that begins there."""
    if not start or start % PAGE or end <= start or end % PAGE:
        return None
    if not process.regions.is_complete_map:
        return Span(start, end)
    reserved = process.regions.allocation(start)
    return reserved if reserved is not None and reserved.start == start else None
