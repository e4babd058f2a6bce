"""What the ranges of a segment heap hold where their descriptors cannot be right about it.

Of a VS subsegment the last unit is not used, of an LFH subsegment everything, of a block all but less than a unit
(recorded heaps of all builds). Where the flags contradict that, the subsegment's own header tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.lfh_key import are_slots
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.vs_subsegments import are_chains
from heapdump.layouts import Struct

_MANY = 8
"""Ranges of one kind, most of which tell what is usual."""

_WORDS = {
    RangeKind.FREE: "nothing", RangeKind.PAGES: "a block", RangeKind.LFH: "an LFH subsegment", RangeKind.VS: "a VS subsegment",
    RangeKind.INTERNAL: "something internal",
}  # fmt: skip


def settled(
    job: SegmentHeapJob, ranges: Ranges, chunk_structs: Sequence[Struct], slot_structs: Sequence[Struct]
) -> Ranges:
    """The ranges with the kinds that their contents have; a finding for each that says another one.

    `chunk_structs`, `slot_structs`: headers of VS and LFH subsegments of the builds, the likeliest first.
    """
    kind, inside = ranges.kind.copy(), ranges.start != ranges.descriptor
    has_guard, is_full = ranges.unused >= ranges.unit, ranges.unused == 0

    def rows_of(which: NDArray[np.bool_], witness: RangeKind, *, holds: bool) -> NDArray[np.int64]:
        """Those of the ranges whose content is of the witness' kind, or is not."""
        rows = np.flatnonzero(which & inside)
        if not len(rows):
            return rows
        tell, structs = (are_slots, slot_structs) if witness is RangeKind.LFH else (are_chains, chunk_structs)
        found: NDArray[np.int64] = rows[tell(job, ranges, rows, structs) == holds]
        return found

    said = ranges.kind
    kind[rows_of(has_guard & (said != RangeKind.FREE) & (said != RangeKind.VS), RangeKind.VS, holds=True)] = (
        RangeKind.VS
    )
    kind[rows_of(~has_guard & (said == RangeKind.VS), RangeKind.VS, holds=False)] = RangeKind.PAGES
    kind[rows_of(~has_guard & ~is_full & (said == RangeKind.LFH), RangeKind.LFH, holds=False)] = RangeKind.PAGES
    kind[rows_of(is_full & (said != RangeKind.FREE) & (said != RangeKind.LFH), RangeKind.LFH, holds=True)] = (
        RangeKind.LFH
    )
    for each in RangeKind:  # what most ranges of a kind seem to be wrong in is how this build has them
        same = np.flatnonzero(said == each)
        if len(same) >= _MANY and 2 * int((kind[same] != each).sum()) > len(same):
            kind[same] = each
    _report(job, ranges, kind, inside)
    found = replace(ranges, kind=kind, is_sure=ranges.is_sure & (kind == ranges.kind))
    _report_unused(job, found)
    return found


def _report_unused(job: SegmentHeapJob, ranges: Ranges) -> None:
    heap = job.heap.address
    for i in np.flatnonzero(~ranges.is_size_known & ranges.is_sure).tolist():
        place, unused, unit = int(ranges.descriptor[i]), int(ranges.unused[i]), int(ranges.unit[i])
        message = f"heap {heap:#x}: the page descriptor at {place:#x} is damaged: {unused:,} bytes not used at the end of a block"
        size = 4 * job.view.pointer_bytes
        job.walked.find(Finding("segment", "error", heap, place, size, message, f"less than {unit:,}", f"{unused:,}"))
        job.walked.good_headers -= 1


def _report(job: SegmentHeapJob, ranges: Ranges, kind: NDArray[np.int64], inside: NDArray[np.bool_]) -> None:
    heap = job.heap.address
    for i in np.flatnonzero((kind != ranges.kind) & ranges.is_sure).tolist():
        place, size = int(ranges.descriptor[i]), 4 * job.view.pointer_bytes
        message = f"heap {heap:#x}: the page descriptor at {place:#x} is damaged: its range at {int(ranges.start[i]):#x} is of another kind"
        texts = _WORDS[RangeKind(kind[i])], _WORDS[RangeKind(ranges.kind[i])]
        job.walked.find(Finding("segment", "error", heap, place, size, message, *texts))
        job.walked.good_headers -= 1
    for i in np.flatnonzero((kind == RangeKind.INTERNAL) & inside).tolist():
        # no recorded heap has such a range
        job.walked.gap(
            f"heap {heap:#x}: the page range at {int(ranges.start[i]):#x} is of an unknown kind: what it holds is missing"
        )
