"""Finds the place of each large allocation whose node names a place that cannot be its own.

Three witnesses tell the place beside the node, on every recorded heap (docs/reference/heap-structures.md §6.6):

- The tree is sorted: from left to right its nodes name ascending addresses, each once.
- An allocation begins where committed memory of a reservation begins, and ends where that memory ends. In a reservation
  of several allocations, others and segments may touch it, on multiples of 1 MiB.
- It does not lie where a heap, or a segment of this heap, begins.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

import numpy as np

from heapdump.blocks.heap import LargeBlock
from heapdump.memory.regions import Kind, RegionTable, State
from heapdump.spans import Span
from heapdump.trust import Trust

_ALIGNMENT = 0x10000
_MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class PlacedBlock:
    """A large allocation at its place. `named`: the record at the place that its node names; None where they agree.

    `block` is None where no place is known.
    """

    block: LargeBlock | None
    named: LargeBlock | None = None


def placed_blocks(
    regions: RegionTable, named: Sequence[LargeBlock], taken: Set[int], *, are_sizes_counted: bool
) -> list[PlacedBlock]:
    """The allocations of a tree, each at its place, in the order of the tree.

    Where the other witnesses contradict a node, the allocation gets the only committed memory of its size between those
    of its neighbours in the tree, with trust derived. Where there is none such, the first node that names the beginning
    of committed memory keeps its place, as a guess; others have no place.

    Args:
        regions: the memory map.
        named: the records at the places that the nodes name, in the order of the tree.
        taken: addresses where something else begins.
        are_sizes_counted: True where Windows counts as many committed bytes as the nodes name: then their sizes are
            right, and one that does not fit its memory is at the wrong place.
    """
    memory = _Runs(regions)
    doubtful = _doubtful(memory, named, taken, are_sizes_counted=are_sizes_counted)
    if not doubtful:
        return [PlacedBlock(block) for block in named]
    found, certain = list[PlacedBlock](), {block.list_entry for i, block in enumerate(named) if i not in doubtful}
    claimed = {*certain, *taken}
    free = [run for run in memory.all_runs() if run.start not in claimed]
    for group in _groups(named, doubtful):
        found += _placed_group([named[i] for i in group.rows], free, group) if group.rows else ()
        found += [] if group.last is None else [PlacedBlock(group.last)]
    return _each_place_once(memory, found, claimed)


@dataclass(frozen=True, slots=True)
class _Group:
    """Doubtful nodes in a row of the tree, between the allocations `low` and `high`; `last`: the sure one behind."""

    rows: list[int]
    low: int
    high: float
    last: LargeBlock | None


def _groups(named: Sequence[LargeBlock], doubtful: Set[int]) -> list[_Group]:
    """Every group of doubtful nodes, also an empty one, with the sure node behind it."""
    out, rows, low = list[_Group](), list[int](), -1
    for i, block in enumerate(named):
        if i in doubtful:
            rows.append(i)
            continue
        out.append(_Group(rows, low, block.list_entry, block))
        rows, low = [], block.list_entry
    return [*out, _Group(rows, low, float("inf"), None)]


def _placed_group(blocks: list[LargeBlock], free: list[Span], group: _Group) -> list[PlacedBlock]:
    """Doubtful allocations, in order: at the free runs between their neighbours, where they are as many and as long."""
    sizes = {block.commit_bytes for block in blocks}
    between = [run for run in free if group.low < run.start < group.high and run.size in sizes]
    if [run.size for run in between] != [block.commit_bytes for block in blocks]:
        return [PlacedBlock(None, block) for block in blocks]
    out = []
    for block, run in zip(blocks, between, strict=True):
        if run.start == block.list_entry:
            out.append(PlacedBlock(block))
        else:
            moved = replace(block, list_entry=run.start, reserve_bytes=run.size, trust=Trust.DERIVED)
            out.append(PlacedBlock(moved, block))
    return out


def _each_place_once(memory: _Runs, found: list[PlacedBlock], claimed: set[int]) -> list[PlacedBlock]:
    """The allocations; one without a place keeps the one that its node names, as a guess, where nobody else has it."""
    claimed |= {one.block.list_entry for one in found if one.block is not None}
    out = []
    for one in found:
        named = one.named
        run = memory.run_at(named.list_entry) if named is not None else None
        is_possible = named is not None and (run is None or run.start == named.list_entry)
        if one.block is None and named is not None and is_possible and named.list_entry not in claimed:
            claimed.add(named.list_entry)
            out.append(PlacedBlock(replace(named, trust=Trust.GUESS), named))
        else:
            out.append(one)
    return out


def _doubtful(memory: _Runs, named: Sequence[LargeBlock], taken: Set[int], *, are_sizes_counted: bool) -> set[int]:
    """Indices of the nodes that name another one's place, a place out of order, or memory that does not fit."""
    count, starts = Counter(block.list_entry for block in named), {block.list_entry for block in named}
    ends = {block.list_entry + block.commit_bytes for block in named}
    doubtful = {
        i for i, block in enumerate(named)
        if count[block.list_entry] > 1 or block.list_entry in taken
        or not _fits(block, memory.run_at(block.list_entry), starts, ends, are_sizes_counted=are_sizes_counted)
    }  # fmt: skip
    others = [i for i in range(len(named)) if i not in doubtful]
    return doubtful | {others[i] for i in _out_of_order([named[i].list_entry for i in others])}


