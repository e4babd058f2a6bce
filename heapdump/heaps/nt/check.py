"""Checks a walked NT heap for damage that the walk cannot see: header bytes, fills, lists, Windows' counters.

A list or counter that contradicts the walk is a warning while a thread may be changing the heap.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding, FindingKind
from heapdump.blocks.free_lists import FreeLists
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.walk import CheckKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.context import HeapContext, heap_context
from heapdump.heaps.nt.cookie_check import check_cookies
from heapdump.heaps.nt.entry_check import check_entries
from heapdump.heaps.nt.free_lists import links_exactly, read_free_lists
from heapdump.heaps.nt.lookaside_check import check_lookaside_lists
from heapdump.heaps.nt.missing import missing_bytes
from heapdump.heaps.nt.unused_check import check_unused_bytes
from heapdump.kernels.row import CLASS_MASK
from heapdump.memory import limits
from heapdump.process.critical_sections import read_section, thread_exists
from heapdump.process.reports.failure_record import HEAP_CORRUPTION

_COUNTERS: dict[CheckKind, tuple[FindingKind, str, str]] = {
    CheckKind.FREE_BYTES: ("free_list", "_HEAP", "TotalFreeSize"),
    CheckKind.SEGMENT_BYTES: ("segment", "_HEAP_COUNTERS", "TotalMemoryCommitted"),
    CheckKind.SEGMENTS: ("segment", "_HEAP_COUNTERS", "TotalSegments"),
    CheckKind.LARGE_BYTES: ("virtual_list", "_HEAP_COUNTERS", "TotalSizeInVirtualBlocks"),
}
"""Self-check → (kind of the finding, structure, member that is Windows' counter)."""


def check_nt_heap(job: CheckJob) -> None:
    """Checks all entries, then the lookaside and free lists, then the counters."""
    context = heap_context(job.view, job.heap)
    check_entries(job, context)
    job.findings.extend(check_unused_bytes(job, context))
    job.findings.extend(check_cookies(job, context))
    job.findings.extend(check_lookaside_lists(job, context))
    why = _why_partial(job)
    if why:
        job.gaps.append(f"{context.name}: {why}: its lists and counts were not compared")
    is_sound = not why and not job.has_damage and not job.findings  # else that damage explains contradictions of lists
    if not (is_sound and links_exactly(context, _free_entries(job, context))):
        lists = read_free_lists(job.process, job.view, job.heap)
        if lists is not None:
            job.findings.extend(_joined(lists.findings))
            if is_sound and not job.findings:
                job.findings.extend(_membership(job, context, lists))
    if is_sound and not job.findings:
        job.findings.extend(_counters(job, context))
    if job.has_damage or job.findings:
        job.in_operation = _who_changes(job)


def _why_partial(job: CheckJob) -> str:
    """The reason why the walk cannot have met all blocks, in words: missing memory or lists; "" for none."""
    if missing_bytes(job.process, job.view, job.heap):
        return "part of its memory is not in the dump"
    return "" if job.heap.is_fully_walked else "one of its own lists is damaged or not in the dump"


def _joined(findings: tuple[Finding, ...]) -> Iterator[Finding]:
    """Findings about broken links, with those about Flink and Blink of one node joined."""
    pending: Finding | None = None
    for finding in sorted(findings, key=lambda f: f.address):
        if pending is not None and finding.address == pending.address + pending.length:
            pending = Finding(
                pending.kind, pending.severity, pending.heap, pending.address, pending.length + finding.length,
                pending.message, f"{pending.expected}, {finding.expected}", f"{pending.found}, {finding.found}",
            )  # fmt: skip
            continue
        if pending is not None:
            yield pending
        pending = finding
    if pending is not None:
        yield pending


def _free_entries(job: CheckJob, context: HeapContext) -> NDArray[np.int64]:
    """Entries that are free by the walk, ascending; none before Vista, where one row may be several entries."""
    if context.entry_format.is_pre_vista:
        return np.empty(0, np.int64)
    rows, mask = job.table, np.uint16(CLASS_MASK)
    free = (rows.tags & mask == np.uint16(BlockKind.BACKEND)) & (rows.heap == np.uint16(job.heap.index))
    entries: NDArray[np.int64] = rows.entry[free].view(np.int64)
    return entries


def _membership(job: CheckJob, context: HeapContext, lists: FreeLists) -> Iterator[Finding]:
    """Findings about entries on a complete free list that are not free by the walk, and about free ones on no list.

    None before Vista, where one row may be several free blocks and blocks on lookaside lists.
    """
    if not lists.is_complete or context.entry_format.is_pre_vista:
        return
    free = _free_entries(job, context)
    linked = np.setdiff1d(lists.entry, free)[: limits.MAX_FINDINGS + 1].tolist()
    unlinked = np.setdiff1d(free, lists.entry)[: limits.MAX_FINDINGS + 1].tolist()
    if not linked and not unlinked:
        return
    granule, length = context.entry_format.granule, 2 * job.view.pointer_bytes
    for entry in linked:
        place = entry + granule
        message = f"{context.name}: the free list links {place:#x}, which is no free block"
        yield Finding("free_list", "error", context.address, place, length, message, "a free block", "none")
    for entry in unlinked:
        place = entry + granule
        message = f"{context.name}: the free block at {entry:#x} is on no free list"
        yield Finding("free_list", "error", context.address, place, length, message, "linked", "not linked")


def _who_changes(job: CheckJob) -> str:
    """Words that name the thread which may be changing the heap; "" for none, and where ntdll found a damaged heap."""
    raised = job.process.exception
    if raised is not None and raised.code == HEAP_CORRUPTION:
        return ""
    return _lock_words(job) or job.changing()


def _lock_words(job: CheckJob) -> str:
    """Words that name the running thread which has the heap's lock; "" where none has, or the lock is not in the dump.

    A thread that raised the exception of the dump does not count: it stopped at damage.
    """
    lock = read_section(job.process, job.view, job.heap.lock) if job.heap.lock else None
    raised = job.process.exception.thread_id if job.process.exception else None
    if lock is None or not lock.owner or lock.owner == raised or not thread_exists(job.process, lock.owner):
        return ""
    return f"its lock is held by thread {lock.owner:#x}, which may be changing it"


def _counters(job: CheckJob, context: HeapContext) -> Iterator[Finding]:
    """Findings about Windows' counters that contradict a walk without damage."""
    for check in job.count.checks:
        if check.holds or check.kind not in _COUNTERS:
            continue
        kind, struct, member = _COUNTERS[check.kind]
        place = context.address + context.layout[struct].offset(member)
        if struct == "_HEAP_COUNTERS":
            place += context.layout["_HEAP"].offset("Counters")
        expected, found = f"{check.walked:,}", f"{check.counted:,}"
        message = f"{context.name}: {member} is {found}, the walk counts {expected} ({check.kind.words})"
        yield Finding(kind, "error", context.address, place, job.view.pointer_bytes, message, expected, found)
