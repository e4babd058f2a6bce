"""XP and Server 2003: blocks whose header does not say what they are, marked after the walk.

Those parked on lookaside lists are free though marked busy; the front end's own blocks carry no flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.heap import Heap, ViewName
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.lfh import FrontEnd
from heapdump.heaps.nt.lookaside import lookaside_block, parked_entries
from heapdump.kernels.row import BUSY, INTERNAL, KIND_MASK, UNIT
from heapdump.process.model import View


@dataclass(frozen=True, slots=True)
class Marks:
    """Entries that wait on lookaside lists; addresses inside the front end's own blocks."""

    parked: frozenset[int]
    internal: frozenset[int]

    def __bool__(self) -> bool:
        """True when there is something to mark."""
        return bool(self.parked or self.internal)


def marks_of(
    views: dict[ViewName, View],
    heaps: Sequence[Heap],
    entry_formats: dict[int, EntryFormat],
    fronts: Sequence[FrontEnd],
) -> Marks:
    """What is to be marked; empty sets from Vista on."""
    old = [
        (views[heap.view], heap, entry_formats[heap.index]) for heap in heaps if entry_formats[heap.index].is_pre_vista
    ]
    parked = {entry for place in old for entry in parked_entries(*place)}
    internal = {block for place in old if (block := lookaside_block(*place))}
    for front in fronts:
        internal |= front.carriers | front.subsegments
    return Marks(frozenset(parked), frozenset(internal))


def apply_marks(table: BlockTable, marks: Marks) -> BlockTable:
    """The table with parked blocks free and the front end's own blocks internal."""
    tags = table.tags.copy()
    if marks.parked:
        parked = np.isin(table.entry, np.array(sorted(marks.parked), np.uint64)) & (
            tags & KIND_MASK == BlockKind.BACKEND
        )
        tags[parked] = tags[parked] & ~np.uint16(BUSY | KIND_MASK) | np.uint16(BlockKind.LOOKASIDE)
    back = np.flatnonzero(tags & KIND_MASK == BlockKind.BACKEND)
    inside = np.array(sorted(address for address in marks.internal if address >= 0), np.uint64)
    found = np.searchsorted(table.entry[back], inside, side="right") - 1
    rows, inside = back[found[found >= 0]], inside[found >= 0]
    rows = rows[inside < table.entry[rows] + table.entry_size[rows]]
    tags[rows] |= np.uint16(INTERNAL)
    if not marks.parked:
        return BlockTable(table.entry, table.size8, table.unused, table.header8, table.heap, tags)
    spare = table.unused.copy()
    spare[parked] = table.header8[parked].astype(np.uint32) * UNIT
    return _joined(BlockTable(table.entry, table.size8, spare, table.header8, table.heap, tags))


def _joined(table: BlockTable) -> BlockTable:
    """Touching free blocks as one: a parked block is not joined with free ones by ntdll, but its own walk says so.

    RtlWalkHeap of XP lists each run of parked and free blocks as a single free block (all recorded heaps).
    """
    end = table.entry + table.entry_size
    free = ~table.is_busy & (table.kind != BlockKind.LFH)
    joins = np.zeros(len(table), bool)
    joins[1:] = free[1:] & free[:-1] & (table.entry[1:] == end[:-1]) & (table.heap[1:] == table.heap[:-1])
    firsts = np.flatnonzero(~joins)
    units = np.add.reduceat(table.size8, firsts).astype(np.uint32) if len(firsts) else table.size8
    return BlockTable(
        table.entry[firsts], units, table.unused[firsts], table.header8[firsts], table.heap[firsts], table.tags[firsts]
    )
