"""Memory that no rule names: which allocations there are, and the words that they begin with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from heapdump.analyses.by_hand.pointees import Pointee
from heapdump.analyses.memory.usage import UNKNOWN, UsageMap
from heapdump.memory.regions import Kind, State
from heapdump.spans import Span
from heapdump.trust import Trust

_FIRST_WORDS = 4


@dataclass(frozen=True, slots=True)
class UnnamedMemory:
    """An allocation that nothing names, or the part of it that nothing names. `committed_bytes`: of that part."""

    span: Span
    committed_bytes: int


@dataclass(frozen=True, slots=True)
class FirstWord:
    """A word of memory, its address, and the thing that it points to; None where it is no pointer."""

    address: int
    value: int
    pointee: Pointee | None


def largest_unnamed(usage: UsageMap, most: int) -> tuple[UnnamedMemory, ...]:
    """The private allocations that no structure and no evidence names: the `most` with most committed bytes."""
    table = usage.table
    if not len(table):
        return ()
    firsts = np.array([low for low, _ in table.allocation_rows()], np.int64)
    is_free = (table.claim < 0) & (table.type == Kind.MEM_PRIVATE)
    committed = np.where(is_free & (table.state == State.MEM_COMMIT), table.size, np.uint64(0))
    sums = np.add.reduceat(committed, firsts)
    order = np.argsort(-sums.astype(np.int64), kind="stable")[:most]
    found = (unnamed_at(usage, int(table.start[firsts[i]])) for i in order.tolist() if sums[i])
    return tuple(one for one in found if one is not None)


def unnamed_at(usage: UsageMap, address: int) -> UnnamedMemory | None:
    """The allocation at an address; None for free memory, and where a structure of the process names it.

    A presumed owner does not count as one.
    """
    table = usage.table
    i = table.index_at(address)
    if i is None or usage.names[int(usage.codes[i])] != UNKNOWN or not table.is_complete_map:
        return None
    claim = table.row(i)[5]
    span = table.allocation(address)
    if span is None or (claim is not None and claim.trust != Trust.GUESS):
        return None
    return UnnamedMemory(span, table.committed_bytes(span))


def first_words(usage: UsageMap, span: Span, pointee: Callable[[int], Pointee | None]) -> tuple[FirstWord, ...]:
    """The first four words of the span's first committed part; none where they are not in the dump."""
    table, space = usage.table, usage.process.views[-1].space
    low = max(0, int(np.searchsorted(table.start, np.uint64(span.start), side="right")) - 1)
    high = int(np.searchsorted(table.start, np.uint64(span.end)))
    rows = np.flatnonzero(table.state[low:high] == State.MEM_COMMIT)
    start = int(table.start[low + rows[0]]) if len(rows) else span.start
    places = [max(start, span.start) + n * space.pointer_bytes for n in range(_FIRST_WORDS)]
    values = [(at, space.try_pointer(at)) for at in places]
    return tuple(FirstWord(at, value, pointee(value)) for at, value in values if value is not None)
