"""Heaps as records: segments, large blocks, extents, Windows' counters, by the heap's own header and lists."""

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
    """One segment: `span` is its reservation.

    `uncommitted`: the uncommitted ranges, of an NT heap by its own list, of a segment heap by the memory map.
    `counted_uncommitted_bytes`: the segment's own counter of their bytes, which is used where the list is broken
    (`has_all_ranges` is False). `unit_bytes`: the unit of page ranges, of segment heaps. `number`: its index in the
    heap's array of segments, which headers name before Vista; None where the heap has no such array.
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
        """Bytes of the uncommitted ranges, never more than the segment has."""
        listed = sum(span.size for span in self.uncommitted)
        return min(self.span.size, listed if self.has_all_ranges else self.counted_uncommitted_bytes)

    @property
    def committed_bytes(self) -> int:
        """Reserved minus uncommitted bytes, by the heap's own list."""
        return self.span.size - self.uncommitted_bytes


@dataclass(frozen=True, slots=True)
class LargeBlock:
    """A block with a reservation of its own. `list_entry`: the address of its node on VirtualAllocdBlocks.

    In a segment heap `list_entry` is the address of the block, and `metadata` that of its node in the tree of large
    allocations; None where the node is destroyed.
    """

    list_entry: int
    commit_bytes: int
    reserve_bytes: int
    metadata: int | None = None
    trust: Trust = Trust.EXACT

    @property
    def span(self) -> Span:
        """The reservation.

        ReserveSize counts from the 64 KiB boundary below the entry, which from 8 on lies some random pages behind it
        (recorded dumps; up to Windows 7 the entry is the boundary).
        """
        start = self.list_entry & ~0xFFFF
        return Span(start, start + self.reserve_bytes)


class ExtentKind(StrEnum):
    """A part of a heap. SEGMENT_HEAP: the own reservation of a segment heap that is not walked."""

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
    """Memory that belongs to a heap, and as which part; `number` of a segment in the order of the heap's list."""

    span: Span
    kind: ExtentKind
    number: int | None = None

    @property
    def words(self) -> str:
        """The part for a person: `segment 0`, `large block`."""
        return self.kind.words if self.number is None else f"{self.kind.words} {self.number}"


@dataclass(frozen=True, slots=True)
class WindowsCounters:
    """The counters of a heap's header (`_HEAP_COUNTERS`, heap-structures.md §2.8); None for those a version lacks.

    All in bytes except `segments`, `uncommitted_ranges`, `lock_contention` (counts). `large_uncommitted_bytes` is the
    part of the reservation in long uncommitted ranges, the correction behind WinDbg's Virt column.
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
    """One heap.

    `reserved_bytes`, `committed_bytes`: of its segments (NT), of these and of its own reservation (segment heaps) or
    of the latter alone (the others), None where not known. `extents`: all memory known to belong to it, ascending.
    `is_fully_walked` is False when part of its memory could not be found (`notes` say why). `lookaside_bytes`: freed
    blocks that wait on lookaside lists (before Vista). `normal_heap`: of a page heap, the ordinary heap behind it.
    `entry_key`: of an NT heap whose header the dump lacks, the key of entry headers, 48 bits, as they tell it.
    `stack_ids`: words before the number of an allocation stack whose frames are not read, so that the number only tells
    stacks apart; "" where a number leads to frames.
    `lock`: the address of its critical section; None where it has none, or where that is not known. `shadow`: of a heap
    of AddressSanitizer.
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
        """The flags in words; empty where they are not known."""
        return [] if self.flags is None else flag_names(self.flags)

    @property
    def free_bytes(self) -> int | None:
        """Free bytes of the back end: Windows' counter plus the blocks on lookaside lists.

        TotalFreeSize does not count the latter, RtlWalkHeap calls them free (recorded heaps of XP). None where Windows
        keeps no count, or a damaged one: more than is committed.
        """
        if self.counters.free_bytes is None:
            return None
        free = self.counters.free_bytes + self.lookaside_bytes
        return free if self.committed_bytes is None or free <= self.committed_bytes else None

    @property
    def uncommitted_ranges(self) -> int:
        """Uncommitted ranges of all segments."""
        return sum(len(segment.uncommitted) for segment in self.segments)

    @property
    def large_committed_bytes(self) -> int | None:
        """Committed bytes of the large blocks; None where their list does not exist or could not be read."""
        return None if self.large_blocks is None else sum(block.commit_bytes for block in self.large_blocks)
