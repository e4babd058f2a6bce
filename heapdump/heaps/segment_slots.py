"""The blocks of LFH subsegments of a segment heap, from their bitmaps: there are no block headers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Trust
from heapdump.blocks.table import BlockKind, doubt, tag
from heapdump.heaps.segment_lfh import Decoded, Subsegments
from heapdump.heaps.segment_lfh_wounds import mended
from heapdump.heaps.segment_memory import Batch, batches, doubt_missing
from heapdump.heaps.walked import Job
from heapdump.kernels import run, slots

_BATCH_ROWS = 1 << 18


def add_slots(job: Job, read: Subsegments, decoded: Decoded, padding: int) -> None:
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
    job: Job, batch: Batch, read: Subsegments, decoded: Decoded, rows: NDArray[np.int64], base: NDArray[np.int64], padding: int
) -> None:
    heap = job.heap.address
    start = read.start[rows] - base
    bits = start + read.struct.offset("BlockBitmap")
    columns = (
        base, start, bits, decoded.first[rows], decoded.size[rows], decoded.count[rows], read.stated[rows], read.list[rows],
        read.freed[rows],
    )  # fmt: skip
    table, room = np.ascontiguousarray(np.stack(columns, axis=1)), int(decoded.count[rows].sum())
    good = np.zeros(len(rows), np.uint8)
    tail = job.columns.tail(room)
    run(
        slots.read_slots, room, batch.words, table, read.span, padding, tag(BlockKind.LFH), tail.entry, tail.units,
        tail.spare, tail.lead, tail.tags, good,
    )  # fmt: skip
    del tail
    job.columns.add(room, job.heap.index)
    job.walked.headers += len(rows)
    job.walked.good_headers += int(good.sum())
    _doubt(job, decoded.count[rows], (good == 1) & decoded.is_whole[rows], room)
    if batch.missing:
        doubt_missing(job, len(job.columns) - room, batch.missing)
    for i in np.flatnonzero(good == 0).tolist():
        address = int(read.start[rows[i]])
        message = f"heap {heap:#x}: the LFH subsegment at {address:#x} counts other free blocks than its bitmap"
        job.walked.find(Finding("lfh_subsegment", "warning", heap, address, read.struct.size, message, "one number of free blocks", "two"))


def _doubt(job: Job, count: NDArray[np.int64], good: NDArray[np.bool_], room: int) -> None:
    """The last `room` rows, of subsegments with so many blocks each: `derived` where a subsegment is not `good`."""
    if not good.all():
        table = job.columns.since(len(job.columns) - room)
        doubt(table.tags, np.repeat(~good, count), Trust.DERIVED)


def _report(job: Job, read: Subsegments, decoded: Decoded) -> None:
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
        job.walked.find(Finding("lfh_subsegment", "error", heap, address, read.struct.size, message, "blocks that fill it", found))
        job.walked.gap(f"{message}: its blocks are missing")
