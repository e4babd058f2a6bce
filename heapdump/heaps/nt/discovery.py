"""Makes the record of an NT heap from the results of the readers of its header and lists."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.heap import Extent, ExtentKind, FrontEnd, Heap, LargeBlock, Segment, WindowsCounters
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.allocator import PAGE, DiscoveryContext, HeapClaim, is_partly_missing, role_of
from heapdump.heaps.link_damage import link_damage
from heapdump.heaps.linked_list import LinkedList
from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.spans import Span
from heapdump.trust import Trust

FRONT_ENDS: dict[int, FrontEnd] = {0: "none", 1: "lookaside", 2: "lfh"}
"""_HEAP.FrontEndHeapType (docs/reference/heap-structures.md §2.1)."""
SEGMENT_LIST = "a segment list that links back"
LARGE_BLOCK_LIST = "a large-block list that links back"
"""Facts that a claim can lack; the readers of these lists say where they break."""


@dataclass(frozen=True, slots=True)
class HeapReader:
    """One NT heap whose structures are being read.

    Attributes:
        discovery: the process, the view, and the list nodes in use.
        layout: the struct layout that verified.
        address: of its _HEAP.
        fields: members of _HEAP by name; empty where it is not in the dump.
        findings: gets the damage.
        notes: gets sentences that say what is missing, and why.
    """

    discovery: DiscoveryContext
    layout: Layout
    address: int
    fields: Mapping[str, int]
    findings: list[Finding]
    notes: list[str]

    @classmethod
    def of(cls, discovery: DiscoveryContext, claim: HeapClaim) -> HeapReader:
        """The reader of a claimed heap; each doubt of the claim becomes a note, but for those on its lists."""
        assert claim.layout is not None
        fields = discovery.view.struct("_HEAP", claim.address, claim.layout) or {}
        notes = [
            f"heap {claim.address:#x}: expected {doubt}"
            for doubt in claim.doubts
            if doubt not in (SEGMENT_LIST, LARGE_BLOCK_LIST)
        ]
        return cls(discovery, claim.layout, claim.address, fields, [], notes)

    @property
    def process(self) -> Process:
        """The process that the heap belongs to."""
        return self.discovery.process

    @property
    def view(self) -> View:
        """The 32-bit or 64-bit view that the heap lies in."""
        return self.discovery.view

    def add_damage(self, finding: Finding, note: str) -> None:
        """Adds a finding, and a note that says what is missing because of it."""
        self.findings.append(finding)
        self.notes.append(note)

    def add_link_damage(self, kind: FindingKind, linked: LinkedList, name: str, node: tuple[int, int]) -> None:
        """Adds findings and notes for the broken links of a list.

        A link to a structure that is only partly in the dump is no damage.

        Args:
            kind: of the findings.
            linked: the list.
            name: of the list, for messages.
            node: (offset of the node in the structure that holds it, bytes of that structure).
        """
        before, size = node

        def is_unknown(place: int) -> bool:
            """True where the dump lacks a byte of the structure whose node lies at `place`."""
            return is_partly_missing(self.process, place - before, size)

        findings, notes = link_damage(self.process, kind, self.address, linked, name, is_unknown)
        self.findings.extend(findings)
        self.notes.extend(notes)


@dataclass(frozen=True, slots=True)
class HeapStructures:
    """The structures of one NT heap, as its readers found them.

    Attributes:
        segments: the heap's own segment, then the others in list order.
        has_all_segments: True where no segment, and no uncommitted range of one, can be missing.
        large_blocks: in list order; None where the head of the list is not in the dump.
        has_all_large_blocks: True where no large block can be missing.
        extents: all memory that belongs to the heap, in any order.
        counters: Windows' counters.
        stack_traces: True where the heap records allocation stacks; None where it is not known.
        lookaside_bytes: occupied bytes of the blocks on lookaside lists; None where the lists are not in the dump.
    """

    segments: tuple[Segment, ...]
    has_all_segments: bool
    large_blocks: tuple[LargeBlock, ...] | None
    has_all_large_blocks: bool
    extents: tuple[Extent, ...]
    counters: WindowsCounters
    stack_traces: bool | None
    lookaside_bytes: int | None = 0


def nt_heap(reader: HeapReader, claim: HeapClaim, index: int, found: HeapStructures) -> Heap:
    """The record of an NT heap; `index`: its place among all heaps of the process."""
    flags, segments = reader.fields.get("Flags"), found.segments
    return Heap(
        address=reader.address,
        index=index,
        kind=HeapKind.NT,
        role=role_of(reader.view, reader.address, (flags or 0) & 0xF000),
        view=reader.view.arch,
        flags=flags,
        segments=segments,
        large_blocks=found.large_blocks,
        extents=tuple(sorted(found.extents, key=lambda extent: extent.span)),
        reserved_bytes=sum(s.span.size for s in segments) or None,
        committed_bytes=sum(s.committed_bytes for s in segments) or None,
        counters=found.counters,
        front_end=FRONT_ENDS.get(reader.fields.get("FrontEndHeapType", 0)),
        lookaside_bytes=found.lookaside_bytes or 0,
        stack_traces=found.stack_traces,
        trust=claim.trust if found.has_all_segments else Trust.DERIVED,
        layout=reader.layout.name,
        findings=tuple(reader.findings),
        notes=tuple(reader.notes),
        is_fully_walked=found.has_all_segments and found.has_all_large_blocks and found.lookaside_bytes is not None,
        lock=reader.fields.get("LockVariable") or None,
    )


def listed_extents(
    process: Process, segments: tuple[Segment, ...], large_blocks: tuple[LargeBlock, ...] | None
) -> list[Extent]:
    """The extents of segments and large blocks."""
    out = [Extent(_reservation(process, segment.span), ExtentKind.SEGMENT, i) for i, segment in enumerate(segments)]
    return out + [Extent(block.span, ExtentKind.LARGE_BLOCK) for block in large_blocks or ()]


def _reservation(process: Process, span: Span) -> Span:
    """The span of a segment with the guard page behind it, which 9600 and later reserve but do not count.

    Source: docs/reference/heap-structures.md §2.2.
    """
    reserved = process.regions.allocation(span.start)
    if reserved is not None and reserved.start == span.start and span.end <= reserved.end <= span.end + PAGE:
        return reserved
    return span
