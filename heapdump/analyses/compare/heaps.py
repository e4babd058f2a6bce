"""Heaps of several dumps, matched: within one process by address, between runs by role, flags and order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from heapdump.blocks.heap import Heap
from heapdump.blocks.walk import HeapCount

HeapKey = tuple[str | int | None, ...]


@dataclass(frozen=True, slots=True)
class HeapNumbers:
    """The numbers of one heap in one dump; None where the dump does not tell.

    Attributes:
        address: of the heap.
        kind: its kind.
        role: `process`, a CRT …; "" for none.
        flags: its flags.
        busy_blocks: number of the program's busy blocks.
        busy_bytes: requested bytes of these.
        reserved_bytes: reserved bytes of its segments.
        committed_bytes: committed bytes of its segments.
        free_bytes: free bytes of the back end by Windows' counter, else by the walk.
        large_blocks: number of large blocks.
        large_bytes: committed bytes of these.
        large_sizes: committed bytes of each large block, in no order.
    """

    address: int
    kind: str
    role: str
    flags: int | None
    busy_blocks: int | None
    busy_bytes: int | None
    reserved_bytes: int | None
    committed_bytes: int | None
    free_bytes: int | None
    large_blocks: int | None
    large_bytes: int | None
    large_sizes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ComparedHeap:
    """The numbers of one heap in each dump; None in a dump that does not have it."""

    values: tuple[HeapNumbers | None, ...]

    @property
    def last(self) -> HeapNumbers:
        """The numbers of the last dump that has the heap."""
        return next(value for value in reversed(self.values) if value is not None)

    @property
    def delta_bytes(self) -> int:
        """Busy bytes in the last dump minus those in the first; a missing heap has 0."""
        first, last = ((value.busy_bytes or 0) if value else 0 for value in (self.values[0], self.values[-1]))
        return last - first


def heap_keys(heaps: Sequence[Heap], *, is_same_process: bool) -> list[HeapKey]:
    """For each heap a key that is the same in every dump.

    Within one process: view, address, kind and flags; a heap that was destroyed and created anew at its old address is
    not told apart. Between runs: view, role, kind and flags, and the place among the heaps that share them.
    """
    seen: Counter[HeapKey] = Counter()
    out: list[HeapKey] = []
    for heap in heaps:
        key: HeapKey = (heap.view, str(heap.kind), heap.flags)
        key = (*key, heap.address) if is_same_process else (*key, heap.role)
        out.append((*key, seen[key]))
        seen[key] += 1
    return out


def heap_numbers(heap: Heap, count: HeapCount | None) -> HeapNumbers:
    """The numbers of a heap; `count`: what its walk counted, None without a walk."""
    free = heap.free_bytes
    if free is None and count is not None:
        free = count.free_bytes
    return HeapNumbers(
        heap.address, heap.kind, heap.role, heap.flags,
        count.busy_blocks if count else None,
        count.busy_bytes if count else None,
        heap.reserved_bytes, heap.committed_bytes, free,
        None if heap.large_blocks is None else len(heap.large_blocks),
        heap.large_committed_bytes,
        tuple(block.commit_bytes for block in heap.large_blocks or ()),
    )  # fmt: skip


def match_heaps(dumps: Sequence[dict[HeapKey, HeapNumbers]]) -> tuple[ComparedHeap, ...]:
    """Every heap of every dump once; those that changed most first, then in the order of their first dump."""
    keys = dict.fromkeys(key for dump in dumps for key in dump)
    found = (ComparedHeap(tuple(dump.get(key) for dump in dumps)) for key in keys)
    return tuple(sorted(found, key=lambda heap: -abs(heap.delta_bytes)))
