"""XP and Server 2003: states of blocks that their headers do not tell, corrected after the walk.

Blocks on lookaside lists are free though their headers say busy. Blocks that the front end uses itself have no flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_subsegments import LfhState
from heapdump.heaps.nt.lookaside_lists import lists_block, lookaside_entries
from heapdump.kernels.row import BUSY, INTERNAL, KIND_MASK


@dataclass(frozen=True, slots=True)
class PreVistaStates:
    """Corrections of rows.

    Attributes:
        on_lookaside_lists: entries of the blocks there.
        internal: addresses inside blocks that the front end uses itself.
    """

    on_lookaside_lists: frozenset[int]
    internal: frozenset[int]

    def __bool__(self) -> bool:
        """True when a row is to be corrected."""
        return bool(self.on_lookaside_lists or self.internal)


def pre_vista_states(heaps: Sequence[HeapContext], lfh_states: Sequence[LfhState]) -> PreVistaStates:
    """The states to correct in these heaps; empty sets from Vista on."""
    pre_vista = [context for context in heaps if context.entry_format.is_pre_vista]
    on_lists = {entry for context in pre_vista for entry in lookaside_entries(context)}
    internal = {block for context in pre_vista if (block := lists_block(context))}
    internal.update(*(state.internal for state in lfh_states))
    return PreVistaStates(frozenset(on_lists), frozenset(internal))


def with_states(table: BlockTable, states: PreVistaStates) -> BlockTable:
    """The table with blocks on lookaside lists free, and the front end's own blocks internal."""
    tags = table.tags.copy()
    if states.on_lookaside_lists:
        entries = np.array(sorted(states.on_lookaside_lists), np.uint64)
        on_lists = np.isin(table.entry, entries) & (tags & KIND_MASK == BlockKind.BACKEND)
        tags[on_lists] = tags[on_lists] & ~np.uint16(BUSY | KIND_MASK) | np.uint16(BlockKind.LOOKASIDE)
    back_end = np.flatnonzero(tags & KIND_MASK == BlockKind.BACKEND)
    inside = np.array(sorted(address for address in states.internal if address >= 0), np.uint64)
    found = np.searchsorted(table.entry[back_end], inside, side="right") - 1
    rows, inside = back_end[found[found >= 0]], inside[found >= 0]
    rows = rows[inside < table.entry[rows] + table.entry_size[rows]]
    tags[rows] |= np.uint16(INTERNAL)
    if not states.on_lookaside_lists:
        return BlockTable(table.entry, table.size8, table.unused, table.header8, table.heap, tags)
    unused = table.unused.copy()
    unused[on_lists] = table.header8[on_lists].astype(np.uint32) * 8
    return _joined(BlockTable(table.entry, table.size8, unused, table.header8, table.heap, tags))


def _joined(table: BlockTable) -> BlockTable:
    """Touching free blocks as one row.

    ntdll does not join a block on a lookaside list with the free blocks beside it, but RtlWalkHeap lists each run of
    them as a single free block (all recorded heaps of XP).
    """
    end = table.entry + table.entry_size
    free = ~table.is_busy & (table.kind != BlockKind.LFH)
    joins = np.zeros(len(table), bool)
    joins[1:] = free[1:] & free[:-1] & (table.entry[1:] == end[:-1]) & (table.heap[1:] == table.heap[:-1])
    firsts = np.flatnonzero(~joins)
    size8 = np.add.reduceat(table.size8, firsts).astype(np.uint32) if len(firsts) else table.size8
    return BlockTable(
        table.entry[firsts], size8, table.unused[firsts], table.header8[firsts], table.heap[firsts], table.tags[firsts]
    )
