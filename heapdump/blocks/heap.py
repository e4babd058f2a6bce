"""The record of a heap: segments, large blocks, extents and Windows' counters, as its header and lists name them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from heapdump.blocks.asan_detail import ShadowReader
from heapdump.blocks.findings import Finding
from heapdump.blocks.flags import flag_names
from heapdump.blocks.kind import HeapKind
from heapdump.spans import Span
from heapdump.trust import Trust as Trust

FrontEnd = Literal["lfh", "lookaside", "none"]
ViewName = Literal["x64", "x86"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment of an NT heap, or one page segment of a segment heap.

    Attributes:
        address: of its header.
        span: its reservation.
        uncommitted: its uncommitted ranges, ascending: of an NT heap by the heap's list, of a segment heap by the
            memory map.
        counted_uncommitted_bytes: bytes of all uncommitted ranges as the segment itself counts them.
        has_all_ranges: False where the list is broken; then `counted_uncommitted_bytes` is used instead of the list.
        unit_bytes: bytes of one unit of page ranges; None for NT heaps.
        number: SegmentIndex, its index in _HEAP.Segments (before Vista); None where the heap has no such array.
    """

    address: int
    span: Span
    uncommitted: tuple[Span, ...]
    counted_uncommitted_bytes: int
    has_all_ranges: bool
    unit_bytes: int | None = None
    number: int | None = None

    @property
    def uncommitted_bytes(self) -> int:
        """Bytes of the uncommitted ranges, by list or counter; at most the size of the segment."""
        listed = sum(span.size for span in self.uncommitted)
        return min(self.span.size, listed if self.has_all_ranges else self.counted_uncommitted_bytes)

    @property
    def committed_bytes(self) -> int:
        """Reserved minus uncommitted bytes."""
        return self.span.size - self.uncommitted_bytes


@dataclass(frozen=True, slots=True)
class LargeBlock:
    """A block with a reservation of its own: a large block of an NT heap, or a large allocation of a segment heap.

    Attributes:
        list_entry: NT heap: address of its node on VirtualAllocdBlocks; segment heap: address of the block.
        commit_bytes: committed bytes of the reservation.
        reserve_bytes: bytes of the reservation, from a 64 KiB boundary on (`span`).
        metadata: segment heap: address of its node in the tree of large allocations; None for NT heaps, and where the
            node is destroyed.
        trust: of its sizes.
    """

    list_entry: int
    commit_bytes: int
    reserve_bytes: int
    metadata: int | None = None
    trust: Trust = Trust.EXACT

    @property
    def span(self) -> Span:
        """The reservation: `reserve_bytes` from the 64 KiB boundary at or below `list_entry`.

        Up to Windows 7 the list entry lies on that boundary; from 8 on it lies a random number of pages behind it
        (recorded dumps).
        """
        start = self.list_entry & ~0xFFFF
        return Span(start, start + self.reserve_bytes)


class ExtentKind(StrEnum):
    """The use that a heap makes of an extent.

    SEGMENT_HEAP is the own reservation of a segment heap that is not walked; STRUCTURES that of one that is walked.
    """

    SEGMENT = "segment"
    LARGE_BLOCK = "large_block"
    LARGE_METADATA = "large_block_metadata"
    FRONT_END = "front_end"
    RANGE_DESCRIPTORS = "range_descriptors"
    STRUCTURES = "heap_structures"
    SEGMENT_HEAP = "segment_heap"
    PAGE_HEAP = "page_heap"
    ASAN_CHUNKS = "chunks"
    ASAN_SHADOW = "shadow"

    @property
    def words(self) -> str:
        """The kind for a person: `large block metadata`."""
        return self.replace("_", " ")


@dataclass(frozen=True, slots=True)
class Extent:
    """Memory that belongs to a heap.

    Attributes:
        span: the memory, reserved or committed.
        kind: the use that the heap makes of it.
        number: of a segment: its place in the heap's list of segments, from 0; None for other kinds.
    """

    span: Span
    kind: ExtentKind
    number: int | None = None

    @property
    def words(self) -> str:
        """The kind and number for a person: `segment 0`, `large block`."""
        return self.kind.words if self.number is None else f"{self.kind.words} {self.number}"


