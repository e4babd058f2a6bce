"""Random NT heaps of every generation, and what heapdump must say of them.

In: a generation and a list of actions. Out: a built heap, its process, and the comparison of a `Heap` with its truth.
"""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.trust import Trust
from tests.builders import BuiltHeap, HeapTruth, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch


@dataclass(frozen=True)
class Generation:
    """One Windows build and pointer size."""

    arch: HeapArch
    build: int
    revision: int = 508

    @property
    def is_classic(self) -> bool:
        """True before Vista."""
        return self.build < 6000

    @property
    def base(self) -> int:
        """Where the heap of a test lies."""
        return 0x8000000 if self.arch == "x86" else 0x28A65B00000 if self.build >= 9600 else 0x10000000

    def __str__(self) -> str:
        return f"{self.arch}-{self.build}"


_X64 = (3790, 6000, 6001, 6002, 7600, 7601, 9200, 9600, 10240, 10586, 14393, 15063, 16299, 17134, 17763, 18362, 19041,
        20348, 22000, 26100)  # fmt: skip
_X86 = (
    2600,
    3790,
    6000,
    6001,
    6002,
    7600,
    7601,
    9200,
    9600,
    10240,
    10586,
    14393,
    15063,
    16299,
    17134,
    17763,
    18362,
    19041,
)
GENERATIONS = [Generation("x64", build) for build in _X64]
GENERATIONS += [Generation("x86", build, 100 if build == 17763 else 508) for build in _X86]
REPRESENTATIVES = [
    g for g in GENERATIONS if (g.arch, g.build) in {
        ("x86", 2600), ("x64", 3790), ("x64", 6002), ("x86", 7601), ("x64", 7601), ("x64", 9600), ("x64", 14393),
        ("x86", 19041), ("x64", 19041), ("x64", 26100),
    }
]  # fmt: skip

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("busy"), st.integers(0, 6000)),
        st.tuples(st.just("free"), st.integers(2, 300)),
        st.tuples(st.just("uncommitted"), st.integers(1, 20)),
        st.tuples(st.just("segment"), st.sampled_from([0x80000, 0x100000, 0xC0000])),
        st.tuples(st.just("virtual"), st.integers(0x7F000, 0x300000)),
    ),
    max_size=24,
)
FIXED = [
    [],
    [("virtual", 0x100000)],
    [("busy", 100), ("uncommitted", 3), ("busy", 50), ("free", 20), ("busy", 1), ("uncommitted", 1), ("busy", 7)],
    [
        ("busy", 5000),
        ("segment", 0x80000),
        ("busy", 100),
        ("uncommitted", 5),
        ("free", 9),
        ("segment", 0x100000),
        ("busy", 8),
    ],
    [
        ("virtual", 0x80000),
        ("busy", 9),
        ("virtual", 0x7F001),
        ("segment", 0xC0000),
        ("virtual", 0x2FFFC0),
        ("busy", 30),
    ],
]


def heap_of(generation: Generation, actions: list[tuple[str, int]], **options) -> NtHeapBuilder:
    """A heap with these actions done, as far as the generation's lists have room."""
    options = {"flags": 0x1002, "base": generation.base, "seed": 3} | options
    heap = NtHeapBuilder(arch=generation.arch, build=generation.build, **options)
    ranges = segments = large = 0
    may_end = True
    base = options["base"]
    for what, value in actions:
        if what == "busy":
            heap.busy(value, bytes(min(value, 16) * [0xCD]))
        elif what == "free":
            heap.free(value)
        elif what == "uncommitted":
            if not may_end or (generation.is_classic and ranges + segments >= 6):
                continue
            heap.uncommitted(value * 0x1000)
            ranges += 1
        elif what == "segment":
            if segments >= 4 or (generation.is_classic and ranges + segments >= 6):
                continue
            segments += 1
            heap.segment(base + segments * 0x200000, value)
        else:
            offset = large % 16 * 0x1000 if generation.build >= 9200 else 0
            heap.virtual(base + 0x1000000 + large * 0x400000 + offset, value)
            large += 1
        if what != "virtual":
            may_end = what != "uncommitted"
    return heap


def process_of(generation: Generation, *heaps: BuiltHeap, version: tuple[int, int] | None = None) -> ProcessBuilder:
    """A process with these heaps; `version` = (build, revision) of its ntdll where it is not the heaps'."""
    build, revision = version or (generation.build, generation.revision)
    process = ProcessBuilder(arch=generation.arch, build=build, revision=revision)
    for heap in heaps:
        process.heap(heap)
    return process


def extents_of(built: BuiltHeap) -> list[tuple[int, int]]:
    """The heap's reservations, by the memory map."""
    ends: dict[int, int] = {}
    for base, size, _state, _type, _protect, allocation in built.regions:
        ends[allocation] = max(ends.get(allocation, 0), base + size)
    return sorted(ends.items())


def assert_extents(heap: Heap, truth: HeapTruth) -> None:
    """Segments, uncommitted ranges and large blocks are those of the builder."""
    assert [(s.span.start, s.span.end) for s in heap.segments] == [*truth.segments]
    assert [(u.start, u.end) for s in heap.segments for u in s.uncommitted] == [*truth.uncommitted]
    assert heap.uncommitted_ranges == len(truth.uncommitted)
    assert (heap.reserved_bytes, heap.committed_bytes) == (truth.reserved_bytes, truth.committed_bytes)
    for segment in heap.segments:
        assert segment.counted_uncommitted_bytes == segment.uncommitted_bytes
    assert heap.large_blocks is not None
    assert [(b.list_entry, b.commit_bytes, b.reserve_bytes) for b in heap.large_blocks] == [
        (b.list_entry, b.commit_bytes, b.reserve_bytes) for b in truth.large
    ]
    assert heap.large_committed_bytes == truth.large_bytes


def assert_equals(heap: Heap, built: BuiltHeap, *, trust: Trust = Trust.EXACT) -> None:
    """Everything heapdump says of a healthy heap is the builder's truth."""
    truth = built.truth
    assert (heap.address, heap.kind, heap.view, heap.trust) == (truth.address, HeapKind.NT, truth.arch, trust)
    assert (heap.flags, heap.front_end, heap.free_bytes) == (truth.flags, truth.front_end, truth.free_bytes)
    assert_extents(heap, truth)
    assert [(e.span.start, e.span.end) for e in heap.extents] == extents_of(built)
    assert (heap.findings, heap.notes, heap.is_fully_walked) == ((), (), True)
    if truth.build >= 6000:
        counters = heap.counters
        assert (counters.reserved_bytes, counters.committed_bytes) == (truth.reserved_bytes, truth.committed_bytes)
        assert (counters.virtual_bytes, counters.segments) == (truth.large_bytes, len(truth.segments))
        assert counters.lock_contention == truth.lock_collisions
