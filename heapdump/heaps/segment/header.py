"""The header of a segment heap: which layout verifies on it, its contexts, the segments on their lists.

Structures: heap-structures.md §6.1 to 6.3, offsets from `layouts/`. Up to Windows 10 1703 the heap itself holds the one
list of segments, later it has two contexts, one for each size of page-range units.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import PAGE, DiscoveryContext
from heapdump.heaps.integers import address_limit
from heapdump.heaps.link_damage import link_damage
from heapdump.layouts import Layout
from heapdump.process.model import View
from heapdump.spans import Span

SIGNATURE = 0xDDEEDDEE
DESCRIPTORS = 256
"""Page-range descriptors of a segment: so many units it has."""

_CONSTANT = 0xA2E64EADA2E64EAD
_UNIT_SHIFTS = range(12, 21)
_MOST_OWN_BYTES = 1 << 30
_MOST_OTHERS = 8
"""Heaps that are asked for the process' key."""


@dataclass(frozen=True, slots=True)
class SegContext:
    """One list of segments: `anchor` is the address their signatures are made with, `unit` the bytes of a unit.

    `head`: address of the list's head; `segments`: how many the heap counts there; `is_whole`: all that is known of it
    holds.
    """

    anchor: int
    head: int
    unit: int
    segments: int
    is_whole: bool = True

    @property
    def segment_bytes(self) -> int:
        """Bytes of one segment, which lies on a multiple of them."""
        return DESCRIPTORS * self.unit


def own_span(view: View, layout: Layout, heap: int) -> Span | None:
    """What the heap reserved for its own structures; None where the allocator's three pointers are not in order."""
    fields = view.struct("_SEGMENT_HEAP", heap, layout)
    if fields is None or "ReservedLimit" not in fields:
        return None
    base, uncommitted, limit = fields["AllocatedBase"], fields["UncommittedBase"], fields["ReservedLimit"]
    if not heap < base <= uncommitted <= limit or limit - heap > _MOST_OWN_BYTES:
        return None
    # 26100 carves the heap out of a larger reservation: its own part of that ends where ReservedRegionEnd says
    end = fields.get("ReservedRegionEnd", 0)
    return Span(heap, end if limit <= end <= heap + _MOST_OWN_BYTES and end % PAGE == 0 else limit)


def contexts(view: View, layout: Layout, heap: int) -> tuple[SegContext, ...] | None:
    """The lists of segments that the heap uses; None where one of its contexts cannot be true under this layout."""
    struct = layout["_SEGMENT_HEAP"]
    if "SegContexts" not in struct:
        fields = view.struct("_SEGMENT_HEAP", heap, layout)
        head = heap + struct.offset("SegmentListHead")
        return None if fields is None else (SegContext(heap, head, PAGE, fields["SegmentCount"]),)
    size, found = layout["_HEAP_SEG_CONTEXT"].size, []
    for i in range(struct.fields["SegContexts"].count):
        context = _context(view, layout, heap, heap + struct.offset("SegContexts") + i * size)
        if context is None:
            return None
        # x86 of 19041 keeps its second context in order but for the list, which it does not use
        if context.segments or view.space.try_pointer(context.head):
            found.append(context)
    return tuple(found)


def _context(view: View, layout: Layout, heap: int, address: int) -> SegContext | None:
    """The context there: its heap, mask and shift are three witnesses, of which two must hold."""
    fields = view.struct("_HEAP_SEG_CONTEXT", address, layout)
    if fields is None:
        return None
    units = {(1 << 8 * view.pointer_bytes) - (DESCRIPTORS << shift): 1 << shift for shift in _UNIT_SHIFTS}
    masked = units.get(fields["SegmentMask"])
    shifted = 1 << fields["UnitShift"] if fields["UnitShift"] in _UNIT_SHIFTS else None
    unit = masked or shifted
    if unit is None or (masked is not None) + (shifted == unit) + (fields["Heap"] == heap) < 2:
        return None
    whole = masked == shifted and fields["Heap"] == heap and 0 < fields["FirstDescriptorIndex"] < DESCRIPTORS
    head = address + layout["_HEAP_SEG_CONTEXT"].offset("SegmentListHead")
    return SegContext(address, head, unit, fields["SegmentCount"], whole)


