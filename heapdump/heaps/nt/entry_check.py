"""Checks what the walk does not need of each entry: segment byte, UnusedBytes, fills.

Rules: docs/reference/heap-structures.md §2.3 and §2.9. The loops are in `kernels.nt_entry_checks`.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.windows import Window, present_runs, windows
from heapdump.kernels import WORTH_COMPILING, nt_entry_checks, run
from heapdump.kernels.row import EXTRA, TRUST_MASK, UNIT
from heapdump.memory import limits
from heapdump.spans import SpanMap

_MAX_FINDINGS = 4096
"""The most findings of one window."""

_SHOWN_BYTES = 64
"""The most bytes of a damaged fill that a finding shows."""

_EXTRA_BYTES = 4
"""Bytes at the end of a free entry with the flag EXTRA that have no fill."""

_MAX_THREADS = 4


class _DamagedRun(NamedTuple):
    """Damaged bytes.

    Attributes:
        address: of the first.
        length: how many.
    """

    address: int
    length: int


class _Examined(NamedTuple):
    """One checked window.

    Attributes:
        rows: those of the window.
        damage: (n, 4) int64 records of `kernels.nt_entry_checks`.
        guards: number of rows that may be blocks of the CRT's debug heap.
    """

    rows: BlockTable
    damage: NDArray[np.int64]
    guards: int


def check_entries(job: CheckJob, context: HeapContext) -> None:
    """Checks all entries of the heap, window by window; on several threads where compiled loops are used."""
    runs = present_runs(job.view.space, job.heap.segments)
    numbers = SpanMap((segment.span, number) for number, segment in enumerate(job.heap.segments))
    threads = min(os.cpu_count() or 1, _MAX_THREADS) if len(job.table) >= WORTH_COMPILING else 1
    waiting = windows(job.view.space, context.entry_format, runs)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(waiting, threads)):
            tasks = [
                pool.submit(_examine, job, context, window, _segments(context, window, numbers)) for window in batch
            ]
            for window, task in zip(batch, tasks, strict=True):
                examined = task.result()
                _report(job, context, window, examined)
                job.guards = (job.guards or 0) + examined.guards
                job.view.space.mapped.forget(window.span)


def _segments(context: HeapContext, window: Window, numbers: SpanMap[int]) -> NDArray[np.int64]:
    """The segment of each part of a run as `kernels.nt_entry_checks` takes it, (n, 2) int64. `numbers`: by span."""
    heap = context.heap
    out = np.zeros((len(window.run_parts), 2), np.int64)
    for i, part in enumerate(window.run_parts):
        segment = heap.segments[numbers.at(part.run.start) or 0]
        is_own = int(segment.address == heap.address)
        index = -1 if segment.number is None else segment.number
        out[i] = (index, 0) if context.entry_format.is_pre_vista else (segment.address, is_own)
    return out


def _examine(job: CheckJob, context: HeapContext, window: Window, segments: NDArray[np.int64]) -> _Examined:
    table, heap, worth, entry_format = job.table, job.heap.index, len(job.table), context.entry_format
    first, last = np.searchsorted(table.entry, np.array([window.span.start, window.span.end], np.uint64)).tolist()
    rows = table.part(first, last)
    if not len(rows):
        return _Examined(rows, np.empty((0, 4), np.int64), 0)
    columns = (rows.reader(), heap, int(BlockKind.LFH))
    damage = np.zeros((min(_MAX_FINDINGS, 2 * len(rows) + 2), 4), np.int64)
    count, filled, guards = run(
        nt_entry_checks.check_headers, worth, window.words, window.limits, segments, *columns,
        int(entry_format.is_pre_vista), entry_format.coding, damage,
    )  # fmt: skip
    if not filled:
        return _Examined(rows, damage[:count], guards)
    fills = np.zeros((min(_MAX_FINDINGS, len(rows)), 4), np.int64)
    more = run(nt_entry_checks.check_fills, worth, window.words, window.limits, *columns, entry_format.stride, fills)
    return _Examined(rows, np.concatenate([damage[:count], fills[:more]]), guards)


def _report(job: CheckJob, context: HeapContext, window: Window, examined: _Examined) -> None:
    rows, damage = examined.rows, examined.damage
    if len(damage) >= _MAX_FINDINGS - 1:
        near = f"thousands of wrong bytes near {int(rows.entry[0]):#x}"
        job.gaps.append(f"{context.name}: {near}: only the first {len(damage):,} were looked at")
        job.is_cut = True
    damage = damage[_is_evident(window, rows, damage)]
    shown = damage[: max(0, limits.MAX_FINDINGS - len(job.findings))]
    for row, rule, first, length in shown.tolist():
        place = _DamagedRun(int(rows.entry[row]) + first, length)
        job.findings.append(_finding(context, rows, row, rule, place))
    job.omitted += len(damage) - len(shown)


def _is_evident(window: Window, rows: BlockTable, damage: NDArray[np.int64]) -> NDArray[np.bool_]:
    """False for damage that memory missing in the dump may feign: (n,) for (n, 4) records."""
    is_evident = np.ones(len(damage), bool)
    if window.missing:
        row, rule = damage[:, 0], damage[:, 1]
        is_exact = rows.tags[row] & np.uint16(TRUST_MASK) == 0  # others may be stale, or have a guessed size
        is_evident = is_exact | ~np.isin(rule, (nt_entry_checks.TAIL, nt_entry_checks.FREE))
        address = rows.entry[row] + damage[:, 2].astype(np.uint64)
        for hole in window.missing:
            is_evident &= (address < np.uint64(hole.start)) | (address >= np.uint64(hole.end))
    return is_evident


def _finding(context: HeapContext, rows: BlockTable, row: int, rule: int, place: _DamagedRun) -> Finding:
    """The finding for one row and one rule of `kernels.nt_entry_checks`."""
    heap, name, entry = context.address, context.name, int(rows.entry[row])
    shown = min(place.length, _SHOWN_BYTES)
    found = (context.space.try_read(place.address, shown) or b"").hex(" ")
    if rule == nt_entry_checks.TAIL:
        message = f"{name}: the fill behind the block at {int(rows.address[row]):#x} is changed"
        return Finding("tail_fill", "error", heap, *place, message, " ".join(["ab"] * shown), found)
    if rule == nt_entry_checks.FREE:
        is_cut = _is_cut(rows, row, place)
        least = f": at least {place.length:,} bytes" if is_cut else ""
        message = f"{name}: the free block at {entry:#x} was written to{least}"
        expected = " ".join("ee" if (place.address + i) % 2 == 0 else "fe" for i in range(shown))
        return Finding("free_fill", "error", heap, *place, message, expected, found, is_cut)
    is_segment = rule == nt_entry_checks.SEGMENT
    member = "number of its segment" if is_segment else "count of unused bytes"
    message = f"{name}: the entry header at {entry:#x} is damaged ({member})"
    expected = "that of its segment" if is_segment else "one that fits its state and size"
    return Finding("entry_header", "error", heap, *place, message, expected, found)


def _is_cut(rows: BlockTable, row: int, place: _DamagedRun) -> bool:
    """True where a free entry is damaged up to where the comparison stops, and goes on.

    A word there may have the right bytes by chance.
    """
    size = int(rows.size8[row]) * UNIT - _EXTRA_BYTES * bool(rows.tags[row] & np.uint16(EXTRA))
    compared = place.address + nt_entry_checks.MOST_SPAN
    return compared < int(rows.entry[row]) + size and place.length > nt_entry_checks.MOST_SPAN - UNIT
