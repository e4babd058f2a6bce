"""The overhead of heaps beside the requested bytes: headers and rounding, sparse subsegments, free blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable

_SPARSE = 0.5
"""Share of busy blocks below which a subsegment is sparse."""


@dataclass(frozen=True, slots=True)
class Overhead:
    """Bytes that one heap spends on one kind of overhead.

    Attributes:
        heap: the heap.
        count: number of busy blocks with unused bytes, of sparse subsegments, or of free blocks.
        bytes: bytes of the overhead.
        of_bytes: bytes of all these blocks or subsegments.
    """

    heap: Heap
    count: int
    bytes: int
    of_bytes: int


def padding(heaps: tuple[Heap, ...], table: BlockTable, rows: NDArray[np.int64]) -> Iterator[Overhead]:
    """Headers and rounding of each heap: occupied minus requested bytes. `rows`: of busy blocks."""
    for heap, of_heap in _by_heap(heaps, table, rows):
        occupied, asked = int(table.entry_sizes(of_heap).sum()), int(table.sizes(of_heap).sum())
        yield Overhead(heap, len(of_heap), occupied - asked, occupied)


def sparse_subsegments(heaps: tuple[Heap, ...], table: BlockTable) -> Iterator[Overhead]:
    """Free LFH blocks of each heap in subsegments of which less than half of the bytes is busy."""
    lfh = np.flatnonzero((table.kind == BlockKind.LFH) & ~table.is_internal)
    for heap, of_heap in _by_heap(heaps, table, lfh):
        internal = np.flatnonzero((table.heap == heap.index) & table.is_internal)
        owner = np.searchsorted(table.entry[internal], table.entry[of_heap], side="right")
        size = table.entry_sizes(of_heap).astype(np.float64)
        busy = table.is_busy[of_heap]
        of_bytes = np.bincount(owner, size, minlength=len(internal) + 1)
        used = np.bincount(owner[busy], size[busy], minlength=len(internal) + 1)
        sparse = (of_bytes > 0) & (used < _SPARSE * of_bytes)
        yield Overhead(heap, int(sparse.sum()), int((of_bytes - used)[sparse].sum()), int(of_bytes[sparse].sum()))


def free_blocks(heaps: tuple[Heap, ...], table: BlockTable) -> Iterator[Overhead]:
    """Free blocks of each heap outside of LFH subsegments."""
    free = np.flatnonzero(~table.is_busy & (table.kind != BlockKind.LFH) & ~table.is_internal)
    for heap, of_heap in _by_heap(heaps, table, free):
        size = int(table.entry_sizes(of_heap).sum())
        of_bytes = heap.committed_bytes
        yield Overhead(heap, len(of_heap), size if of_bytes is None else min(size, of_bytes), of_bytes or size)


def _by_heap(
    heaps: tuple[Heap, ...], table: BlockTable, rows: NDArray[np.int64]
) -> Iterator[tuple[Heap, NDArray[np.int64]]]:
    """The rows of each heap that has some."""
    owners = table.heap[rows]
    for heap in heaps:
        of_heap = rows[owners == heap.index]
        if len(of_heap):
            yield heap, of_heap
