"""Walks all NT heaps of a process together, in the order of addresses, so that the rows come out sorted.

Several threads walk where the work is long: each walks and counts the next part, and the parts are joined in their order.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap
from heapdump.heaps.jobs import AllocatorJob, WalkLog
from heapdump.heaps.nt.back_end import BackEndWalk
from heapdump.heaps.nt.context import HeapContext, WalkContext, heap_context
from heapdump.heaps.nt.large_block_rows import add_large_blocks
from heapdump.heaps.nt.lfh_subsegments import LfhState, LfhWalk
from heapdump.heaps.nt.pre_vista_states import pre_vista_states, with_states
from heapdump.heaps.nt.work import Part, cut
from heapdump.heaps.row_counts import RowCounts
from heapdump.heaps.workload import Workload
from heapdump.spans import Span

_MAX_THREADS, _WAITING_PARTS = 8, 1
"""Threads at most; parts more than there are threads whose rows may wait to be joined."""

_BYTES_A_BLOCK = 64
"""Columns get room for blocks of this size; smaller blocks make them grow."""

_AHEAD = 8 << 20
"""Bytes behind the walked window that are read ahead from the file."""


def walk_nt_heaps(job: AllocatorJob) -> None:
    """Adds the blocks of every NT heap, ascending by address where heaps do not lie over each other."""
    heaps = [heap for heap in job.heaps if heap.layout is not None]
    contexts = {heap.index: heap_context(job.view_of(heap), heap) for heap in heaps}
    parts = cut(heaps)
    walker = _Walker(job, contexts)
    walker.walk(parts, min(job.threads, len(parts), _MAX_THREADS))
    for part in parts:
        for index, log in part.walked.items():
            job.logs[index].merge(log)
    lfh_states = [state for part in parts for state in part.lfh_states.values()]
    if states := pre_vista_states(list(contexts.values()), lfh_states):
        job.replace_rows(with_states(job.columns.since(0), states))


class _Walker:
    """Walks parts, on one or several threads; rows go to the columns of the job."""

    def __init__(self, job: AllocatorJob, contexts: dict[int, HeapContext]) -> None:
        """`contexts`: by the index of the heap."""
        self._job, self._contexts = job, contexts
        self._dump_bytes = job.process.space.total_bytes
        self._workload = Workload(0)

    def walk(self, parts: list[Part], threads: int) -> None:
        """Adds the rows of all parts, ascending by address, and their sums."""
        self._workload = Workload(min(sum(part.bytes for part in parts), self._dump_bytes))
        if threads < 2:
            self._job.columns, self._job.counts = self._walk_share(parts)
            return
        columns, counts, is_sorted = self._job.columns, RowCounts(), True
        with ThreadPoolExecutor(threads) as pool:
            waiting, others = deque[Future[tuple[BlockColumns, RowCounts]]](), iter(parts)
            try:
                for part in islice(others, threads + _WAITING_PARTS):
                    waiting.append(pool.submit(self._walk_share, [part]))
                while waiting:
                    found, counted = waiting.popleft().result()
                    waiting.extend(pool.submit(self._walk_share, [part]) for part in islice(others, 1))
                    is_sorted = is_sorted and columns.ends_before(found)
                    columns.extend(found.since(0))
                    counts.merge(counted)
            except BaseException:  # Ctrl-C: the threads end at their next window
                self._job.pace.is_stopped.set()
                raise
        if not is_sorted:  # heaps over each other: damage
            columns.sort()
        self._job.counts = counts

    def _walk_share(self, parts: list[Part]) -> tuple[BlockColumns, RowCounts]:
        """The rows of neighbouring parts, ascending by address, and their sums."""
        columns = self._columns(parts)
        for part in parts:
            self._walk_part(part, columns)
        columns.sort()
        return columns, RowCounts().add(columns.since(0), self._workload.expected())

    def _walk_part(self, part: Part, columns: BlockColumns) -> None:
        for heap, is_large, items in part.groups():
            context = self._walk_context(part, heap, columns)
            if is_large:
                add_large_blocks(context, [item.large for item in items if item.large is not None])
                continue
            mapped = context.space.mapped
            lfh = LfhWalk(context, part.lfh_states.setdefault(heap.view, LfhState()))
            back_end = BackEndWalk(context, self._workload)
            for window, first_row in back_end.windows([item.span for item in items]):
                mapped.expect(Span(window.span.end, window.span.end + _AHEAD))
                lfh.add(window, first_row)
                mapped.forget(window.span)
                self._job.pace.advance(window.walked_bytes)
                if self._job.pace.is_stopped.is_set():
                    return

    def _walk_context(self, part: Part, heap: Heap, columns: BlockColumns) -> WalkContext:
        known, log = self._contexts[heap.index], part.walked.setdefault(heap.index, WalkLog())
        return WalkContext(known.view, heap, known.entry_format, columns, log)

    def _columns(self, parts: list[Part]) -> BlockColumns:
        """Columns with room for the blocks that these parts may have."""
        return BlockColumns(min(sum(part.bytes for part in parts), self._dump_bytes) // _BYTES_A_BLOCK)
