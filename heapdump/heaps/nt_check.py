"""What the walk of an NT heap does not look at: bytes of headers that sizes do not need, fills, free lists.

In: the walked rows. Out: findings. What a thread may be changing at the moment of the dump is a warning while the heap's
lock is held.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding, FindingKind, Severity
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.records import Heap, HeapKind
from heapdump.blocks.table import BlockKind, BlockTable
from heapdump.heaps.nt_free import read_free_lists
from heapdump.heaps.nt_generation import Generation, generation_of
from heapdump.heaps.nt_windows import Window, runs, windows
from heapdump.heaps.nt_wounds import segment_offset
from heapdump.heaps.walked import CheckJob
from heapdump.kernels import checks, run

_MOST = 4096
"""Wrong things reported of one stretch."""

_BACK_END = (BlockKind.BACKEND, BlockKind.LOOKASIDE)


def check_nt_heap(job: CheckJob) -> None:
    """Every entry, then the free lists."""
    generation = generation_of(job.view, job.heap)
    rows = _rows(job.table, job.heap.index)
    for segment in sorted(job.heap.segments, key=lambda segment: segment.span):
        for window in windows(job.view.space, generation, list(runs(segment))):
            _check_window(job, generation, window, rows)
            job.view.space.forget(window.swept)
    lists = read_free_lists(job.process, job.view, job.heap)
    if lists is not None:
        job.findings.extend(_joined(lists.findings))
    if _is_partial(job):
        job.gaps.append(f"heap {job.heap.address:#x}: part of its memory is not in the dump: its lists and counts were not compared")
    elif not job.has_damage and not job.findings:  # else what was found is the reason
        if lists is not None:
            job.findings.extend(_membership(job, generation, lists))
        job.findings.extend(_counters(job, generation))


def _is_partial(job: CheckJob) -> bool:
    """True where the dump does not hold every committed byte of the segments."""
    regions, space = job.process.regions, job.view.space
    for segment in job.heap.segments:
        for part in runs(segment):
            ends = np.array([part.end], np.uint64)
            present = int(space.bytes_present(np.array([part.start], np.uint64), ends)[0])
            if present < (regions.committed_bytes(part) if regions.is_complete_map else part.size):
                return True
    return not job.heap.is_fully_walked


def _rows(table: BlockTable, heap: int) -> BlockTable:
    """The back-end rows of a heap, but those whose header was restored from its neighbours."""
    keep = np.flatnonzero((table.heap == heap) & np.isin(table.kind, _BACK_END))
    return BlockTable(*(column[keep] for column in table.columns()))


def _check_window(job: CheckJob, generation: Generation, window: Window, rows: BlockTable) -> None:
    for stretch in window.stretches:
        low = stretch.base + stretch.start * window.granule
        high = stretch.base + stretch.stop * window.granule
        first, last = np.searchsorted(rows.entry, np.array([low, high], np.uint64))
        part = rows.part(int(first), int(last))
        if len(part):
            _check_rows(job, generation, window, stretch.base, part)


def _check_rows(job: CheckJob, generation: Generation, window: Window, base: int, rows: BlockTable) -> None:
    entry = rows.entry.astype(np.int64)
    columns = (entry, *(column.astype(np.int64) for column in (rows.units, rows.spare, rows.lead, rows.tags)))
    offsets = _offsets(job.heap, generation, entry)
    stride, lead, old = generation.stride, generation.lead, int(generation.is_old)
    out = np.zeros((min(_MOST, 2 * len(rows)), 4), np.int64)
    count = run(checks.check_headers, len(rows), window.words, base, *columns, offsets, old, generation.key, lead, out)
    _report(job, window, rows, out[:count])
    if (rows.tags >> 8 & checks.FILL).any():
        count = run(checks.check_fills, len(rows), window.words, base, *columns, stride, lead, out)
        _report(job, window, rows, out[:count])


def _report(job: CheckJob, window: Window, rows: BlockTable, out: NDArray[np.int64]) -> None:
    if len(out) >= _MOST - 1:
        near = int(rows.entry[0])
        job.gaps.append(f"heap {job.heap.address:#x}: thousands of wrong bytes near {near:#x}: the first {len(out):,} are reported")
    for row, what, first, length in out.tolist():
        address = int(rows.entry[row]) + first
        if not any(address in hole for hole in window.missing):
            job.findings.append(_finding(job, rows, row, what, address, length))


def _offsets(heap: Heap, generation: Generation, entry: NDArray[np.int64]) -> NDArray[np.int64]:
    """What the segment byte of each header must be; a stretch lies in one segment."""
    segment = next((s for s in heap.segments if int(entry[0]) in s.span), None)
    if segment is None:
        return np.full(len(entry), -1, np.int64)
    if generation.is_old:
        return np.full(len(entry), heap.segments.index(segment), np.int64)
    if segment_offset(heap, int(entry[0])) == 0:
        return np.zeros(len(entry), np.int64)
    offsets: NDArray[np.int64] = (entry & ~0xFFFF) + 0x10000 - segment.address >> 16 & 0xFF
    return offsets


def _finding(job: CheckJob, rows: BlockTable, row: int, what: int, address: int, length: int) -> Finding:
    heap, entry = job.heap.address, int(rows.entry[row])
    found = (job.view.space.try_read(address, min(length, 64)) or b"").hex(" ")
    if what == checks.TAIL:
        message = f"heap {heap:#x}: the fill behind the block at {int(rows.address[row]):#x} is changed"
        return Finding("tail_fill", "error", heap, address, length, message, " ".join(["ab"] * min(length, 64)), found)
    if what == checks.FREE:
        message = f"heap {heap:#x}: the free block at {entry:#x} was written to"
        wanted = " ".join("ee" if (address + i) % 2 == 0 else "fe" for i in range(min(length, 64)))
        return Finding("free_fill", "error", heap, address, length, message, wanted, found)
    member = "number of its segment" if what == checks.SEGMENT else "count of unused bytes"
    message = f"heap {heap:#x}: the entry header at {entry:#x} is damaged ({member})"
    expected = "that of its segment" if what == checks.SEGMENT else "one that fits its state and size"
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


def _membership(job: CheckJob, generation: Generation, lists: FreeLists) -> Iterator[Finding]:
    """Entries that a whole list links but the walk does not call free, and the other way round; sizes out of order.

    Before Vista the rows are runs of free and parked blocks, as RtlWalkHeap lists them: not compared.
    """
    if not lists.is_whole or generation.is_old:
        return
    rows = job.table
    free = rows.entry[(rows.heap == job.heap.index) & (rows.kind == BlockKind.BACKEND) & ~rows.is_busy & ~rows.is_internal].astype(np.int64)
    severity: Severity = "warning" if job.locked else "error"
    why = f"; {job.locked}" if job.locked else ""
    heap, granule = job.heap.address, generation.granule
    for entry in np.setdiff1d(lists.entry, free)[:_MOST].tolist():
        message = f"heap {heap:#x}: the free list links {entry + granule:#x}, which is no free block{why}"
        yield Finding("free_list", severity, heap, entry + granule, 2 * job.view.pointer_bytes, message, "a free block", "none")
    for entry in np.setdiff1d(free, lists.entry)[:_MOST].tolist():
        message = f"heap {heap:#x}: the free block at {entry:#x} is on no free list{why}"
        yield Finding("free_list", severity, heap, entry + granule, 2 * job.view.pointer_bytes, message, "linked", "not linked")


_COUNTERS: dict[str, tuple[FindingKind, str, str]] = {
    "free bytes of the back end": ("free_list", "_HEAP", "TotalFreeSize"),
    "committed bytes of the segments": ("segment", "_HEAP_COUNTERS", "TotalMemoryCommitted"),
    "segments": ("segment", "_HEAP_COUNTERS", "TotalSegments"),
    "committed bytes of large blocks": ("virtual_list", "_HEAP_COUNTERS", "TotalSizeInVirtualBlocks"),
}
"""Self-check → kind of damage, structure and member that Windows counts in."""


def _counters(job: CheckJob, generation: Generation) -> Iterator[Finding]:
    """Counts in the heap's header that differ from a walk which found no damage."""
    for check in job.count.checks:
        if check.holds or check.what not in _COUNTERS:
            continue
        kind, struct, member = _COUNTERS[check.what]
        place = job.heap.address + generation.layout[struct].offset(member)
        if struct == "_HEAP_COUNTERS":
            place += generation.layout["_HEAP"].offset("Counters")
        severity: Severity = "warning" if job.locked else "error"
        message = f"heap {job.heap.address:#x}: {member} is {check.stated:,}, the walk counts {check.walked:,} ({check.what})"
        message += f"; {job.locked}" if job.locked else ""
        yield Finding(kind, severity, job.heap.address, place, job.view.pointer_bytes, message, f"{check.walked:,}", f"{check.stated:,}")


CHECK = (HeapKind.NT, check_nt_heap)
