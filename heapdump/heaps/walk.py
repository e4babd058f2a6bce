"""Walks every heap block by block and makes the one table of all blocks.

NT heaps are walked together, in the order of addresses, so that the table comes out sorted, and by several threads where
it is long: each walks and counts the next part, and the parts are joined in their order. Then come the heaps of other
kinds, one by one: their modules bring a `WALK` (see `heaps`).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from threading import Event, Lock

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap, HeapKind, ViewName
from heapdump.blocks.table import INTERNAL, BlockTable
from heapdump.blocks.walk import KindCount, Walk
from heapdump.heaps import walk_of
from heapdump.heaps.counts import Tally, count_blocks
from heapdump.heaps.jobs import Job, WalkLog
from heapdump.heaps.nt.back_end import BackEndWalk
from heapdump.heaps.nt.entry_format import EntryFormat, entry_format_of
from heapdump.heaps.nt.large_rows import add_large_blocks
from heapdump.heaps.nt.lfh import FrontEnd, LfhWalk
from heapdump.heaps.nt.lookaside_state import apply_marks, marks_of
from heapdump.heaps.nt.work import Part, cut
from heapdump.process.model import Process, View
from heapdump.spans import Span

_MAX_THREADS, _IN_HAND = 8, 1
"""Threads at most; parts more than there are threads whose rows may wait to be put to the others."""

_BYTES_A_BLOCK = 64
"""Rows are set aside for blocks of this size; smaller ones make the columns grow."""

_AHEAD = 8 << 20
"""Bytes behind what is walked that are read ahead from the file."""


class _Pace:
    """Progress of all threads together, and the word to stop."""

    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._total, self._progress, self._done, self._lock = total, progress, 0, Lock()
        self.is_stopped = Event()

    def advance(self, count: int) -> None:
        """So many more bytes are walked."""
        with self._lock:
            self._done += count
            self._progress(self._done, self._total)


def walk_heaps(
    process: Process, heaps: Sequence[Heap], progress: Callable[[int, int], None], threads: int | None = None
) -> Walk:
    """Walks all heaps; `progress(bytes done, bytes in all)`. `threads`: at most so many, None = one a processor."""
    views = {view.arch: view for view in process.views}
    wanted = [heap for heap in heaps if heap.kind is HeapKind.NT and heap.layout is not None]
    others = [heap for heap in heaps if walk_of(heap.kind) is not None]
    entry_formats = {heap.index: entry_format_of(views[heap.view], heap) for heap in wanted}
    parts = cut(wanted)
    total = sum(part.bytes for part in parts) + sum(e.span.size for heap in others for e in heap.extents)
    pace = _Pace(total, progress)
    walker = _Walker(views, entry_formats, pace, process.space.total_bytes)
    table, tally = walker.walk(parts, min(threads or os.cpu_count() or 1, len(parts), _MAX_THREADS))
    walked = {heap.index: WalkLog() for heap in (*wanted, *others)}
    for part in parts:
        for index, found in part.walked.items():
            walked[index].merge(found)
    marks = marks_of(views, wanted, entry_formats, [front for part in parts for front in part.fronts.values()])
    if marks:
        table = apply_marks(table, marks)
        tally = Tally().add(table)
    if others:
        table = _with_others(process, views, heaps, others, table, walked, pace.advance)
        tally = Tally().add(table)
    counts = count_blocks(process, tally, [*wanted, *others], walked)
    findings = tuple(f for found in walked.values() for f in found.findings)
    return Walk(lambda: table, counts, findings, tuple(gap for found in walked.values() for gap in found.gaps))


def _with_others(
    process: Process, views: dict[ViewName, View], heaps: Sequence[Heap], others: Sequence[Heap], table: BlockTable,
    walked: dict[int, WalkLog], advance: Callable[[int], None],
) -> BlockTable:  # fmt: skip
    """The table with the blocks of the others of `heaps`, which are no NT heaps."""
    most_bytes = min(sum(e.span.size for heap in others for e in heap.extents), process.space.total_bytes)
    columns, owned = BlockColumns(most_bytes // _BYTES_A_BLOCK + len(table)), [np.empty(0, np.uint64)]

    def host(heap: int, count: KindCount) -> None:
        """These blocks inside that heap (its index) are counted as another's."""
        walked[heap].hosted.append(count)

    for heap in others:
        job = Job(process, views[heap.view], heap, heaps, columns, walked[heap.index], table, advance, host)
        walk = walk_of(heap.kind)
        if walk is not None:
            walk(job)
        owned += job.owned
    mine = np.isin(table.entry, np.concatenate(owned))
    if mine.any():
        table = replace(table, tags=table.tags | np.where(mine, np.uint16(INTERNAL), np.uint16(0)))
    columns.extend(table)
    columns.sort()
    return columns.since(0)