def _fits(block: LargeBlock, run: Span | None, starts: Set[int], ends: Set[int], *, are_sizes_counted: bool) -> bool:
    """True where an allocation may lie in this committed run; `starts`, `ends`: of all allocations of the heap."""
    start, end = block.list_entry, block.list_entry + block.commit_bytes
    if run is None:
        return True
    may_end = end == run.end or end % _MiB == 0 or end in starts
    if start == run.start:
        return may_end or not are_sizes_counted
    return may_end and (start % _MiB == 0 or start in ends)


def _out_of_order(values: Sequence[int]) -> set[int]:
    """Indices outside one of the longest ascending subsequences; O(n log n)."""
    tops, rows, before = list[int](), list[int](), list[int]()
    for i, value in enumerate(values):
        place = bisect_left(tops, value)
        before.append(rows[place - 1] if place else -1)
        tops[place : place + 1] = [value]
        rows[place : place + 1] = [i]
    chosen, at = set[int](), rows[-1] if rows else -1
    while at >= 0:
        chosen.add(at)
        at = before[at]
    return set(range(len(values))) - chosen


class _Runs:
    """Committed memory of reservations."""

    def __init__(self, regions: RegionTable) -> None:
        self._regions = regions

    def run_at(self, address: int) -> Span | None:
        """The committed run of one reservation around an address; None where the map does not tell."""
        regions, i = self._regions, self._regions.index_at(address)
        if i is None or not regions.is_complete_map:
            return None
        first = last = i
        while first > 0 and self._continues(first - 1):
            first -= 1
        while last + 1 < len(regions) and self._continues(last):
            last += 1
        return Span(int(regions.start[first]), int(regions.end[last]))

    def _continues(self, i: int) -> bool:
        """True where the run of region `i` goes on in the next region."""
        regions = self._regions
        is_committed = regions.state[i] == regions.state[i + 1] == State.MEM_COMMIT
        is_same: bool = is_committed and regions.allocation_base[i] == regions.allocation_base[i + 1]
        return bool(is_same) and regions.end[i] == regions.start[i + 1]

    def all_runs(self) -> list[Span]:
        """The committed runs of private reservations that begin on 64 KiB boundaries, ascending."""
        regions = self._regions
        rows = (regions.state == State.MEM_COMMIT) & (regions.type == Kind.MEM_PRIVATE)
        starts = regions.start[rows & (regions.start % _ALIGNMENT == 0)]
        runs = [self.run_at(start) for start in np.unique(starts).tolist()]
        return [run for run, start in zip(runs, np.unique(starts).tolist(), strict=True) if run and run.start == start]
