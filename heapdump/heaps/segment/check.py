"""What of a walked segment heap contradicts its own counts: segments and large blocks that nothing links any more."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.blocks.findings import Finding, FindingKind, Severity
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.segment.header import contexts
from heapdump.layouts import load


def check_segment_heap(job: CheckJob) -> None:
    """The `CHECK` of segment heaps.

    Nothing is compared where the walk found damage, or not all of the heap: that is the reason then.
    """
    if job.has_damage or job.heap.layout is None or not job.heap.is_fully_walked:
        return
    contradicted = list(_contradicted(job))
    why = job.changing() if contradicted else ""
    for kind, place, what, stated, found in contradicted:
        message = (
            f"heap {job.heap.address:#x}: {what} counted are {stated:,}, found {found:,}{f'; {why}' if why else ''}"
        )
        severity: Severity = "warning" if why else "error"
        job.findings.append(
            Finding(kind, severity, job.heap.address, place, job.view.pointer_bytes, message, f"{found:,}", f"{stated:,}")
        )  # fmt: skip


def _contradicted(job: CheckJob) -> Iterator[tuple[FindingKind, int, str, int, int]]:
    """(kind of damage, address of the count, what is counted, as it says, as it was found)."""
    layout, heap = load(job.heap.layout or ""), job.heap
    struct = layout["_SEGMENT_HEAP"]
    parts = contexts(job.view, layout, heap.address) or ()
    for size in dict.fromkeys(part.segment_bytes for part in parts):
        mine = [
            part for part in parts if part.segment_bytes == size
        ]  # both contexts on x86 of 19041, the second one empty
        found, stated = sum(segment.span.size == size for segment in heap.segments), sum(part.segments for part in mine)
        if found != stated:
            owner = struct if mine[0].anchor == heap.address else layout["_HEAP_SEG_CONTEXT"]
            yield "segment", mine[0].anchor + owner.offset("SegmentCount"), "segments", stated, found
    counted, committed = heap.counters.virtual_bytes, heap.large_committed_bytes
    if counted is not None and committed is not None and counted != committed:
        place = heap.address + struct.offset("LargeCommittedPages")
        yield "large_metadata", place, "committed pages of large blocks", counted // PAGE, committed // PAGE