class _Walker:
    """Walks parts, on one or several threads."""

    def __init__(
        self, views: dict[ViewName, View], entry_formats: dict[int, EntryFormat], pace: _Pace, most_bytes: int
    ) -> None:
        """`most_bytes`: of memory in the dump, more than which no block can be read from."""
        self._views, self._generations, self._pace, self._most_bytes, self._in_all = (
            views,
            entry_formats,
            pace,
            most_bytes,
            0,
        )

    def walk(self, parts: list[Part], threads: int) -> tuple[BlockTable, Tally]:
        """(all rows by address, their tally)."""
        self._in_all = min(sum(part.bytes for part in parts), self._most_bytes)
        if threads < 2:
            columns, tally = self._walk_share(parts)
            return columns.since(0), tally
        columns, tally, is_sorted = self._columns(parts), Tally(), True
        with ThreadPoolExecutor(threads) as pool:
            waiting, others = deque[Future[tuple[BlockColumns, Tally]]](), iter(parts)
            try:
                for part in islice(others, threads + _IN_HAND):
                    waiting.append(pool.submit(self._walk_share, [part]))
                while waiting:
                    found, counted = waiting.popleft().result()
                    waiting.extend(pool.submit(self._walk_share, [part]) for part in islice(others, 1))
                    is_sorted = is_sorted and columns.ends_before(found)
                    columns.extend(found.since(0))
                    tally.merge(counted)
            except BaseException:  # Ctrl-C: the threads end at their next window
                self._pace.is_stopped.set()
                raise
        if not is_sorted:  # heaps over each other: damage
            columns.sort()
        return columns.since(0), tally

    def _walk_share(self, parts: list[Part]) -> tuple[BlockColumns, Tally]:
        """The rows of neighbouring parts, by address, and their tally."""
        columns = self._columns(parts)
        for part in parts:
            self._walk_part(part, columns)
        columns.sort()
        return columns, Tally().add(columns.since(0))

    def _walk_part(self, part: Part, columns: BlockColumns) -> None:
        for heap, is_large, items in part.groups():
            view, entry_format = self._views[heap.view], self._generations[heap.index]
            walked = part.walked.setdefault(heap.index, WalkLog())
            if is_large:
                blocks = [item.large for item in items if item.large is not None]
                add_large_blocks(view, heap, entry_format, blocks, columns, walked)
                continue
            front = LfhWalk(view, heap, entry_format, part.fronts.setdefault(view.arch, FrontEnd()), columns, walked)
            chain = BackEndWalk(view, heap, entry_format, columns, walked, self._in_all)
            for window, first in chain.windows([item.span for item in items]):
                view.space.expect(Span(window.swept.end, window.swept.end + _AHEAD))
                front.add(window, first)
                view.space.forget(window.swept)
                self._pace.advance(sum(s.stop - s.start for s in window.stretches) * entry_format.granule)
                if self._pace.is_stopped.is_set():
                    return

    def _columns(self, parts: list[Part]) -> BlockColumns:
        """Columns with room for the blocks that these parts may have."""
        return BlockColumns(min(sum(part.bytes for part in parts), self._most_bytes) // _BYTES_A_BLOCK)
