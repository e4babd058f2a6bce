"""Walks every NT heap block by block and makes the one table of all blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, HeapKind
from heapdump.blocks.table import BUSY, INTERNAL, BlockKind, BlockTable, build_table
from heapdump.heaps.nt_blocks import Walked, walk_segments
from heapdump.heaps.nt_generation import generation_of
from heapdump.heaps.nt_lfh import FrontEnd, walk_front_end
from heapdump.heaps.nt_rows import add_large_blocks, lookaside_block, parked_entries
from heapdump.process.model import Process, View


@dataclass(frozen=True, slots=True)
class HeapCount:
    """What was counted in one heap; blocks without the allocator's own, sizes in bytes.

    `busy_bytes` as requested; `free_*` back-end free entries, `lfh_free_*` free slots of the front end. `integrity` =
    share of headers that verified.
    """

    busy_blocks: int
    busy_bytes: int
    free_blocks: int
    free_bytes: int
    lfh_free_blocks: int
    lfh_free_bytes: int
    internal_blocks: int
    headers: int
    integrity: float | None


@dataclass(frozen=True)
class Walk:
    """Every block of the process. `counts`: heap index → what was counted, for the heaps that were walked."""

    table: BlockTable
    counts: dict[int, HeapCount]
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]


def walk_heaps(process: Process, heaps: Sequence[Heap], progress: Callable[[int, int], None]) -> Walk:
    """Walks all NT heaps; `progress(bytes done, bytes in all)`."""
    views = {view.arch: view for view in process.views}
    fronts = {view.arch: FrontEnd() for view in process.views}
    total = sum(heap.committed_bytes or 0 for heap in heaps)
    walks: dict[int, Walked] = {}
    marks = _Marks(set(), set())
    done = 0
    for heap in heaps:
        if heap.kind is HeapKind.NT and heap.layout is not None:
            walked = walks[heap.index] = Walked()
            _walk_heap(views[heap.view], heap, fronts[heap.view], walked, marks)
        done += heap.committed_bytes or 0
        progress(done, total)
    table = _marked(build_table([chunk for walked in walks.values() for chunk in walked.chunks]), marks)
    counts = _counts(table, walks)
    for heap in heaps:
        if heap.index in counts:
            counts[heap.index] = _checked(heap, counts[heap.index], walks[heap.index])
    findings = tuple(f for walked in walks.values() for f in walked.findings)
    return Walk(table, counts, findings, tuple(gap for walked in walks.values() for gap in walked.gaps))


def _checked(heap: Heap, count: HeapCount, walked: Walked) -> HeapCount:
    """The self-check against Windows: the walk's free bytes must be TotalFreeSize; a difference lowers the integrity."""
    stated = heap.free_bytes
    if stated is None or stated == count.free_bytes or count.integrity is None:
        return count
    walked.gaps.append(
        f"heap {heap.address:#x}: {count.free_bytes:,} free bytes were walked, Windows counted {stated:,}: "
        "damaged, or being changed while the dump was taken"
    )
    agreement = min(stated, count.free_bytes) / max(stated, count.free_bytes)
    return replace(count, integrity=count.integrity * agreement)


@dataclass
class _Marks:
    """Entries whose header does not say what they are: parked on lookaside lists; addresses inside internal blocks."""

    parked: set[int]
    internal: set[int]


def _walk_heap(view: View, heap: Heap, front: FrontEnd, walked: Walked, marks: _Marks) -> None:
    generation = generation_of(view, heap)
    walk_segments(view, heap, lambda run, rows: walk_front_end(view, heap, generation, run, rows, front, walked), walked)
    add_large_blocks(view, heap, generation, walked)
    if generation.is_old:
        marks.parked |= parked_entries(view, heap, generation)
        marks.internal |= front.carriers | front.subsegments | {lookaside_block(view, heap, generation)}


def _marked(table: BlockTable, marks: _Marks) -> BlockTable:
    """The table with parked blocks free and the front end's own blocks internal (XP and Server 2003)."""
    tags = table.tags.copy()
    if marks.parked:
        parked = np.isin(table.entry, np.array(sorted(marks.parked), np.uint64)) & (tags & 0xF == BlockKind.BACKEND)
        tags[parked] = tags[parked] & ~np.uint16(BUSY | 0xF) | np.uint16(BlockKind.LOOKASIDE)
    for address in marks.internal:
        row = int(np.searchsorted(table.entry, np.uint64(address), side="right")) - 1
        while row >= 0 and tags[row] & 0xF != BlockKind.BACKEND:
            row -= 1
        if row >= 0 and address < int(table.entry[row]) + int(table.units[row]) * 8:
            tags[row] |= np.uint16(INTERNAL)
    if not marks.parked:
        return BlockTable(table.entry, table.units, table.spare, table.lead, table.heap, tags)
    spare = table.spare.copy()
    spare[parked] = table.lead[parked].astype(np.uint32) * 8
    return _joined(BlockTable(table.entry, table.units, spare, table.lead, table.heap, tags))


def _joined(table: BlockTable) -> BlockTable:
    """Touching free blocks as one: a parked block is not joined with free ones by ntdll, but its own walk says so.

    RtlWalkHeap of XP lists each run of parked and free blocks as a single free block (all recorded heaps).
    """
    end = table.entry + table.entry_size
    free = ~table.is_busy & (table.kind != BlockKind.LFH)
    joins = np.zeros(len(table), bool)
    joins[1:] = free[1:] & free[:-1] & (table.entry[1:] == end[:-1]) & (table.heap[1:] == table.heap[:-1])
    firsts = np.flatnonzero(~joins)
    units = np.add.reduceat(table.units, firsts).astype(np.uint32) if len(firsts) else table.units
    return BlockTable(
        table.entry[firsts], units, table.spare[firsts], table.lead[firsts], table.heap[firsts], table.tags[firsts]
    )


def _counts(table: BlockTable, walks: dict[int, Walked]) -> dict[int, HeapCount]:
    size = len(walks) and max(walks) + 1
    busy, internal, kind = table.is_busy, table.is_internal, table.kind
    lfh = kind == BlockKind.LFH
    sizes, entry_sizes = table.size, table.entry_size

    def count(rows: NDArray[np.bool_]) -> list[int]:
        return [int(n) for n in np.bincount(table.heap[rows], minlength=size)]

    def total(rows: NDArray[np.bool_], values: NDArray[np.uint64]) -> list[int]:
        out = np.zeros(size, np.uint64)
        np.add.at(out, table.heap[rows], values[rows])
        return [int(n) for n in out]

    program, back, slots = busy & ~internal, ~busy & ~internal & ~lfh, ~busy & lfh
    columns = {
        "busy_blocks": count(program),
        "busy_bytes": total(program, sizes),
        "free_blocks": count(back),
        "free_bytes": total(back, entry_sizes),
        "lfh_free_blocks": count(slots),
        "lfh_free_bytes": total(slots, entry_sizes),
        "internal_blocks": count(internal),
    }
    return {
        index: HeapCount(
            **{name: column[index] for name, column in columns.items()},
            headers=walked.headers,
            integrity=walked.good_headers / walked.headers if walked.headers else None,
        )
        for index, walked in walks.items()
    }