def witnesses(view: View, layout: Layout, heap: int) -> dict[str, bool]:
    """What speaks for a layout of this heap, and whether it held."""
    parts = contexts(view, layout, heap)
    tree = layout["_SEGMENT_HEAP"].offset("LargeAllocMetadata")
    root = view.space.try_pointer(heap + tree)
    return {
        "metadata bounds that hold it": own_span(view, layout, heap) is not None,
        "segment contexts that name it": parts is not None and all(part.is_whole for part in parts),
        "segment lists that link back": parts is not None and all(all(_links_back(view, part.head)) for part in parts),
        "segments whose signatures agree": parts is not None and _signatures_agree(view, layout, parts),
        "a tree of large blocks": root is not None
        and (not root or view.space.try_pointer(heap + tree + view.pointer_bytes) != 0),
    }


def is_usable(view: View, layout: Layout, heap: int) -> bool:
    """True where the segments can be read by this layout: its contexts say so, or one end of the heap's one list."""
    parts = contexts(view, layout, heap)
    if parts is None or "SegContexts" in layout["_SEGMENT_HEAP"]:
        return parts is not None
    return all(any(_links_back(view, part.head)) for part in parts)


def _links_back(view: View, head: int) -> tuple[bool, bool]:
    """Whether the first and the last node of a list name its head."""
    step = view.pointer_bytes
    first, last = view.space.try_pointer(head), view.space.try_pointer(head + step)
    return (
        first is not None and view.space.try_pointer(first + step) == head,
        last is not None and view.space.try_pointer(last) == head,
    )


def _signatures_agree(view: View, layout: Layout, parts: tuple[SegContext, ...]) -> bool:
    """True when the first two segments of each list lead to one key, by one of the rules that builds have."""
    rows = []
    for part in parts:
        node = view.space.try_pointer(part.head) or 0
        for _ in range(2):
            if node == part.head:
                break
            if not node or node % part.segment_bytes:
                return False
            rows.append(list(residues(view, layout, part, node)))
            node = view.space.try_pointer(node) or 0
    return all(rows) and (len(rows) < 2 or any(len(set(column)) == 1 for column in zip(*rows, strict=True)))


def residues(view: View, layout: Layout, part: SegContext, segment: int) -> Iterator[int]:
    """A segment's signature without its addresses, by each rule that builds have: the same value in all segments.

    It is the process' heap key, until 22000 XORed with a constant. 14393 mixes in the number of the segment's MiB where
    later ones have its address (recorded dumps; the reference has the address for all).
    """
    signature = view.space.try_integer(segment + layout["_HEAP_PAGE_SEGMENT"].offset("Signature"), view.pointer_bytes)
    if signature is not None:
        yield signature ^ segment ^ part.anchor
        yield signature ^ segment >> 20 ^ part.anchor


def heap_keys(view: View, layout: Layout, part: SegContext, segment: int) -> list[int]:
    """The process' heap key as this segment may tell it: with and without the constant."""
    constant = _CONSTANT & (1 << 8 * view.pointer_bytes) - 1
    return [key for residue in residues(view, layout, part, segment) for key in (residue ^ constant, residue)]


