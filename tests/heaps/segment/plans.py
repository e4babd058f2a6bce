"""Random segment heaps as plans for the builder, and the dump of a process with such a heap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from tests.builders import BuiltSegmentHeap, ProcessBuilder, SegmentHeapBuilder
from tests.builders.nt_heap_layout import HeapArch
from tests.builders.segment_heap_layout import GENERATIONS, served_sizes

BASES = {"x64": 0x20000000000, "x86": 0x10000000}


@dataclass(frozen=True)
class Plan:
    """One heap: `parts` are (what, number) pairs; `seed` draws everything else."""

    arch: HeapArch
    build: int
    padding: bool
    parts: tuple[tuple[str, int], ...]
    seed: int

    def heap(self) -> BuiltSegmentHeap:
        """Builds it."""
        base, random = BASES[self.arch], np.random.default_rng(self.seed)
        heap = SegmentHeapBuilder(arch=self.arch, build=self.build, base=base, seed=self.seed, padding=self.padding)
        pad = (16 if self.arch == "x64" else 8) * self.padding
        granule, large, sizes = (
            16 if self.arch == "x64" else 8,
            0,
            [2, 3, *random.choice(np.arange(4, 60), 6, replace=False)],
        )
        heap.segment(base + 0x400000)
        # enough of each kind that both keys and the padding show: many small LFH blocks leave one key only
        heap.chunks([int(n) for n in random.integers(0, 400, 60)])
        for granules in sizes[:5]:
            self._lfh_blocks(heap, random, int(granules) * granule, pad)
        for what, number in self.parts:
            if what == "vs":
                heap.chunks(
                    [
                        int(n) if n >= 0 else -int(random.integers(2, 40))
                        for n in _apart(random.integers(-300, 1500, number))
                    ]
                )
            elif what == "lfh":
                self._lfh_blocks(heap, random, int(sizes[number % 8]) * granule, pad, pages=1 + number % 3)
            elif what == "pages":
                heap.pages(number * 500 + 1)
            elif what == "free":
                heap.free_range(number % 9 + 1, committed=number % 2)
            else:
                heap.large(base + 0x8000000 + large * 0x400000, 0x80000 + number * 5001)
                large += 1
        if self.build > 16299 and self.arch == "x64":
            heap.segment(base + 0x2000000, big=True)
            heap.pages(700_001)
            heap.pages(1_000_000)
        return heap.build()

    def _lfh_blocks(
        self, heap: SegmentHeapBuilder, random: np.random.Generator, block: int, pad: int, pages: int = 1
    ) -> None:
        count = heap.most_lfh_blocks(block, pages)
        least, end = served_sizes(block, 16 if self.arch == "x64" else 8)
        asked = random.integers(max(0, least - pad), end - pad, count)
        asked[random.random(count) < 0.3] = -1
        busy = np.flatnonzero(asked >= 0)
        listed = random.permutation(busy)[: len(busy) // 4].tolist() if self.build >= 26100 else ()
        heap.lfh_blocks(block, asked, pages=pages, listed=listed)

    def process(self, built: BuiltSegmentHeap) -> ProcessBuilder:
        """The process that the heap is in."""
        return built.add_to(ProcessBuilder(arch=self.arch, build=self.build))


def _apart(sizes: np.ndarray) -> list[int]:
    """Sizes without two free chunks side by side: the allocator joins those."""
    out: list[int] = []
    for size in sizes.tolist():
        if size >= 0 or not out or out[-1] >= 0:
            out.append(size)
    return out


CONTENTS = st.lists(
    st.tuples(st.sampled_from(["vs", "lfh", "pages", "free", "large"]), st.integers(1, 40)), max_size=8,
).map(tuple)  # fmt: skip


def plans(generation: tuple[HeapArch, int]) -> st.SearchStrategy[Plan]:
    """Random heaps of one generation; padding as far as that generation was seen with it."""
    arch, build = generation
    padding = st.booleans() if build < 20348 else st.just(False)
    return st.builds(Plan, st.just(arch), st.just(build), padding, CONTENTS, st.integers(0, 1 << 30))


__all__ = ["GENERATIONS", "Plan", "plans"]
