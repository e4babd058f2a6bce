"""Random LFH subsegments of NT heaps of every coding, and what heapdump must say of their blocks."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from heapdump.blocks.kind import BlockKind
from heapdump.snapshot import Snapshot
from tests.builders import BuiltHeap, NtHeapBuilder, ProcessBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.heaps.nt.plans import Generation

_BUILDS: dict[HeapArch, tuple[int, ...]] = {
    "x86": (2600, 3790, 6002, 7601, 9200, 9600, 14393, 19041),
    "x64": (3790, 6002, 7601, 9200, 9600, 14393, 17763, 19041, 26100),
}
GENERATIONS = [Generation(arch, build) for arch, builds in _BUILDS.items() for build in builds]
CODINGS = [g for g in GENERATIONS if (g.arch, g.build) in {
    ("x86", 2600), ("x64", 3790), ("x86", 7601), ("x64", 7601), ("x86", 9200), ("x64", 9600), ("x86", 19041), ("x64", 26100),
}]  # fmt: skip
"""One build of each."""

EACH = pytest.mark.parametrize("generation", GENERATIONS, ids=str)
TRACE = 0x7A5C0
"""Where the stack of blocks with a front prefix would be recorded."""

Part = tuple[str, int, int]
"""("lfh", granules of each block, number of blocks), ("traced", the same), ("busy", bytes, 0), ("segment", 0, 0)."""


@dataclass(frozen=True)
class Plan:
    """One heap: what it holds, in this order; `seed` draws the blocks' sizes and states, `key` is RtlpLFHKey."""

    generation: Generation
    parts: tuple[Part, ...]
    seed: int = 1
    key: int = 0x3C9F944E_51DE978B

    def heap(self, base: int = 0, **options: Any) -> BuiltHeap:
        """Builds it."""
        generation, draw = self.generation, random.Random(self.seed)
        base = base or generation.base
        heap = NtHeapBuilder(
            arch=generation.arch, build=generation.build, base=base, flags=0x1002, seed=self.seed, front_end="lfh",
            lfh_key=self.key, **options,
        )  # fmt: skip
        segments = 0
        for what, size, count in self.parts:
            if what == "segment":
                segments += 1
                heap.segment(base + segments * 0x200000, 0x100000)
            elif what == "busy":
                heap.busy(size, b"\xcd" * min(size, 16))
            else:
                trace = TRACE if what == "traced" else 0
                asked = sizes(generation, size, count, draw, trace)
                spare = draw.randrange(0, 200)
                if generation.build < 9200:  # as many blocks as fit
                    spare %= size * (16 if generation.arch == "x64" else 8)
                heap.subsegment(size, asked, trace=trace, spare=spare)
        return heap.build()

    def process(self, *heaps: BuiltHeap) -> ProcessBuilder:
        """The process that these heaps are in."""
        process = ProcessBuilder(arch=self.generation.arch, build=self.generation.build)
        for heap in heaps or (self.heap(),):
            process.heap(heap)
        return process


def sizes(generation: Generation, granules: int, count: int, draw: random.Random, trace: int = 0) -> list[int]:
    """Requested bytes of `count` blocks, -1 for about a third of them."""
    granule = 16 if generation.arch == "x64" else 8
    most = granules * granule - 8 - (2 * granule if trace else 0)
    # where x64 puts counts of 255 unused bytes and more before Vista is not known
    least = max(0, granules * granule - 254) if generation.is_classic and granule == 16 else 0
    return [-1 if draw.random() < 0.35 else draw.choice([least, most, draw.randint(least, most)]) for _ in range(count)]


def _fits(generation: Generation, part: Part) -> Part:
    """The part as far as its generation has such: no front prefix before Vista, and room in a segment."""
    what, granules, count = part
    if what in ("busy", "segment"):
        return part
    granule = 16 if generation.arch == "x64" else 8
    what = "lfh" if generation.is_classic else what
    return what, max(granules, 4 if what == "traced" else 2), max(1, min(count, 0x8000 // (max(granules, 4) * granule)))


def plans(generation: Generation) -> st.SearchStrategy[Plan]:
    """Random heaps of one generation."""
    lfh = st.tuples(st.sampled_from(["lfh", "lfh", "lfh", "traced"]), st.sampled_from([2, 3, 4, 5, 9, 33, 129, 700]),
                    st.integers(1, 140))  # fmt: skip
    busy = st.tuples(st.just("busy"), st.integers(0, 3000), st.just(0))
    parts = st.lists(st.one_of(lfh, lfh, busy), max_size=9).map(lambda chosen: [_fits(generation, p) for p in chosen])
    cut = st.tuples(parts, parts, st.booleans()).map(
        lambda two: (*two[0], *([("segment", 0, 0)] if two[2] else []), *two[1])
    )
    return st.builds(Plan, st.just(generation), cut, st.integers(0, 1 << 30), st.integers(0, (1 << 64) - 1))


Row = tuple[int, int, int | None, int, str]
"""Entry, user address, requested bytes (None: free), occupied bytes, trust."""


def lfh_rows(snapshot: Snapshot) -> set[Row]:
    """The LFH blocks that were found."""
    table = snapshot.walk.table
    blocks = table.blocks(np.flatnonzero(table.kind == BlockKind.LFH))
    return {
        (b.entry, b.address, b.size if b.state == "busy" else None, b.entry_size, b.trust.value) for b in blocks
    }  # fmt: skip


def lfh_truth(*heaps: BuiltHeap, without: tuple[int, ...] = ()) -> set[Row]:
    """The LFH blocks that were built; `without`: entries that are left out."""
    return {
        (b.entry, b.user, b.size, b.entry_size, "exact")
        for heap in heaps for sub in heap.truth.lfh for b in sub.blocks if b.entry not in without
    }  # fmt: skip


def back_end_rows(snapshot: Snapshot) -> set[tuple[int, int]]:
    """(user address, requested bytes) of the program's back-end blocks that were found."""
    table = snapshot.walk.table
    rows = table.is_busy & ~table.is_internal & (table.kind == BlockKind.BACKEND)
    return {(b.address, b.size) for b in table.blocks(np.flatnonzero(rows))}


def back_end_truth(*heaps: BuiltHeap) -> set[tuple[int, int]]:
    """(user address, requested bytes) of the back-end blocks that were built.

    Before Vista the block of _LFH_HEAP counts as the program's: RtlSetHeapInformation asked for it (recorded 2600.5512).
    """
    own = [heap.truth.internal[1] for heap in heaps if heap.truth.build < 6000]
    return {(b.user, b.size) for heap in heaps for b in heap.truth.busy} | {(b.user, b.size) for b in own}
