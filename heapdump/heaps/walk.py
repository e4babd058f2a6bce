"""Walks every NT heap block by block and makes the one table of all blocks.

The work is cut into items, the committed runs and large blocks of all heaps in the order of their addresses, so that
the table comes out sorted. Long walks are done by several threads, each of which has a stretch of the address space.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event, Lock

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, HeapKind, LargeBlock
from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt_blocks import RunWalk, Walked, runs
from heapdump.heaps.nt_counts import HeapCount, count_blocks
from heapdump.heaps.nt_generation import Generation, generation_of
from heapdump.heaps.nt_lfh import FrontEnd, FrontEndWalk
from heapdump.heaps.nt_marks import Marks, apply_marks, marks_of
from heapdump.heaps.nt_rows import add_large_blocks
from heapdump.process.model import Process, View
from heapdump.spans import Span

_PART_BYTES = 128 << 20
_MAX_PARTS = 16
_BYTES_A_BLOCK = 48
"""Rows are set aside for blocks of this size; smaller ones make the columns grow."""


@dataclass(frozen=True)
class Walk:
    """Every block of the process. `counts`: heap index → what was counted, for the heaps that were walked."""

    table: BlockTable
    counts: dict[int, HeapCount]
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Item:
    """A committed run of a heap (`large` None), or one of its large blocks; `span` is read."""

    span: Span
    heap: Heap
    large: LargeBlock | None


@dataclass
class _Part:
    """What one thread walks and finds: a stretch of the address space."""

    items: list[_Item]
    columns: BlockColumns
    walked: dict[int, Walked] = field(default_factory=dict)
    fronts: dict[str, FrontEnd] = field(default_factory=dict)


class _Pace:
    """Progress of all threads together, and the word to stop."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._total, self._progress, self._done, self._lock = total, progress, 0, Lock()
        self.is_stopped = Event()

    def advance(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)


def walk_heaps(
    process: Process, heaps: Sequence[Heap], progress: Callable[[int, int], None], threads: int | None = None
) -> Walk:
    """Walks all NT heaps; `progress(bytes done, bytes in all)`. `threads`: at most so many, None = one a processor."""
    views = {view.arch: view for view in process.views}
    wanted = [heap for heap in heaps if heap.kind is HeapKind.NT and heap.layout is not None]
    generations = {heap.index: generation_of(views[heap.view], heap) for heap in wanted}
    items = sorted((item for heap in wanted for item in _items(heap)), key=lambda item: item.span)
    parts = _parts(items)
    pace = _Pace(sum(item.span.size for item in items), progress)
    _walk_parts(parts, views, generations, pace, threads or os.cpu_count() or 1)
    walked = {heap.index: Walked() for heap in wanted}
    for part in parts:
        for index, found in part.walked.items():
            walked[index].merge(found)
    fronts = [front for part in parts for front in part.fronts.values()]
    table = _table(parts, marks_of(views, wanted, generations, fronts))
    counts = count_blocks(table, wanted, walked)
    findings = tuple(f for found in walked.values() for f in found.findings)
    return Walk(table, counts, findings, tuple(gap for found in walked.values() for gap in found.gaps))


def _items(heap: Heap) -> Iterator[_Item]:
    for segment in heap.segments:
        for run in runs(segment):
            yield _Item(run, heap, None)
    for block in heap.large_blocks or ():
        yield _Item(Span(block.list_entry, block.list_entry + 1), heap, block)


def _parts(items: list[_Item]) -> list[_Part]:
    """The items in stretches of about equal bytes; how many depends on the heaps alone, never on the machine."""
    total = sum(item.span.size for item in items)
    count = min(_MAX_PARTS, max(1, total // _PART_BYTES))
    parts, at = [], 0
    for _, group in groupby(_numbered(items), key=lambda pair: pair[0] * count // (total + 1)):
        mine = [item for _, item in group]
        at = sum(item.span.size for item in mine)
        parts.append(_Part(mine, BlockColumns(at // _BYTES_A_BLOCK)))
    return parts


def _numbered(items: list[_Item]) -> Iterator[tuple[int, _Item]]:
    """(bytes of the items before, item)."""
    before = 0
    for item in items:
        yield before, item
        before += item.span.size


def _walk_parts(
    parts: list[_Part], views: dict[str, View], generations: dict[int, Generation], pace: _Pace, threads: int
) -> None:
    if threads == 1 or len(parts) < 2:
        for part in parts:
            _walk_part(part, views, generations, pace)
        return
    with ThreadPoolExecutor(threads) as pool:
        jobs = [pool.submit(_walk_part, part, views, generations, pace) for part in parts]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pace.is_stopped.set()
            raise


def _walk_part(part: _Part, views: dict[str, View], generations: dict[int, Generation], pace: _Pace) -> None:
    for (index, is_large), group in groupby(part.items, key=lambda item: (item.heap.index, item.large is not None)):
        items = list(group)
        heap, view, generation = items[0].heap, views[items[0].heap.view], generations[index]
        walked = part.walked.setdefault(index, Walked())
        if is_large:
            blocks = [item.large for item in items if item.large is not None]
            add_large_blocks(view, heap, generation, blocks, part.columns, walked)
            continue
        front = FrontEndWalk(view, heap, generation, part.fronts.setdefault(view.arch, FrontEnd()), part.columns, walked)
        for item in items:
            for window, first in RunWalk(view, heap, generation, item.span, part.columns, walked).windows():
                front.add(window, first)
                pace.advance(window.stop * generation.granule)
                if pace.is_stopped.is_set():
                    return


def _table(parts: list[_Part], marks: Marks) -> BlockTable:
    """The rows of all parts; sorted again where heaps lie over each other (damage)."""
    columns = parts[0].columns if parts else BlockColumns()
    columns.take_over([part.columns for part in parts[1:]])
    columns.sort()
    rows, heap = columns.frozen()
    return apply_marks(BlockTable(rows.entry, rows.units, rows.spare, rows.lead, heap, rows.tags), marks)
