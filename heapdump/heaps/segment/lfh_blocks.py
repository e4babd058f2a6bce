"""The blocks of LFH subsegments of a segment heap, from their bitmaps: there are no block headers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import doubt, tag
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.lfh_bitmap import bitmap_wound, is_filled_behind, lost_bits
from heapdump.heaps.segment.lfh_recovery import mended
from heapdump.heaps.segment.lfh_subsegments import Decoded, Subsegments
from heapdump.heaps.segment.memory_windows import Batch, batches, doubt_missing
from heapdump.kernels import lfh_blocks, run
from heapdump.spans import Span

_BATCH_ROWS = 1 << 18
_MANY = 8
"""Subsegments, most of which tell what is usual."""


def add_slots(job: SegmentHeapJob, read: Subsegments, decoded: Decoded, padding: int) -> None:
    """Adds a row for each block; findings for subsegments that do not decode or whose counts disagree."""
    decoded = mended(job, read, decoded)
    _report(job, read, decoded)
    good = np.flatnonzero(decoded.is_good)
    end = read.start + decoded.first + decoded.size * decoded.count
    for batch in batches(job.view.space, read.start[good], end[good]):
        rows = good[batch.rows]
        cuts = np.flatnonzero(np.diff(np.cumsum(decoded.count[rows]) // _BATCH_ROWS)) + 1
        bases = np.split(batch.base, cuts)
        for part, base in zip(np.split(rows, cuts), bases, strict=True):
            _add(job, batch, read, decoded, part, base, padding)


def _add(
    job: SegmentHeapJob,
    batch: Batch,
    read: Subsegments,
    decoded: Decoded,
    rows: NDArray[np.int64],
    base: NDArray[np.int64],
    padding: int,
) -> None:
    start = read.start[rows] - base
    bits = start + read.struct.offset("BlockBitmap")
    columns = (
        base, start, bits, decoded.first[rows], decoded.size[rows], decoded.count[rows], read.stated[rows], read.list[rows],
        read.freed[rows],
    )  # fmt: skip
    table, room = np.ascontiguousarray(np.stack(columns, axis=1)), int(decoded.count[rows].sum())
    counted = np.zeros(len(rows), np.uint8)
    job.workload.add(room, int((decoded.size[rows] * decoded.count[rows]).sum()))
    tail = job.columns.tail(room)
    run(
        lfh_blocks.read_blocks, job.workload.expected(room), batch.words, table, read.span, padding, tag(BlockKind.LFH), tail, counted,
    )  # fmt: skip
    del tail
    job.columns.add(room, job.heap.index)
    if batch.missing:
        doubt_missing(job, len(job.columns) - room, batch.missing)
        if _doubt_bits(job, read, int(rows[0]), room, batch.missing):
            return
        if read.has_list and not counted[0] & lfh_blocks.COUNTS_AGREE:
            _doubt_list(job, int(read.start[rows[0]]), room)
            return
    good = ((counted & lfh_blocks.COUNTS_AGREE) > 0) & _are_usual(
        job, ((counted & lfh_blocks.FREE_BITS_CLEAR) > 0) & is_filled_behind(read, rows, decoded.count[rows])
    )
    job.walked.headers += len(rows)
    job.walked.good_headers += int(good.sum())
    _doubt(job, decoded.count[rows], good & decoded.is_whole[rows], room)
    for i in rows[~good].tolist():
        wound, heap = bitmap_wound(read, i, int(decoded.count[i])), job.heap.address
        message = f"heap {heap:#x}: the bitmap of the LFH subsegment at {int(read.start[i]):#x} contradicts itself or its counts"
        job.walked.find(
            Finding(
                "lfh_subsegment", "warning", heap, wound.address, wound.length, message, wound.expected, wound.found
            )
        )


def _are_usual(job: SegmentHeapJob, clear: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which bitmaps are as this build has them; `clear`: they are as in every recorded heap. What most have is no damage."""
    known = job.keys
    known.has_other_bits |= len(clear) >= _MANY and 2 * int(clear.sum()) < len(clear)
    return clear | known.has_other_bits


def _doubt_bits(job: SegmentHeapJob, read: Subsegments, i: int, room: int, missing: Sequence[Span]) -> bool:
    """Whether some bits of subsegment `i`, whose rows are the last ones, are not in the dump; such rows are guesses."""
    lost = lost_bits(read, i, room, missing)
    if not lost.any():
        return False
    doubt(job.columns.since(len(job.columns) - room).tags, lost, Trust.GUESS)
    job.walked.gap(
        f"heap {job.heap.address:#x}: a part of the bitmap of the LFH subsegment at {int(read.start[i]):#x} is not in the dump: "
        f"whether {int(lost.sum()):,} of its blocks are busy is not known, they count as free"
    )
    return True


def _doubt_list(job: SegmentHeapJob, address: int, room: int) -> None:
    """The list of freed blocks in a subsegment, whose rows are the last ones, runs through what is not in the dump."""
    table = job.columns.since(len(job.columns) - room)
    doubt(table.tags, table.is_busy, Trust.GUESS)
    job.walked.gap(
        f"heap {job.heap.address:#x}: a part of the list of freed blocks in the LFH subsegment at {address:#x} is not in the dump: "
        "some of them count as busy"
    )


def _doubt(job: SegmentHeapJob, count: NDArray[np.int64], good: NDArray[np.bool_], room: int) -> None:
    """The last `room` rows, of subsegments with so many blocks each: `derived` where a subsegment is not `good`."""
    if not good.all():
        table = job.columns.since(len(job.columns) - room)
        doubt(table.tags, np.repeat(~good, count), Trust.DERIVED)


def _report(job: SegmentHeapJob, read: Subsegments, decoded: Decoded) -> None:
    heap = job.heap.address
    job.walked.headers += len(read.rows)
    job.walked.good_headers += int((decoded.is_good & decoded.is_whole).sum())
    for i in np.flatnonzero(~decoded.is_good).tolist():
        address = int(read.start[i])
        if not read.there[i]:
            job.walked.gap(f"heap {heap:#x}: the LFH subsegment at {address:#x} is not in the dump")
            continue
        message = f"the LFH subsegment at {address:#x} of heap {heap:#x} cannot be decoded"
        found = f"blocks of {int(decoded.size[i])} bytes from {int(decoded.first[i]):#x} on"
        job.walked.find(
            Finding("lfh_subsegment", "error", heap, address, read.struct.size, message, "blocks that fill it", found)
        )
        job.walked.gap(f"{message}: its blocks are missing")
