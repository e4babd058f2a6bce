"""Fragmentation of a heap by WinDbg's two formulas (semantics.md §2.2, checked there on published output)."""

from __future__ import annotations

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind


def external(heap: Heap) -> float | None:
    """Free / committed bytes of the segments, 0 to 1; None where Windows keeps no count."""
    free, committed = heap.free_bytes, heap.committed_bytes
    return free / committed if free is not None and committed and free <= committed else None


def virtual(heap: Heap) -> float | None:
    """(virtual - committed) / virtual, 0 to 1; None where Windows keeps no count.

    virtual = reserved bytes minus long uncommitted ranges.
    """
    large = heap.counters.large_uncommitted_bytes
    if heap.kind != HeapKind.NT or large is None or not heap.reserved_bytes or heap.committed_bytes is None:
        return None
    size = heap.reserved_bytes - large
    return (size - heap.committed_bytes) / size if size > 0 and 0 <= heap.committed_bytes <= size else None
