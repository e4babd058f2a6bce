"""The result of checking all heaps."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.walk import HeapCount


class WhyUnchecked(StrEnum):
    """The reason why a heap was not checked."""

    NOT_VERIFIED = "not_verified"
    NOT_WALKED = "not_walked"
    NO_CHECK = "no_check"

    @property
    def words(self) -> str:
        """The reason for a person."""
        return _WORDS[self]


_WORDS = {
    WhyUnchecked.NOT_VERIFIED: "no allocator recognises it",
    WhyUnchecked.NOT_WALKED: "none of its blocks could be read",
    WhyUnchecked.NO_CHECK: "there are no checks for heaps of this kind",
}


@dataclass(frozen=True, slots=True)
class UncheckedHeap:
    """A heap about whose damage nothing is known, by its index, and the reason."""

    heap: int
    why: WhyUnchecked


@dataclass(frozen=True, slots=True)
class Damage:
    """`findings`: every broken rule, `gaps`: lines on what could not be examined, and why.

    `guarded`: indices of the heaps that may hold blocks of the CRT's debug heap. `unchecked`: the heaps that were not
    checked at all, by index; no finding in one of these does not mean that it is healthy. `remarks`: lines on damage
    that no check of these heaps can see.
    """

    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]
    guarded: tuple[int, ...]
    unchecked: tuple[UncheckedHeap, ...] = ()
    remarks: tuple[str, ...] = ()


def why_not_walked(heap: Heap, count: HeapCount | None) -> WhyUnchecked | None:
    """The reason why a walk read no block of a heap; None where it read one, or the heap is empty.

    `count` is None for a heap that no allocator walks. A segment has at least one block, of the allocator itself.
    """
    if heap.kind == HeapKind.UNKNOWN:
        return WhyUnchecked.NOT_VERIFIED
    has_blocks = bool(heap.segments) or not heap.is_fully_walked
    is_read = count is not None and (count.kinds or count.internal or not has_blocks)
    return None if is_read else WhyUnchecked.NOT_WALKED
