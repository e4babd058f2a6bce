"""Restores the headers of many damaged entries at once, by the rules of `header_repair` and `damaged_header`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.damaged_header import HEADER_BYTES, EntryState
from heapdump.heaps.nt.header_word import BUSY_FLAG, INTERNAL_FLAG
from heapdump.heaps.nt.lfh_user_blocks import SIGNATURE
from heapdump.heaps.nt.unused_bytes import FRONT_PREFIX, USUAL_PREFIX, second_header_prefix
from heapdump.heaps.nt.windows import RunPart, Window
from heapdump.kernels.nt_damage import GOOD, GOOD_PREVIOUS, GRANULE, PREVIOUS_SIZE

Column = NDArray[np.int64]

NO_ROW, RESTORED, FREE, BUSY, USER_BLOCKS = range(5)
"""What became of a damaged entry: no row; a row by its restored header; a row of the state that is assumed."""

ENTRY_STATES = (EntryState.KNOWN, EntryState.KNOWN, EntryState.FREE, EntryState.BUSY, EntryState.USER_BLOCKS)
"""The same, in words of findings."""

_COUNT_BITS = 0x3F
"""Bits of UnusedBytes that are not 0 for busy entries alone."""


@dataclass(frozen=True, slots=True)
class DamagedPart:
    """A part of a run with damaged headers, Vista and later.

    Attributes:
        context: the walk of the heap.
        window: the words that it lies in, all of them in the dump.
        part: the part.
        segment: address of its segment.
        free_nodes: gives the nodes that free lists link (`free_lists.linked_nodes`).
    """

    context: WalkContext
    window: Window
    part: RunPart
    segment: int
    free_nodes: Callable[[], frozenset[int]]

    def addresses(self, granules: Column) -> Column:
        """The addresses of granules."""
        return self.part.base + granules * self.window.granule

    def words(self, granules: Column) -> Column:
        """The header words of the entries at granules, as they lie in memory, (n,) int64."""
        entry_format = self.context.entry_format
        words: Column = self.window.words[granules * entry_format.stride + entry_format.word_index]
        return words


@dataclass(frozen=True, slots=True)
class Repairs:
    """The restored headers of n damaged ones.

    Attributes:
        word: (n,) int64 decoded header words of the rows.
        state: (n,) int64 NO_ROW … USER_BLOCKS.
    """

    word: Column
    state: Column


def repairs_of(damaged: DamagedPart, records: Column) -> Repairs:
    """The headers that neighbours and addresses restore. `records`: (n, RECORD) of `kernels.nt_damage`."""
    entry_format, bits = damaged.context.entry_format, damaged.context.entry_format.bits
    granule, size = records[:, GRANULE], records[:, GOOD_PREVIOUS]
    word = damaged.words(granule) ^ entry_format.key
    known = 0xFFFF | 0xFFFF << bits.previous_size | 0xFF << bits.segment
    restored = word & ~known | size | records[:, PREVIOUS_SIZE] << bits.previous_size
    restored |= segment_bytes(damaged, granule) << bits.segment
    check = restored >> 24 ^ restored >> 16 ^ restored >> 8 ^ restored
    holds = (check & 0xFF == 0) | (not entry_format.mask)
    unused, is_busy = restored >> bits.unused & _COUNT_BITS, restored >> bits.flags & BUSY_FLAG
    is_possible = holds & (unused <= size * entry_format.granule) & ((unused != 0) == (is_busy != 0))
    state = np.where(is_possible, RESTORED, BUSY)
    state[(records[:, GOOD] - size != granule) | (holds & (restored == word))] = NO_ROW
    lacking = np.flatnonzero(state == BUSY)
    restored[lacking], state[lacking] = _guesses(damaged, granule[lacking], size[lacking])
    return Repairs(restored, state)


def segment_bytes(damaged: DamagedPart, granule: Column) -> Column:
    """SegmentOffset of the entries at granules (`header_repair.expected_segment`), (n,) int64."""
    if damaged.segment == damaged.context.address:
        return np.zeros(len(granule), np.int64)
    return ((damaged.addresses(granule) & ~0xFFFF) + 0x10000 - damaged.segment >> 16) & 0xFF


def _guesses(damaged: DamagedPart, granule: Column, size: Column) -> tuple[Column, Column]:
    """((n,) header words, (n,) states) of entries whose Flags are lost (`damaged_header`)."""
    context, bits = damaged.context, damaged.context.entry_format.bits
    prefixed = second_header_prefix(context.entry_format, damaged.window.words, granule)
    signature = context.layout["_HEAP_USERDATA_HEADER"].offset("Signature")
    user = damaged.addresses(granule + 1 + USUAL_PREFIX * prefixed)
    is_user_blocks = _integers(context, (user + signature).astype(np.uint64), 4) == SIGNATURE
    flags = BUSY_FLAG | INTERNAL_FLAG * is_user_blocks.astype(np.int64)
    word = size | flags << bits.flags | np.where(prefixed, FRONT_PREFIX, HEADER_BYTES).astype(np.int64) << bits.unused
    state = np.where(is_user_blocks, USER_BLOCKS, BUSY)
    is_free = _are_linked(damaged, damaged.addresses(granule + 1).astype(np.uint64))
    word[is_free], state[is_free] = size[is_free], FREE
    return word, state


def _are_linked(damaged: DamagedPart, nodes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for nodes on a free list, by their own links or by those of sound free entries; (n,) bool."""
    context, pointer = damaged.context, damaged.context.view.pointer_bytes
    if not len(nodes):
        return np.empty(0, bool)
    after = _integers(context, nodes, pointer)
    before = _integers(context, nodes + np.uint64(pointer), pointer)
    linked: NDArray[np.bool_] = (after != 0) & (before != 0)
    linked[linked] = _integers(context, after[linked] + np.uint64(pointer), pointer) == nodes[linked]
    linked[linked] = _integers(context, before[linked], pointer) == nodes[linked]
    free = frozenset[int]() if linked.all() else damaged.free_nodes()
    linked |= np.array([node in free for node in nodes.tolist()], bool)
    return linked


def _integers(context: WalkContext, addresses: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """The unsigned integers of `size` bytes at n addresses; 0 where one is not in the dump."""
    values, are_there = context.space.mapped.gather(addresses, size)
    if not are_there.all():
        lacking = np.flatnonzero(~are_there)
        begins = context.space.mapped.places(addresses[lacking], 1) >= 0
        for i in lacking[begins].tolist():  # perhaps across two ranges of the dump
            values[i] = context.space.try_integer(int(addresses[i]), size) or 0
    return values