def read_segments(
    context: DiscoveryContext, layout: Layout, heap: int, findings: list[Finding], notes: list[str]
) -> tuple[list[tuple[SegContext, int]], bool]:
    """((list, segment address), in list order; whether none can be missing)."""
    view, found, whole = context.view, list[tuple[SegContext, int]](), True
    for part in contexts(view, layout, heap) or ():
        if not part.is_whole:
            message = f"the context at {part.anchor:#x} of the segments of heap {heap:#x} is damaged"
            size = layout["_HEAP_SEG_CONTEXT"].size
            findings.append(
                Finding(
                    "segment", "error", heap, part.anchor, size, message, "its heap, its mask and its shift", "others"
                )
            )

        def accepts(node: int, part: SegContext = part) -> bool:
            """True for what can be a segment of this list."""
            inside = node + part.segment_bytes <= address_limit(view)
            return node % part.segment_bytes == 0 and inside and view.space.try_pointer(node) is not None

        ring = context.ring(part.head, accepts)
        broken, gaps = link_damage(context.process, "segment", heap, ring, "list of segments")
        findings += broken
        notes += gaps
        whole &= ring.is_closed
        found += [(part, node) for node in ring.nodes]
    trusted = _trusted(context, layout, heap, found, findings, notes, whole=whole)
    return _disjoint(heap, trusted, findings, notes), whole


def _witnesses_of_key(
    context: DiscoveryContext, layout: Layout, heap: int, rows: list[list[int]]
) -> Iterator[list[int]]:
    """Residues of the first segments of some other heaps in the process' list; those of `rows` whose key ntdll holds, again."""
    view, place = context.view, layout["_SEGMENT_HEAP"].offset("Signature")
    for address in view.heap_addresses[:_MOST_OTHERS]:
        is_other = address != heap and view.space.try_integer(address + place, 4) == SIGNATURE
        for part in (contexts(view, layout, address) if is_other else None) or ():
            node = view.space.try_pointer(part.head) or part.head
            if node != part.head and node % part.segment_bytes == 0:
                yield list(residues(view, layout, part, node))
    words = context.ntdll_words
    constant = _CONSTANT & (1 << 8 * view.pointer_bytes) - 1
    yield from (
        row for row in rows if np.isin(np.array([[value, value ^ constant] for value in row], np.uint64), words).any()
    )


def _disjoint(
    heap: int, found: list[tuple[SegContext, int]], findings: list[Finding], notes: list[str]
) -> list[tuple[SegContext, int]]:
    """The segments that lie over no earlier one."""
    kept, end = set(), 0
    for part, node in sorted(found, key=lambda pair: pair[1]):
        if node >= end:
            kept.add(node)
            end = node + part.segment_bytes
            continue
        message = f"segment {node:#x} of heap {heap:#x} lies over another one and is left out"
        findings.append(
            Finding("segment", "error", heap, node, part.segment_bytes, message, "memory of its own", "another segment")
        )
        notes.append(message)
    return [pair for pair in found if pair[1] in kept]


def _trusted(
    context: DiscoveryContext, layout: Layout, heap: int, found: list[tuple[SegContext, int]], findings: list[Finding], notes: list[str],
    *, whole: bool,
) -> list[tuple[SegContext, int]]:  # fmt: skip
    """The segments, with a finding for each whose signature is not that of most, in other heaps too.

    Such a one is believed where the list that names it is `whole`.
    """
    view = context.view
    rows = [list(residues(view, layout, part, node)) for part, node in found]
    agree = any(len(set(column)) == 1 for column in zip(*(row for row in rows if row), strict=True))
    others = [] if agree else list(_witnesses_of_key(context, layout, heap, rows))
    columns = list(zip(*(row for row in (*rows, *others) if row), strict=True))
    usual = [max(set(column), key=column.count) for column in columns]
    rule = max(range(len(columns)), key=lambda i: columns[i].count(usual[i]), default=0)
    place = layout["_HEAP_PAGE_SEGMENT"].offset("Signature")
    for (_, node), row in zip(found, rows, strict=True):
        if row and row[rule] != usual[rule]:
            message = f"the signature of segment {node:#x} of heap {heap:#x} is damaged"
            findings.append(
                Finding("segment", "error", heap, node + place, view.pointer_bytes, message,
                        "the key of the other segments", f"{row[rule]:#x}")
            )  # fmt: skip
            notes.append(message)
    return [pair for pair, row in zip(found, rows, strict=True) if whole or (row and row[rule] == usual[rule])]