@dataclass(frozen=True, slots=True)
class WindowsCounters:
    """The counters in a heap's header; None for a counter that this version of Windows lacks.

    Source: docs/reference/heap-structures.md §2.8.

    Attributes:
        free_bytes: TotalFreeSize, in bytes.
        reserved_bytes: TotalMemoryReserved.
        committed_bytes: TotalMemoryCommitted.
        large_uncommitted_bytes: TotalMemoryLargeUCR: bytes in long uncommitted ranges. WinDbg subtracts them in its
            column Virt.
        virtual_bytes: TotalSizeInVirtualBlocks: bytes of large blocks.
        segments: TotalSegments, a number.
        uncommitted_ranges: TotalUCRs, a number.
        lock_contention: LockCollisions, a number.
    """

    free_bytes: int | None = None
    reserved_bytes: int | None = None
    committed_bytes: int | None = None
    large_uncommitted_bytes: int | None = None
    virtual_bytes: int | None = None
    segments: int | None = None
    uncommitted_ranges: int | None = None
    lock_contention: int | None = None


@dataclass(frozen=True, slots=True)
class Heap:
    """One heap of a process.

    Attributes:
        address: of its header (_HEAP, _SEGMENT_HEAP, _DPH_HEAP_ROOT …).
        index: place among all heaps of the process, from 0; the block table names heaps by it.
        kind: its allocator.
        role: `process` for the default heap of the process, else the heap class: `private`, `csr shared` …
        view: the 64-bit or 32-bit half of the process that it lies in.
        flags: _HEAP.Flags (of a page heap, of its root); None for kinds without flags, or where the dump lacks them.
        segments: in the order of the heap's list; empty for kinds without segments.
        large_blocks: blocks with a reservation of their own; None where their list does not exist or cannot be read.
        extents: all memory that is known to belong to it, ascending.
        reserved_bytes: NT heap: of its segments; segment heap: of its page segments and its own reservation; others: of
            its own reservation. None where it is not known.
        committed_bytes: committed bytes of the same memory.
        counters: Windows' counters.
        front_end: which front end the header names; None where it names none that is known.
        lookaside_bytes: occupied bytes of the blocks on lookaside lists; 0 from Vista on.
        stack_traces: True where blocks record their allocation stacks; None where it is not known.
        trust: how far this record can be relied on.
        layout: name of the struct layout that verified; None for kinds without one.
        findings: damage of the header and the lists.
        notes: sentences that say what is missing, and why.
        is_fully_walked: False where part of its memory could not be found; `notes` say why.
        normal_heap: of a page heap, the address of the ordinary heap behind it.
        entry_key: of an NT heap whose header is not in the dump: the key of its entry headers, bits 0-47, solved from
            the headers of its entries.
        stack_ids: words that name a stack number which does not lead to frames; "" where a number leads to frames.
        lock: address of its critical section; None where it has none, or where it is not known.
        shadow: reads the shadow of a heap of AddressSanitizer; None for other kinds.
    """

    address: int
    index: int
    kind: HeapKind
    role: str
    view: ViewName
    flags: int | None
    segments: tuple[Segment, ...]
    large_blocks: tuple[LargeBlock, ...] | None
    extents: tuple[Extent, ...]
    reserved_bytes: int | None
    committed_bytes: int | None
    counters: WindowsCounters
    front_end: FrontEnd | None
    lookaside_bytes: int
    stack_traces: bool | None
    trust: Trust
    layout: str | None
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    is_fully_walked: bool
    normal_heap: int | None = None
    entry_key: int | None = None
    stack_ids: str = ""
    lock: int | None = None
    shadow: ShadowReader | None = None

    @property
    def flag_names(self) -> list[str]:
        """The names of the set flags; empty where `flags` is None."""
        return [] if self.flags is None else flag_names(self.flags)

    @property
    def free_bytes(self) -> int | None:
        """Free bytes of the back end: TotalFreeSize plus the blocks on lookaside lists.

        TotalFreeSize does not count blocks on lookaside lists, but RtlWalkHeap calls them free (recorded heaps of XP).
        None where this version has no such counter, and where the counter exceeds the committed bytes, which is damage.
        """
        if self.counters.free_bytes is None:
            return None
        free = self.counters.free_bytes + self.lookaside_bytes
        return free if self.committed_bytes is None or free <= self.committed_bytes else None

    @property
    def uncommitted_ranges(self) -> int:
        """The number of uncommitted ranges of all segments."""
        return sum(len(segment.uncommitted) for segment in self.segments)

    @property
    def large_committed_bytes(self) -> int | None:
        """Committed bytes of the large blocks; None where their list does not exist or could not be read."""
        return None if self.large_blocks is None else sum(block.commit_bytes for block in self.large_blocks)
