"""The result of checking all heaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
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
    """A heap that no check examined: its index, and the reason."""

    heap: int
    why: WhyUnchecked


@dataclass(frozen=True, slots=True)
class Damage:
    """The result of checking all heaps.

    Attributes:
        findings: every broken rule.
        gaps: sentences that say which memory or structure could not be examined, and why.
        guarded: indices of the heaps that may hold blocks of the CRT's debug heap.
        unchecked: heaps that no check examined. Such a heap has no findings, but may be damaged.
        remarks: sentences about damage that the checks of these heaps cannot see.
        cut: addresses of the heaps that may have more findings than these.
    """

    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]
    guarded: tuple[int, ...]
    unchecked: tuple[UncheckedHeap, ...] = ()
    remarks: tuple[str, ...] = ()
    cut: tuple[int, ...] = ()


def may_lack_some(findings: Sequence[Finding], most: int) -> set[int]:
    """Addresses of the heaps that have `most` findings, as many as their walk keeps."""
    return {heap for heap, count in Counter(finding.heap for finding in findings).items() if count >= most}


def why_not_walked(heap: Heap, count: HeapCount | None) -> WhyUnchecked | None:
    """The reason why no block of a heap was read; None where one was read, or the heap has no memory for blocks.

    `count`: the result of the walk; None for a heap that no allocator walks.
    """
    if heap.kind == HeapKind.UNKNOWN:
        return WhyUnchecked.NOT_VERIFIED
    has_blocks = bool(heap.segments) or not heap.is_fully_walked
    is_read = count is not None and (count.kinds or count.internal or not has_blocks)
    return None if is_read else WhyUnchecked.NOT_WALKED
