"""Large blocks of several dumps, compared: how many of each size every heap has."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from heapdump.analyses.compare.heaps import ComparedHeap, HeapNumbers


@dataclass(frozen=True, slots=True)
class ComparedLargeBlocks:
    """The large blocks of one heap that commit `bytes` each: their number in every dump.

    `heap`: the handle of the heap in the last dump that has it.
    """

    heap: int
    bytes: int
    counts: tuple[int, ...]

    @property
    def delta_bytes(self) -> int:
        """Committed bytes of all of them in the last dump minus those in the first."""
        return self.bytes * (self.counts[-1] - self.counts[0])


def compare_large_blocks(heaps: Sequence[ComparedHeap]) -> tuple[ComparedLargeBlocks, ...]:
    """A row for each heap and size; the largest change first, then by heap and falling size."""
    rows = [row for heap in heaps for row in _of_heap(heap)]
    return tuple(sorted(rows, key=lambda row: (-abs(row.delta_bytes), row.heap, -row.bytes)))


def _of_heap(heap: ComparedHeap) -> Iterator[ComparedLargeBlocks]:
    counted = [Counter(_sizes(value)) for value in heap.values]
    for size in sorted({size for sizes in counted for size in sizes}):
        yield ComparedLargeBlocks(heap.last.address, size, tuple(sizes[size] for sizes in counted))


def _sizes(numbers: HeapNumbers | None) -> tuple[int, ...]:
    return numbers.large_sizes if numbers else ()
