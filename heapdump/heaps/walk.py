"""Walks every heap block by block and makes the one table of all blocks.

NT heaps are walked together, in the order of addresses, so that the table comes out sorted, and by several threads where
it is long: each walks and counts neighbouring parts. Then come the heaps of other kinds, one by one: their modules bring
a `WALK` (see `heaps`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from threading import Event, Lock

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.records import Heap, HeapKind, ViewName
from heapdump.blocks.table import INTERNAL, BlockTable
from heapdump.blocks.walk import KindCount, Walk
from heapdump.heaps import walk_of
from heapdump.heaps.nt_blocks import HeapWalk
from heapdump.heaps.nt_counts import Tally, count_blocks
from heapdump.heaps.nt_generation import Generation, generation_of
from heapdump.heaps.nt_lfh import FrontEnd, FrontEndWalk
from heapdump.heaps.nt_marks import apply_marks, marks_of
from heapdump.heaps.nt_rows import add_large_blocks
from heapdump.heaps.parts import Part, cut
from heapdump.heaps.walked import Job, Walked
from heapdump.process.model import Process, View
from heapdump.spans import Span

_MAX_THREADS = 8
_BYTES_A_BLOCK = 64
"""Rows are set aside for blocks of this size; smaller ones make the columns grow."""

_AHEAD = 8 << 20
"""Bytes behind what is walked that are read ahead from the file."""


@dataclass
class _Share:
    """The parts of one thread and what it makes of them."""

    parts: list[Part]
    columns: BlockColumns
    tally: Tally = field(default_factory=Tally)


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
    generations = {heap.index: generation_of(views[heap.view], heap) for heap in wanted}
    parts = cut(wanted)
    total = sum(part.bytes for part in parts) + sum(e.span.size for heap in others for e in heap.extents)
    pace = _Pace(total, progress)
    walker = _Walker(views, generations, pace, process.space.total_bytes)
    table, tally = walker.walk(parts, min(threads or os.cpu_count() or 1, len(parts), _MAX_THREADS))
    walked = {heap.index: Walked() for heap in (*wanted, *others)}
    for part in parts:
        for index, found in part.walked.items():
            walked[index].merge(found)
    marks = marks_of(views, wanted, generations, [front for part in parts for front in part.fronts.values()])
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
    walked: dict[int, Walked], advance: Callable[[int], None],
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
        self, views: dict[ViewName, View], generations: dict[int, Generation], pace: _Pace, most_bytes: int
    ) -> None:
        """`most_bytes`: of memory in the dump, more than which no block can be read from."""
        self._views, self._generations, self._pace, self._most_bytes = views, generations, pace, most_bytes

    def walk(self, parts: list[Part], threads: int) -> tuple[BlockTable, Tally]:
        """(all rows by address, their tally)."""
        if threads < 2:
            share = _Share(parts, self._columns(parts))
            self._walk_share(share)
            return share.columns.since(0), share.tally
        shares = list(self._shares(parts, threads))
        with ThreadPoolExecutor(threads) as pool:
            jobs = [pool.submit(self._walk_share, share) for share in shares]
            try:
                for job in jobs:
                    job.result()
            except BaseException:  # Ctrl-C: the threads end at their next window
                self._pace.is_stopped.set()
                raise
            first, *others = shares
            for other in others:
                is_sorted = first.columns.ends_before(other.columns)
                first.columns.take_over(other.columns, pool)
                first.tally.merge(other.tally)
                if not is_sorted:  # heaps over each other: damage
                    first.columns.sort()
        return first.columns.since(0), first.tally

    def _walk_share(self, share: _Share) -> None:
        for part in share.parts:
            self._walk_part(part, share.columns)
        share.columns.sort()
        share.tally.add(share.columns.since(0))

    def _walk_part(self, part: Part, columns: BlockColumns) -> None:
        for heap, is_large, items in part.groups():
            view, generation = self._views[heap.view], self._generations[heap.index]
            walked = part.walked.setdefault(heap.index, Walked())
            if is_large:
                blocks = [item.large for item in items if item.large is not None]
                add_large_blocks(view, heap, generation, blocks, columns, walked)
                continue
            front = FrontEndWalk(view, heap, generation, part.fronts.setdefault(view.arch, FrontEnd()), columns, walked)
            chain = HeapWalk(view, heap, generation, columns, walked)
            for window, first in chain.windows([item.span for item in items]):
                view.space.expect(Span(window.swept.end, window.swept.end + _AHEAD))
                front.add(window, first)
                view.space.forget(window.swept)
                self._pace.advance(sum(s.stop - s.start for s in window.stretches) * generation.granule)
                if self._pace.is_stopped.is_set():
                    return

    def _shares(self, parts: list[Part], threads: int) -> Iterator[_Share]:
        """Neighbouring parts for each thread; the first one's columns have room to take the others' rows over."""
        for i in range(threads):
            mine = parts[len(parts) * i // threads : len(parts) * (i + 1) // threads]
            yield _Share(mine, self._columns(parts if i == 0 else mine))

    def _columns(self, parts: list[Part]) -> BlockColumns:
        """Columns with room for the blocks that these parts may have."""
        return BlockColumns(min(sum(part.bytes for part in parts), self._most_bytes) // _BYTES_A_BLOCK)
