"""Walks all NT heaps of a process together, in the order of addresses, so that the rows come out sorted.

Long walks use several threads. Each takes the next share of the work (`work`), walks it and counts its rows. The rows
are joined in the order of the shares.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache, partial
from itertools import islice

from heapdump.blocks.columns import BlockColumns, copy_rows
from heapdump.blocks.heap import Heap
from heapdump.heaps.jobs import AllocatorJob, WalkLog
from heapdump.heaps.nt.back_end import BackEndWalk
from heapdump.heaps.nt.context import HeapContext, WalkContext, heap_context
from heapdump.heaps.nt.counter_states import free_what_the_counters_say
from heapdump.heaps.nt.free_lists import linked_nodes
from heapdump.heaps.nt.large_block_rows import add_large_blocks
from heapdump.heaps.nt.lfh_subsegments import LfhState, LfhWalk
from heapdump.heaps.nt.missing import doubt_unread_sizes, missing_bytes
from heapdump.heaps.nt.pre_vista_states import pre_vista_states, with_states
from heapdump.heaps.nt.unplaced_spans import UnplacedSpans
from heapdump.heaps.nt.work import WorkShare, cut
from heapdump.heaps.row_counts import RowCounts
from heapdump.heaps.workload import Workload
from heapdump.spans import Span
from heapdump.wording import plural

_MAX_THREADS, _WAITING_SHARES = 8, 1
"""The most threads; the number of finished shares, beyond one for each thread, that may wait to be joined."""

_AHEAD = 8 << 20
"""Bytes behind the walked window that are read ahead from the file."""


def walk_nt_heaps(job: AllocatorJob) -> None:
    """Adds the blocks of every NT heap; rows are ascending by entry."""
    heaps = [heap for heap in job.heaps if heap.layout is not None]
    contexts = {heap.index: heap_context(job.view_of(heap), heap) for heap in heaps}
    shares = cut(heaps)
    walker = _Walker(job, contexts)
    walker.walk(shares, min(job.threads, len(shares), _MAX_THREADS))
    for share in shares:
        for index, log in share.logs.items():
            job.logs[index].merge(log)
    for heap in heaps:
        _say_what_is_missing(job, heap)
        free_what_the_counters_say(job, heap)
    lfh_states = [state for share in shares for state in share.lfh_states.values()]
    if states := pre_vista_states(list(contexts.values()), lfh_states):
        job.replace_rows(with_states(job.columns.since(0), states))


def _say_what_is_missing(job: AllocatorJob, heap: Heap) -> None:
    log = job.logs[heap.index]
    log.missing_bytes = missing_bytes(job.process, job.view_of(heap), heap)
    if log.missing_bytes:
        what = f"{plural(log.missing_bytes, 'byte')} of its memory are not in the dump"
        log.add_gap(f"heap {heap.address:#x}: {what}: blocks there are missing")


class _Walker:
    """Walks shares on one or several threads; rows go to the columns of the job."""

    def __init__(self, job: AllocatorJob, contexts: dict[int, HeapContext]) -> None:
        """`contexts`: by the index of the heap."""
        self._job, self._contexts = job, contexts
        self._free_nodes = {index: cache(partial(linked_nodes, context)) for index, context in contexts.items()}
        self._bytes, self._workload = 0, Workload(0)

    def walk(self, shares: list[WorkShare], threads: int) -> None:
        """Adds the rows of all shares, ascending by address, and their sums."""
        self._bytes = sum(share.bytes for share in shares)
        self._workload = Workload(min(self._bytes, self._job.process.space.total_bytes))
        if threads < 2:
            self._job.columns, self._job.counts = self._walk_shares(shares)
            return
        columns, counts, is_sorted = self._columns(shares), RowCounts(), True
        before, copies = BlockColumns(), list[Future[None]]()
        with ThreadPoolExecutor(threads) as pool:
            waiting, others = deque[Future[tuple[BlockColumns, RowCounts]]](), iter(shares)
            try:
                for share in islice(others, threads + _WAITING_SHARES):
                    waiting.append(pool.submit(self._walk_shares, [share]))
                while waiting:
                    found, counted = waiting.popleft().result()
                    waiting.extend(pool.submit(self._walk_shares, [share]) for share in islice(others, 1))
                    is_sorted = is_sorted and before.ends_before(found)
                    before = found if len(found) else before
                    if not columns.has_room(len(found)):
                        wait(copies)  # they write where the rows lie now
                    copies.append(pool.submit(copy_rows, found.since(0), columns.claim(len(found))))
                    counts.merge(counted)
                for copy in copies:
                    copy.result()
            except BaseException:  # Ctrl-C: threads end at their next window
                self._job.pace.is_stopped.set()
                raise
        if not is_sorted:  # heaps overlap, which is damage
            columns.sort()
        self._job.columns, self._job.counts = columns, counts

    def _walk_shares(self, shares: list[WorkShare]) -> tuple[BlockColumns, RowCounts]:
        """(the rows of neighbouring shares, ascending by address; their sums)."""
        columns = self._columns(shares)
        for share in shares:
            self._walk_share(share, columns)
        columns.sort()
        return columns, RowCounts().add(columns.since(0), self._workload.expected())

    def _walk_share(self, share: WorkShare, columns: BlockColumns) -> None:
        """Walks one share: back end and LFH window by window, large blocks heap by heap, unplaced spans last."""
        unplaced = list[tuple[LfhWalk, UnplacedSpans]]()
        for heap, is_large, items in share.groups():
            context = self._walk_context(share, heap, columns)
            if is_large:
                add_large_blocks(context, [item.large for item in items if item.large is not None])
                continue
            mapped = context.space.mapped
            lfh = LfhWalk(context, share.lfh_states.setdefault(heap.view, LfhState()), self._workload)
            back_end = BackEndWalk(context, self._workload, self._free_nodes[heap.index])
            unplaced.append((lfh, back_end.unplaced))
            for window, first_row in back_end.windows([item.span for item in items]):
                mapped.expect(Span(window.span.end, window.span.end + _AHEAD))
                lfh.add(window, first_row)
                doubt_unread_sizes(context, window, columns.since(first_row))
                mapped.forget(window.span)
                self._job.pace.advance(window.walked_bytes)
                if self._job.pace.is_stopped.is_set():
                    return
        for lfh, spans in unplaced:
            lfh.add_unplaced(spans)

    def _walk_context(self, share: WorkShare, heap: Heap, columns: BlockColumns) -> WalkContext:
        """The context of a heap with the columns and the log of the share."""
        known, log = self._contexts[heap.index], share.logs.setdefault(heap.index, WalkLog())
        return WalkContext(known.view, heap, known.entry_format, known.segments, columns, log)

    def _columns(self, shares: list[WorkShare]) -> BlockColumns:
        """Columns that grow to the blocks that these shares have by the number of blocks met so far."""
        size = sum(share.bytes for share in shares)
        return BlockColumns(forecast=lambda: self._workload.expected() * size // max(1, self._bytes))
