"""Cuts the work of a walk into shares of about equal bytes: committed runs and large blocks of all heaps by address.

Decision: shares depend on the heaps alone, never on the number of processors. How a damaged LFH is read depends on the
user blocks before it in the same share, so other shares would give other answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from heapdump.blocks.heap import Heap, LargeBlock
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.lfh_subsegments import LfhState
from heapdump.heaps.nt.windows import committed_runs
from heapdump.spans import Span

_SHARE_BYTES = 16 << 20
_MAX_SHARES = 64


@dataclass(frozen=True, slots=True)
class WorkItem:
    """A committed run of a heap, or one of its large blocks.

    Attributes:
        span: the run; for a large block one byte at its list entry.
        heap: the heap.
        large: the large block; None for a run.
    """

    span: Span
    heap: Heap
    large: LargeBlock | None


@dataclass
class WorkShare:
    """Items that one thread walks, and everything but rows that it finds.

    Attributes:
        items: ascending by address.
        logs: index of the heap → its log.
        lfh_states: name of the view → state of its LFH.
    """

    items: list[WorkItem]
    logs: dict[int, WalkLog] = field(default_factory=dict)
    lfh_states: dict[str, LfhState] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Bytes of all items."""
        return sum(item.span.size for item in self.items)

    def groups(self) -> Iterator[tuple[Heap, bool, list[WorkItem]]]:
        """(heap, True for large blocks and False for runs, neighbouring items of this heap and sort), in order."""
        for (_, is_large), group in groupby(self.items, key=lambda item: (item.heap.index, item.large is not None)):
            items = list(group)
            yield items[0].heap, is_large, items


def cut(heaps: Sequence[Heap]) -> list[WorkShare]:
    """All work of these heaps as shares, ascending by address."""
    items = sorted((item for heap in heaps for item in _items(heap)), key=lambda item: item.span)
    total = sum(item.span.size for item in items)
    count = min(_MAX_SHARES, max(1, total // _SHARE_BYTES))
    groups = groupby(_numbered(items), key=lambda pair: pair[0] * count // (total + 1))
    return [WorkShare([item for _, item in group]) for _, group in groups]


def _items(heap: Heap) -> Iterator[WorkItem]:
    for segment in heap.segments:
        for run in committed_runs(segment):
            yield WorkItem(run, heap, None)
    for block in heap.large_blocks or ():
        yield WorkItem(Span(block.list_entry, block.list_entry + 1), heap, block)


def _numbered(items: list[WorkItem]) -> Iterator[tuple[int, WorkItem]]:
    """(bytes of the items before, item)."""
    before = 0
    for item in items:
        yield before, item
        before += item.span.size
