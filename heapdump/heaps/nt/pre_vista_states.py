"""XP and Server 2003: corrects the states of rows whose headers do not say the whole truth, after the walk.

Blocks on lookaside lists are free though their headers say busy. Blocks that the front end uses itself are internal,
but have no flag.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_subsegments import LfhState
from heapdump.heaps.nt.lookaside_lists import (
    LISTS,
    LookasideLink,
    lists_block,
    lists_of,
    lookaside_entries,
    lookaside_links,
)
from heapdump.kernels.row import BUSY, INTERNAL, KIND_MASK
from heapdump.trust import Trust

_DISABLE_COALESCE_ON_FREE = 0x80
"""HEAP_DISABLE_COALESCE_ON_FREE, a bit of _HEAP.Flags (winnt.h)."""

_USUAL_DEPTH = 4
"""Assumed number of blocks on a lookaside list whose head is not in the dump: new lists have this maximum depth."""

_FAR_TOO_MANY = 4
"""Factor: where more than this many times as many rows fit an unread end as it has blocks, none of them is taken."""


class UnreadListEnd(NamedTuple):
    """The blocks of a lookaside list behind a link that is not in the dump.

    Attributes:
        context: the heap.
        number: of the list, which is the size of its blocks in granules.
        blocks: number of these blocks.
    """

    context: HeapContext
    number: int
    blocks: int


@dataclass(frozen=True, slots=True)
class PreVistaStates:
    """The corrections to make.

    Attributes:
        on_lookaside_lists: entries of the blocks on lookaside lists: these become free.
        internal: addresses inside blocks that the front end uses itself: these become internal.
        uncoalesced: indices of heaps with HEAP_DISABLE_COALESCE_ON_FREE, whose free neighbours are not joined.
        unread_ends: ends of lookaside lists that are not in the dump.
    """

    on_lookaside_lists: frozenset[int]
    internal: frozenset[int]
    uncoalesced: frozenset[int] = frozenset()
    unread_ends: tuple[UnreadListEnd, ...] = ()

    def __bool__(self) -> bool:
        """True where there is something to correct."""
        return bool(self.on_lookaside_lists or self.internal or self.unread_ends)


def pre_vista_states(heaps: Sequence[HeapContext], lfh_states: Sequence[LfhState]) -> PreVistaStates:
    """The corrections for these heaps; empty from Vista on."""
    pre_vista = [context for context in heaps if context.entry_format.is_pre_vista]
    on_lists = {entry for context in pre_vista for entry in lookaside_entries(context)}
    internal = {block for context in pre_vista if (block := lists_block(context))}
    internal.update(*(state.internal for state in lfh_states))
    uncoalesced = {c.heap.index for c in pre_vista if (c.heap.flags or 0) & _DISABLE_COALESCE_ON_FREE}
    unread_ends = tuple(end for context in pre_vista for end in _unread_ends(context))
    return PreVistaStates(frozenset(on_lists), frozenset(internal), frozenset(uncoalesced), unread_ends)


def _unread_ends(context: HeapContext) -> Iterator[UnreadListEnd]:
    """The unread end of each lookaside list that has one."""
    last: dict[int, LookasideLink] = {}
    for link in lookaside_links(context):
        last[link.number] = link
    front_end = context.heap.front_end
    if front_end is None or (front_end == "lookaside" and lists_of(context)):
        unread = (number for number in range(LISTS) if number not in last)
        yield from (UnreadListEnd(context, number, _USUAL_DEPTH) for number in unread)
    for link in last.values():
        is_cut = link.node and link.remaining > 1 and not link.is_repeated
        if is_cut and context.space.try_pointer(link.node) is None:
            yield UnreadListEnd(context, link.number, link.remaining - 1)


def _may_be_blocks(context: HeapContext, links: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for each address that may be the user data of a block whose header is not in the dump; (n,)."""
    granule = np.uint64(context.entry_format.granule)
    inside = np.zeros(len(links), bool)
    for segment in context.heap.segments:
        inside |= (links >= np.uint64(segment.span.start) + granule) & (links < np.uint64(segment.span.end))
    _, is_there = context.space.mapped.gather(links - granule, 4)
    may_be: NDArray[np.bool_] = inside & ~is_there & (links % granule == 0)
    return may_be


def _blocks_on(table: BlockTable, end: UnreadListEnd) -> NDArray[np.int64]:
    """Rows of busy blocks that may be on the unread end of a list: they have its size and begin with a possible link.

    A possible link is 0 or the address of another block of that size. No rows where far too many fit.
    """
    context, size8 = end.context, end.number * end.context.entry_format.stride
    wanted = np.uint16(BUSY | BlockKind.BACKEND)
    mask = np.uint16(BUSY | KIND_MASK | INTERNAL)
    rows = np.flatnonzero((table.heap == context.heap.index) & (table.size8 == size8) & (table.tags & mask == wanted))
    address = table.addresses(rows)
    links, _ = context.space.mapped.gather(address, context.view.pointer_bytes)
    found: NDArray[np.int64] = rows[(links == 0) | np.isin(links, address) | _may_be_blocks(context, links)]
    return found if len(found) <= _FAR_TOO_MANY * end.blocks else found[:0]


def with_states(table: BlockTable, states: PreVistaStates) -> BlockTable:
    """The table with the corrections."""
    tags = table.tags.copy()
    for rows in (_blocks_on(table, end) for end in states.unread_ends):
        tags[rows] = tags[rows] & ~np.uint16(BUSY | KIND_MASK) | np.uint16(BlockKind.LOOKASIDE)
        lower_trust(tags, np.isin(np.arange(len(tags)), rows), Trust.GUESS)
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
    return _joined(BlockTable(table.entry, table.size8, unused, table.header8, table.heap, tags), states.uncoalesced)


def _joined(table: BlockTable, uncoalesced: frozenset[int]) -> BlockTable:
    """The table with each block on a lookaside list joined to the free blocks that it touches.

    RtlWalkHeap empties the lists first, which joins them (all recorded heaps of XP). Other free neighbours are separate
    in memory as well: together they would exceed the largest block, or the heap is one of `uncoalesced`.
    """
    end = table.entry + table.entry_size
    free = ~table.is_busy & (table.kind != BlockKind.LFH) & ~np.isin(table.heap, list(uncoalesced))
    on_list = table.kind == BlockKind.LOOKASIDE
    joins = np.zeros(len(table), bool)
    joins[1:] = free[1:] & free[:-1] & (table.entry[1:] == end[:-1]) & (table.heap[1:] == table.heap[:-1])
    joins[1:] &= on_list[1:] | on_list[:-1]
    firsts = np.flatnonzero(~joins)
    size8 = np.add.reduceat(table.size8, firsts).astype(np.uint32) if len(firsts) else table.size8
    return BlockTable(
        table.entry[firsts], size8, table.unused[firsts], table.header8[firsts], table.heap[firsts], table.tags[firsts]
    )
