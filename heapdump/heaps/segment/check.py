"""Compares Windows' counters of a segment heap with the segments and large allocations that were found.

The walk misses a segment, or a large allocation, to which no link leads any more. The counters in the header still
count it (docs/reference/heap-structures.md §6.1, §6.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import SegContext, contexts
from heapdump.heaps.segment.locks import who_changes
from heapdump.layouts import Layout, load


@dataclass(frozen=True, slots=True)
class _Counter:
    """A counter of the header.

    Attributes:
        kind: kind of the finding where it is wrong.
        what: what it counts, in words.
        address: of the counter.
        counted: its value.
        found: the number that was found.
    """

    kind: FindingKind
    what: str
    address: int
    counted: int
    found: int


_UNSEEN = (
    "damage that nothing else in a segment heap contradicts is not seen: in the number of unused bytes of a block, "
    "and in whether it has one"
)
_UNSEEN_BITS = "; in busy bits of LFH blocks"


def check_segment_heap(job: CheckJob) -> None:
    """Adds a finding for each counter that differs from the number found, and a remark on damage that cannot be seen.

    Nothing is compared where the walk found damage or memory is missing, because these explain differences.
    """
    if not job.has_damage and job.heap.layout is not None and job.heap.is_fully_walked:
        for counter in _counters(job, load(job.heap.layout)):
            if counter.counted != counter.found:
                job.findings.append(_finding(job, counter))
    if job.count.kinds:
        job.remarks.append(_UNSEEN + _unseen_bits(job))
    if job.has_damage or job.findings:
        layout = None if job.heap.layout is None else load(job.heap.layout)
        job.in_operation = who_changes(job.process, job.view, layout, job.heap.address, job.changing)


def _unseen_bits(job: CheckJob) -> str:
    """What the remark says of LFH blocks; "" where there are none."""
    if not any(one.kind == BlockKind.LFH for one in job.count.kinds):
        return ""
    return _UNSEEN_BITS + (
        ", which this build does not count" if _counts_no_lfh_blocks(job) else ", where as many stay set"
    )


def _counts_no_lfh_blocks(job: CheckJob) -> bool:
    """True in builds whose LFH subsegments do not count all their free blocks (26100)."""
    name, layout = "_HEAP_LFH_SUBSEGMENT", load(job.heap.layout or job.view.layout.name)
    return name in layout and "State" in layout[name]


def _finding(job: CheckJob, counter: _Counter) -> Finding:
    message = f"heap {job.heap.address:#x}: {counter.what} counted are {counter.counted:,}, found {counter.found:,}"
    texts = f"{counter.found:,}", f"{counter.counted:,}"
    damaged = DamagedBytes(counter.kind, counter.address, job.view.pointer_bytes, *texts)
    return damaged.finding(job.heap.address, message)


def _counters(job: CheckJob, layout: Layout) -> Iterator[_Counter]:
    """The counters of segments, one for each segment size, and the counter of committed pages of large allocations.

    Counters that are not in the dump are left out.
    """
    lists = contexts(job.view, layout, job.heap.address) or ()
    lists = lists if all(_is_counted(job, layout, context) for context in lists) else ()
    for size in dict.fromkeys(context.segment_bytes for context in lists):
        # on 19041 x86 both contexts have the same segment size, and the second one is not in use
        yield _segment_counter(job, layout, [context for context in lists if context.segment_bytes == size])
    counted, committed = job.heap.counters.virtual_bytes, job.heap.large_committed_bytes
    if counted is not None and committed is not None:
        place = job.heap.address + layout["_SEGMENT_HEAP"].offset("LargeCommittedPages")
        what = "committed pages of large blocks"
        yield _Counter("large_metadata", what, place, counted // PAGE, committed // PAGE)


def _is_counted(job: CheckJob, layout: Layout, context: SegContext) -> bool:
    """True where the dump holds the structure with the context's counter."""
    owner = "_SEGMENT_HEAP" if context.anchor == job.heap.address else "_HEAP_SEG_CONTEXT"
    return job.view.struct(owner, context.anchor, layout) is not None


def _segment_counter(job: CheckJob, layout: Layout, lists: list[SegContext]) -> _Counter:
    """The counter of segments of one size. `lists`: the contexts with that size; the first one has the counter."""
    anchor, size = lists[0].anchor, lists[0].segment_bytes
    owner = layout["_SEGMENT_HEAP" if anchor == job.heap.address else "_HEAP_SEG_CONTEXT"]
    found = sum(segment.span.size == size for segment in job.heap.segments)
    counted = sum(context.segment_count for context in lists)
    return _Counter("segment", "segments", anchor + owner.offset("SegmentCount"), counted, found)
