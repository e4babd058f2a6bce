"""Items: the lines of the reconciliation. Every committed byte of a process counts under exactly one item."""

from __future__ import annotations

from enum import StrEnum

from heapdump.blocks.heap import ExtentKind
from heapdump.runtimes.runtime import OwnerKind


class Item(StrEnum):
    """A line of the reconciliation, in the order of reports. `Item.words` names it for a person."""

    SEGMENTS = "heap_segments"
    SEGMENTS_BUSY = "heap_segments_busy"
    SEGMENTS_FREE = "heap_segments_free"
    SEGMENTS_OVERHEAD = "heap_segments_overhead"
    SEGMENTS_NOT_WALKED = "heap_segments_not_walked"
    SEGMENTS_UNCOMMITTED = "heap_segments_uncommitted"
    LARGE_BLOCKS = "heap_large_blocks"
    FRONT_ENDS = "heap_front_ends"
    LARGE_METADATA = "heap_large_block_metadata"
    RANGE_DESCRIPTORS = "heap_range_descriptors"
    SEGMENT_HEAPS = "segment_heaps"
    PAGE_HEAPS = "page_heaps"
    PAGE_HEAPS_BUSY = "page_heaps_busy"
    PAGE_HEAPS_OVERHEAD = "page_heaps_overhead"
    ASAN = "asan_heap"
    ASAN_BUSY = "asan_heap_busy"
    ASAN_FREED = "asan_heap_quarantine"
    ASAN_OVERHEAD = "asan_heap_overhead"
    ASAN_SHADOW = "asan_shadow"
    MANAGED_HEAP = "managed_heap"
    COLLECTOR = "collector_bookkeeping"
    JIT_CODE = "jit_code"
    RUNTIME_STUBS = "runtime_stubs"
    RUNTIME_OTHER = "runtime_other"
    CLASS_METADATA = "class_metadata"
    NAMED = "named_owner"
    NAMED_GUESS = "named_owner_guess"
    STACKS = "stacks"
    TEBS_AND_PEBS = "tebs_and_pebs"
    IMAGES = "images"
    STACK_DATABASE = "stack_trace_database"
    SYSTEM_DATA = "system_data"
    MAPPED = "mapped"
    UNKNOWN_PRIVATE = "unknown_private"
    UNKNOWN = "unknown"

    @property
    def words(self) -> str:
        """The item for a person, and the value of `item` in JSON."""
        return _WORDS[self]

    @property
    def is_managed(self) -> bool:
        """True for memory of a managed runtime."""
        return self in ITEM_OF_OWNER.values()

    @property
    def is_native_heap(self) -> bool:
        """True for memory of Windows' heaps."""
        return self in _NATIVE_HEAPS

    @property
    def is_known(self) -> bool:
        """False for memory whose use no structure of the process tells, and for owners that are only guessed."""
        return self not in (Item.NAMED_GUESS, Item.UNKNOWN_PRIVATE, Item.UNKNOWN)


_WORDS = {
    Item.SEGMENTS: "heap segments", Item.SEGMENTS_BUSY: "heap segments: busy blocks",
    Item.SEGMENTS_FREE: "heap segments: free blocks", Item.SEGMENTS_OVERHEAD: "heap segments: overhead",
    Item.SEGMENTS_NOT_WALKED: "heap segments: not walked",
    Item.SEGMENTS_UNCOMMITTED: "heap segments, uncommitted by the heap's own list",
    Item.LARGE_BLOCKS: "heap large blocks", Item.FRONT_ENDS: "heap front ends",
    Item.LARGE_METADATA: "heap large block metadata",
    Item.RANGE_DESCRIPTORS: "heap range descriptors", Item.SEGMENT_HEAPS: "segment heaps (own reservation)",
    Item.PAGE_HEAPS: "page heaps", Item.PAGE_HEAPS_BUSY: "page heaps: busy blocks",
    Item.PAGE_HEAPS_OVERHEAD: "page heaps: freed blocks, guard pages and overhead", Item.STACKS: "stacks",
    Item.ASAN: "AddressSanitizer heap", Item.ASAN_BUSY: "AddressSanitizer heap: allocated chunks",
    Item.ASAN_FREED: "AddressSanitizer heap: quarantine", Item.ASAN_SHADOW: "AddressSanitizer shadow",
    Item.ASAN_OVERHEAD: "AddressSanitizer heap: redzones and overhead",
    Item.MANAGED_HEAP: "managed heap (GC)",
    Item.COLLECTOR: "GC bookkeeping", Item.JIT_CODE: "JIT code", Item.RUNTIME_STUBS: "CLR stubs",
    Item.RUNTIME_OTHER: "CLR, other (inferred from structures in it)",
    Item.CLASS_METADATA: "class metadata (metaspace)", Item.NAMED: "recognised owner",
    Item.NAMED_GUESS: "presumed owner",
    Item.TEBS_AND_PEBS: "TEBs and PEBs", Item.IMAGES: "images", Item.STACK_DATABASE: "stack trace database",
    Item.SYSTEM_DATA: "other system data", Item.MAPPED: "mapped files and sections",
    Item.UNKNOWN_PRIVATE: "unknown private memory", Item.UNKNOWN: "unknown memory",
}  # fmt: skip

NAMED_ITEMS = (Item.NAMED, Item.NAMED_GUESS)
"""Items of owners that were recognised by evidence."""

_NATIVE_HEAPS = {item for item in Item if item.startswith(("heap_", "segment_heaps", "page_heaps", "asan_heap"))}

ITEM_OF_EXTENT = {
    ExtentKind.SEGMENT: Item.SEGMENTS,
    ExtentKind.STRUCTURES: Item.SEGMENTS,
    ExtentKind.LARGE_BLOCK: Item.LARGE_BLOCKS,
    ExtentKind.LARGE_METADATA: Item.LARGE_METADATA,
    ExtentKind.FRONT_END: Item.FRONT_ENDS,
    ExtentKind.RANGE_DESCRIPTORS: Item.RANGE_DESCRIPTORS,
    ExtentKind.SEGMENT_HEAP: Item.SEGMENT_HEAPS,
    ExtentKind.PAGE_HEAP: Item.PAGE_HEAPS,
    ExtentKind.ASAN_CHUNKS: Item.ASAN,
    ExtentKind.ASAN_SHADOW: Item.ASAN_SHADOW,
}
"""Part of a heap → the item that its committed bytes count under."""

ITEM_OF_OWNER = {
    OwnerKind.HEAP: Item.MANAGED_HEAP,
    OwnerKind.BOOKKEEPING: Item.COLLECTOR,
    OwnerKind.JIT_CODE: Item.JIT_CODE,
    OwnerKind.STUBS: Item.RUNTIME_STUBS,
    OwnerKind.OTHER: Item.RUNTIME_OTHER,
    OwnerKind.CLASSES: Item.CLASS_METADATA,
}
"""Memory of a runtime → the item that its committed bytes count under."""
