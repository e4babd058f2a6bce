"""What the walk of an NT heap does not look at: bytes of headers that sizes do not need, fills, free lists.

In: the walked rows. Out: findings. Lists and counts that contradict are a warning while somebody may be changing the heap.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding, FindingKind, Severity
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.heap import Heap
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.blocks.walk import CheckKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.entry_format import EntryFormat, entry_format_of
from heapdump.heaps.nt.free_lists import all_linked, read_free_lists
from heapdump.heaps.nt.lock import lock_words
from heapdump.heaps.nt.lookaside import check_lookasides
from heapdump.heaps.nt.windows import Window, runs, windows
from heapdump.kernels import WORTH_COMPILING, nt_entry_checks, run
from heapdump.kernels.row import CLASS_MASK
from heapdump.spans import SpanMap

_MOST = 4096
"""Wrong things reported of one window."""

_AT_ONCE = 4


def check_nt_heap(job: CheckJob) -> None:
    """Every entry, then the lookaside and free lists."""
    entry_format = entry_format_of(job.view, job.heap)
    _check_entries(job, entry_format)
    job.findings.extend(check_lookasides(job, entry_format))
    why = _why_partial(job)
    if why:
        job.gaps.append(f"heap {job.heap.address:#x}: {why}: its lists and counts were not compared")
    is_sound = not why and not job.has_damage and not job.findings  # else what was found is the reason
    if not (is_sound and all_linked(job.view, job.heap, entry_format, _free_entries(job, entry_format))):
        lists = read_free_lists(job.process, job.view, job.heap)
        if lists is not None:
            job.findings.extend(_joined(lists.findings))
            if is_sound and not job.findings:
                job.findings.extend(_membership(job, entry_format, lists))
    if is_sound and not job.findings:
        job.findings.extend(_counters(job, entry_format))


def _check_entries(job: CheckJob, entry_format: EntryFormat) -> None:
    """Some windows at a time, on as many threads as pay."""
    wanted = sorted(part for segment in job.heap.segments for part in runs(segment))
    numbers = SpanMap((segment.span, number) for number, segment in enumerate(job.heap.segments))
    threads = min(os.cpu_count() or 1, _AT_ONCE) if len(job.table) >= WORTH_COMPILING else 1
    found = windows(job.view.space, entry_format, wanted)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(found, threads)):
            segments = [_segments(job.heap, entry_format, window, numbers) for window in batch]
            jobs = [pool.submit(_look_at, job, entry_format, *pair) for pair in zip(batch, segments, strict=True)]
            for window, looked in zip(batch, jobs, strict=True):
                rows, wrong, guarded = looked.result()
                _report(job, window, rows, wrong)
                job.guards = (job.guards or 0) + guarded
                job.view.space.mapped.forget(window.swept)


def _why_partial(job: CheckJob) -> str:
    """Where the dump does not hold every committed byte of the segments that can be read, or not all are known; else ""."""
    missing = "part of its memory is not in the dump"
    parts = [part for segment in job.heap.segments for part in runs(segment)]
    starts, ends = (np.array([getattr(part, side) for part in parts], np.uint64) for side in ("start", "end"))
    regions = job.process.regions
    for i in np.flatnonzero(job.view.space.mapped.bytes_present(starts, ends) < ends - starts).tolist():
        present = int(job.view.space.mapped.bytes_present(starts[i : i + 1], ends[i : i + 1])[0])
        if not regions.is_complete_map or present < regions.committed_bytes(parts[i], readable=True):
            return missing
    return "" if job.heap.is_fully_walked else "one of its own lists is damaged or not in the dump"


def _look_at(
    job: CheckJob, entry_format: EntryFormat, window: Window, segments: NDArray[np.int64]
) -> tuple[BlockTable, NDArray[np.int64], int]:
    """(the window's rows, what is wrong with them, how many may be the CRT's)."""
    table, heap, worth = job.table, job.heap.index, len(job.table)
    swept = window.swept
    first, last = np.searchsorted(table.entry, np.array([swept.start, swept.end], np.uint64)).tolist()
    rows = table.part(first, last)
    if not len(rows):
        return rows, np.empty((0, 4), np.int64), 0
    columns = (rows.reader(), heap, int(BlockKind.LFH))
    stride, old = entry_format.stride, int(entry_format.is_pre_vista)
    wrong = np.zeros((min(_MOST, 2 * len(rows) + 2), 4), np.int64)
    count, filled, guarded = run(
        nt_entry_checks.check_headers,
        worth,
        window.words,
        window.limits,
        segments,
        *columns,
        old,
        entry_format.key,
        stride,
        wrong,
    )
    if not filled:
        return rows, wrong[:count], guarded
    fills = np.zeros((min(_MOST, len(rows)), 4), np.int64)
    more = run(nt_entry_checks.check_fills, worth, window.words, window.limits, *columns, stride, fills)
    return rows, np.concatenate([wrong[:count], fills[:more]]), guarded


def _report(job: CheckJob, window: Window, rows: BlockTable, out: NDArray[np.int64]) -> None:
    if len(out) >= _MOST - 1:
        near = int(rows.entry[0])
        job.gaps.append(
            f"heap {job.heap.address:#x}: thousands of wrong bytes near {near:#x}: the first {len(out):,} are reported"
        )
    for row, what, first, length in out.tolist():
        address = int(rows.entry[row]) + first
        if not any(address in hole for hole in window.missing):
            job.findings.append(_finding(job, rows, row, what, address, length))


def _segments(heap: Heap, entry_format: EntryFormat, window: Window, numbers: SpanMap[int]) -> NDArray[np.int64]:
    """What the kernel needs to know of the segment of each stretch; `numbers`: places of the segments in their list."""
    out = np.zeros((len(window.stretches), 2), np.int64)
    for i, stretch in enumerate(window.stretches):
        number = numbers.at(stretch.run.start) or 0
        segment = heap.segments[number]
        out[i] = (number, 0) if entry_format.is_pre_vista else (segment.address, int(segment.address == heap.address))
    return out


def _finding(job: CheckJob, rows: BlockTable, row: int, what: int, address: int, length: int) -> Finding:
    heap, entry = job.heap.address, int(rows.entry[row])
    found = (job.view.space.try_read(address, min(length, 64)) or b"").hex(" ")
    if what == nt_entry_checks.TAIL:
        message = f"heap {heap:#x}: the fill behind the block at {int(rows.address[row]):#x} is changed"
        return Finding("tail_fill", "error", heap, address, length, message, " ".join(["ab"] * min(length, 64)), found)
    if what == nt_entry_checks.FREE:
        message = f"heap {heap:#x}: the free block at {entry:#x} was written to"
        wanted = " ".join("ee" if (address + i) % 2 == 0 else "fe" for i in range(min(length, 64)))
        return Finding("free_fill", "error", heap, address, length, message, wanted, found)
    member = "number of its segment" if what == nt_entry_checks.SEGMENT else "count of unused bytes"
    message = f"heap {heap:#x}: the entry header at {entry:#x} is damaged ({member})"
    expected = "that of its segment" if what == nt_entry_checks.SEGMENT else "one that fits its state and size"
    return Finding("entry_header", "error", heap, address, length, message, expected, found)


def _joined(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """Breaks of links that touch each other, Flink and Blink of one node, as one finding."""
    pending: Finding | None = None
    for finding in sorted(findings, key=lambda f: f.address):
        if pending is not None and finding.address == pending.address + pending.length:
            pending = Finding(
                pending.kind, pending.severity, pending.heap, pending.address, pending.length + finding.length, pending.message,
                f"{pending.expected}, {finding.expected}", f"{pending.found}, {finding.found}",
            )  # fmt: skip
            continue
        if pending is not None:
            yield pending
        pending = finding
    if pending is not None:
        yield pending


def _free_entries(job: CheckJob, entry_format: EntryFormat) -> NDArray[np.int64]:
    """Entries that the walk calls free; before Vista none, whose rows are not entries but runs of them."""
    if entry_format.is_pre_vista:
        return np.empty(0, np.int64)
    rows, wanted = job.table, np.uint16(CLASS_MASK)
    free = (rows.tags & wanted == np.uint16(BlockKind.BACKEND)) & (rows.heap == np.uint16(job.heap.index))
    entries: NDArray[np.int64] = rows.entry[free].view(np.int64)
    return entries


def _membership(job: CheckJob, entry_format: EntryFormat, lists: FreeLists) -> Iterator[Finding]:
    """Entries that a whole list links but the walk does not call free, and the other way round; sizes out of order.

    Before Vista the rows are runs of free and parked blocks, as RtlWalkHeap lists them: not compared.
    """
    if not lists.is_whole or entry_format.is_pre_vista:
        return
    free = _free_entries(job, entry_format)
    linked, unlinked = (
        np.setdiff1d(lists.entry, free)[:_MOST].tolist(),
        np.setdiff1d(free, lists.entry)[:_MOST].tolist(),
    )
    if not linked and not unlinked:
        return
    severity, why = _severity(job)
    heap, granule = job.heap.address, entry_format.granule
    for entry in linked:
        message = f"heap {heap:#x}: the free list links {entry + granule:#x}, which is no free block{why}"
        yield Finding(
            "free_list", severity, heap, entry + granule, 2 * job.view.pointer_bytes, message, "a free block", "none"
        )
    for entry in unlinked:
        message = f"heap {heap:#x}: the free block at {entry:#x} is on no free list{why}"
        yield Finding(
            "free_list", severity, heap, entry + granule, 2 * job.view.pointer_bytes, message, "linked", "not linked"
        )


def _severity(job: CheckJob) -> tuple[Severity, str]:
    """Of what contradicts for a while in a heap that is being changed, and the reason."""
    why = lock_words(job.view, job.heap) or job.changing()
    return ("warning", f"; {why}") if why else ("error", "")


_COUNTERS: dict[CheckKind, tuple[FindingKind, str, str]] = {
    CheckKind.FREE_BYTES: ("free_list", "_HEAP", "TotalFreeSize"),
    CheckKind.SEGMENT_BYTES: ("segment", "_HEAP_COUNTERS", "TotalMemoryCommitted"),
    CheckKind.SEGMENTS: ("segment", "_HEAP_COUNTERS", "TotalSegments"),
    CheckKind.LARGE_BYTES: ("virtual_list", "_HEAP_COUNTERS", "TotalSizeInVirtualBlocks"),
}
"""Self-check → kind of damage, structure and member that Windows counts in."""


def _counters(job: CheckJob, entry_format: EntryFormat) -> Iterator[Finding]:
    """Counts in the heap's header that differ from a walk which found no damage."""
    for check in job.count.checks:
        if check.holds or check.kind not in _COUNTERS:
            continue
        kind, struct, member = _COUNTERS[check.kind]
        place = job.heap.address + entry_format.layout[struct].offset(member)
        if struct == "_HEAP_COUNTERS":
            place += entry_format.layout["_HEAP"].offset("Counters")
        severity, why = _severity(job)
        message = f"heap {job.heap.address:#x}: {member} is {check.counted:,}, the walk counts {check.walked:,} ({check.kind.words}){why}"
        yield Finding(
            kind,
            severity,
            job.heap.address,
            place,
            job.view.pointer_bytes,
            message,
            f"{check.walked:,}",
            f"{check.counted:,}",
        )
