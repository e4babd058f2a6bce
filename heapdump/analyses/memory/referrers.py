"""Who refers to memory that nothing names: the words of modules, stacks, heaps and objects that point into it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.memory.usage import UsageKind, UsageMap
from heapdump.analyses.memory.writable import windows, writable_rows
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.process.model import Process
from heapdump.spans import Span, SpanMap


class ReferrerKind(StrEnum):
    """The kind of memory that refers; the value is the word of the JSON."""

    MODULE = "module"
    THREAD = "thread"
    HEAP = "heap"
    MEMORY = "memory"


_KINDS = {
    UsageKind.IMAGE: ReferrerKind.MODULE, UsageKind.STACK: ReferrerKind.THREAD, UsageKind.TEB: ReferrerKind.THREAD,
    UsageKind.HEAP: ReferrerKind.HEAP, UsageKind.PAGE_HEAP: ReferrerKind.HEAP,
}  # fmt: skip
_ORDER = list(ReferrerKind)


@dataclass(frozen=True, slots=True)
class ReferringPlace:
    """Words of one module, thread, heap or allocation that point into a span.

    Attributes:
        kind: kind of the memory that holds the words.
        number: base of the module, index of the thread or heap, or start of the allocation.
        first: address of the first word.
        words: number of words.
        is_named: True where a structure or evidence names the memory that holds them.
    """

    kind: ReferrerKind
    number: int
    first: int
    words: int
    is_named: bool = True


@dataclass(frozen=True, slots=True)
class ReferredMemory:
    """A span and the places that refer to it.

    Attributes:
        span: the span.
        places: modules, threads, heaps, other memory, in this order; of each kind those with most words first.
        is_whole: False where some writable memory was not searched: it is not in the dump, or more than the limit.
    """

    span: Span
    places: tuple[ReferringPlace, ...]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class ReferrerQuestion:
    """The question for referrers.

    Attributes:
        spans: disjoint spans, in any order.
        heaps: the heaps that were walked.
        table: their blocks.
        most_bytes: limit of the bytes that are searched.
    """

    spans: Sequence[Span]
    heaps: Sequence[Heap]
    table: BlockTable
    most_bytes: int


def referrers_of(
    usage: UsageMap, question: ReferrerQuestion, progress: Callable[[int, int], None]
) -> tuple[ReferredMemory, ...]:
    """The referrers of the spans, in their order. Words inside a span do not count for it.

    Reads up to `most_bytes` of writable committed memory, 1 GB in a second or two. Of a stack the part in use counts;
    of a walked heap the requested bytes of the program's busy blocks.
    """
    search = _ReferrerCounter(usage, question)
    memory, places = usage.process.space.mapped, list(_writable(usage))
    ends = np.array([(place.start, place.end) for _, place in places], np.uint64).reshape(len(places), 2)
    done, present = 0, int(memory.bytes_present(ends[:, 0], ends[:, 1]).sum())
    for row, window in ((row, window) for row, place in places for window in windows(memory, place)):
        if done + window.size > question.most_bytes:
            break
        search.add(row, window)
        done += window.size
        progress(done, present)
    is_whole = done == present == sum(place.size for _, place in places)
    return tuple(ReferredMemory(span, search.places(i), is_whole) for i, span in enumerate(question.spans))


class _ReferrerCounter:
    """Counts words by span and place."""

    def __init__(self, usage: UsageMap, question: ReferrerQuestion) -> None:
        spans = question.spans
        self._table, self._walked = question.table, set(np.unique(question.table.heap).tolist())
        self._usage, self._space = usage, usage.process.views[-1].space
        self._order = sorted(range(len(spans)), key=lambda i: spans[i])
        self._starts = np.array([spans[i].start for i in self._order], np.uint64)
        self._ends = np.array([spans[i].end for i in self._order], np.uint64)
        self._heaps = SpanMap((extent.span, heap.index) for heap in question.heaps for extent in heap.extents)
        self._threads = _thread_map(usage.process)
        self._found: dict[tuple[int, ReferrerKind, int], tuple[int, int]] = {}

    def add(self, row: int, place: Span) -> None:
        """Counts the words of one region, or a window of it."""
        kind, number = self._holder(row, place.start)
        width = self._space.pointer_bytes
        for start, words in self._space.mapped.words(place, width):
            near = np.flatnonzero((words >= self._starts[0]) & (words < self._ends[-1]))
            if not len(near):
                continue
            target = np.searchsorted(self._starts, words[near], side="right").astype(np.int64) - 1
            at = np.uint64(start) + near.astype(np.uint64) * np.uint64(width)
            own = (at >= self._starts[target]) & (at < self._ends[target])
            hits = (words[near] < self._ends[target]) & ~own
            if kind is ReferrerKind.HEAP and number in self._walked:
                hits &= self._is_used(at)
            self._count(target[hits], at[hits], kind, number)

    def _is_used(self, at: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """True for addresses among the requested bytes of busy blocks of the program."""
        table = self._table
        row = np.maximum(np.searchsorted(table.entry, at, side="right"), 1) - 1
        start = table.addresses(row)
        inside = (at >= start) & (at < start + table.sizes(row))
        used: NDArray[np.bool_] = inside & table.is_busy[row] & ~table.is_internal[row]
        return used

    def _count(self, target: NDArray[np.int64], at: NDArray[np.uint64], kind: ReferrerKind, number: int) -> None:
        found, firsts, counts = np.unique(target, return_index=True, return_counts=True)
        for i, first, count in zip(found.tolist(), at[firsts].tolist(), counts.tolist(), strict=True):
            key = (self._order[i], kind, number)
            before = self._found.get(key, (first, 0))
            self._found[key] = (min(before[0], first), before[1] + count)

    def _holder(self, row: int, start: int) -> tuple[ReferrerKind, int]:
        """(kind, number) of the memory of a region."""
        usage = self._usage
        kind = _KINDS.get(usage.kind(int(usage.codes[row])), ReferrerKind.MEMORY)
        module = usage.process.module_map.at(start)
        if kind is ReferrerKind.MODULE and module is not None:
            return kind, module.span.start
        number = {ReferrerKind.THREAD: self._threads, ReferrerKind.HEAP: self._heaps}.get(kind)
        found = number.at(start) if number is not None else None
        return (kind, found) if found is not None else (ReferrerKind.MEMORY, int(usage.table.allocation_base[row]))

    def _is_named(self, address: int) -> bool:
        i = self._usage.table.index_at(address)
        return i is not None and bool(self._usage.table.claim[i] >= 0)

    def places(self, span: int) -> tuple[ReferringPlace, ...]:
        """All places that refer to the span with an index: at most one for each thread, heap and allocation."""
        found = [(k, n, *one) for (i, k, n), one in self._found.items() if i == span]
        out = [ReferringPlace(k, n, first, words, self._is_named(first)) for k, n, first, words in found]
        return tuple(sorted(out, key=lambda one: (_ORDER.index(one.kind), -one.words, one.first)))


def _thread_map(process: Process) -> SpanMap[int]:
    """Stacks and TEBs → index of the thread."""
    stacks = ((Span(s.limit, s.base), t.index) for t in process.threads for s in t.stacks if s.limit < s.base)
    tebs = ((Span(e.address, e.address + e.size), t.index) for t in process.threads for e in t.tebs)
    return SpanMap((*stacks, *tebs))


def _writable(usage: UsageMap) -> Iterator[tuple[int, Span]]:
    """(row, span) of writable committed memory; of a stack the part from the stack pointer on."""
    table, process = usage.table, usage.process
    pointers = {
        s.base: t.sp for t in process.threads for s in t.stacks if t.sp is not None and s.limit <= t.sp < s.base
    }
    for i in writable_rows(table).tolist():
        start, end = int(table.start[i]), int(table.end[i])
        start = max(start, pointers.get(end, start))
        if start < end:
            yield i, Span(start, end)
