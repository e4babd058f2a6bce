"""The block at an address, and the segment or large-block record that a block belongs to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap, LargeBlock
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import Block, BlockTable
from heapdump.kernels.row import INTERNAL
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, SpanMap

_PAGE = 0x1000
_list_entry = attrgetter("list_entry")
Relation = Literal["user", "header", "slack", "free", "guard", "outside"]
"""The place of an address in a block. `slack`: behind the requested bytes, in the same entry.

`user`: in the requested bytes, or the address of a block of 0 bytes, which the program got all the same.
"""


@dataclass(frozen=True, slots=True)
class Located:
    """The block at an address.

    Attributes:
        relation: place of the address in the block; `outside` without one.
        block: the innermost block; None where there is none.
        offset: address minus address of the block's user data; None without a block.
        neighbours: nearest blocks of the program before and behind, two, one or none.
    """

    relation: Relation
    block: Block | None
    offset: int | None
    neighbours: tuple[Block, ...]


def locate(table: BlockTable, space: AddressSpace, address: int) -> Located:
    """The innermost block at an address, header included; outside of all blocks the nearest ones."""
    rows = table.at(address)
    program = [row for row in rows if not table.tags[row] & INTERNAL]
    row = next(iter(program or rows), None)
    if (by_size := _row_by_size(table, address)) is not None:
        row = by_size
    neighbours = _neighbours(table, address, row)
    if row is None:
        return _in_page_heap(table, address) or Located("outside", None, None, neighbours)
    block = table.block(row)
    offset = address - block.address
    if block.state == "free":
        relation: Relation = "free"
    elif offset < 0 or block.is_internal:
        relation = "header"
    else:
        relation = "user" if offset < max(1, block.size) else "slack"
    return Located(relation, block, offset, neighbours)


def _in_page_heap(table: BlockTable, address: int) -> Located | None:
    """The full page-heap block whose guard page, or whose first page before the header, holds the address."""
    last = int(np.searchsorted(table.entry, np.uint64(address), side="right")) - 1
    for row in range(max(0, last), min(last + 2, len(table))):
        block = table.block(row)
        if block.kind == BlockKind.PAGE:
            guard, start = guard_page(block), block.entry // _PAGE * _PAGE
            offset = address - block.address
            if guard.start <= address < guard.end:
                return Located("guard", block, offset, _neighbours(table, address, row))
            if start <= address < block.entry:
                return Located("header", block, offset, _neighbours(table, address, row))
    return None


def guard_page(block: Block) -> Span:
    """The guard page of a full page-heap block: behind the block, or before a block without header (`/backwards`)."""
    if block.entry == block.address:
        return Span(block.entry - _PAGE, block.entry)
    end = block.end // _PAGE * _PAGE
    return Span(end, end + _PAGE)


def _row_by_size(table: BlockTable, address: int) -> int | None:
    """The row of the program's busy block whose requested bytes hold the address.

    On x64 the requested bytes reach 8 bytes behind the entry: into the next header, or behind the last LFH block of a
    subsegment (heap-structures.md §2.3).
    """
    last = int(np.searchsorted(table.entry, np.uint64(address), side="right")) - 1
    for row in range(last, max(-1, last - 3), -1):
        block = table.block(row)
        if not block.is_internal and block.state == "busy" and block.address <= address < block.address + block.size:
            return row
    return None


def _neighbours(table: BlockTable, address: int, row: int | None) -> tuple[Block, ...]:
    """The nearest blocks of the program before and behind an address, or the row that holds it."""
    here = row if row is not None else int(np.searchsorted(table.entry, np.uint64(address), side="right"))
    near = (table.program_row(here - 1, -1), table.program_row(here + (row is not None), 1))
    return tuple(table.block(i) for i in near if i is not None)


class Owners:
    """Finds the segment of a block, or its record on the large-block list. Each call is a binary search."""

    def __init__(self, heaps: Sequence[Heap]) -> None:
        """Sorts the segments and large blocks of all heaps once."""
        self._segments = SpanMap((s.span, s.address) for heap in heaps for s in heap.segments)
        self._large = sorted((b for heap in heaps for b in heap.large_blocks or ()), key=_list_entry)

    def segment(self, block: Block) -> int | None:
        """The address of the segment that holds the block; None for a block with a reservation of its own."""
        return self._segments.at(block.entry)

    def segment_numbers(self, entries: NDArray[np.uint64]) -> NDArray[np.int64]:
        """The number of the segment of each entry address, by address from 0; (n,) int64, -1 where there is none."""
        if not len(self._segments):
            return np.full(len(entries), -1, np.int64)
        spans = [(span.start, span.end) for span, _ in self._segments]
        starts, ends = np.array(spans, np.uint64).T
        found = np.searchsorted(starts, entries, side="right") - 1
        return np.where((found >= 0) & (entries < ends[found]), found, -1)

    def large_block(self, block: Block) -> LargeBlock | None:
        """The large-block record of a block of kind VIRTUAL or LARGE: the nearest one at or below its header.

        The reservation does not decide: a damaged ReserveSize reaches over other large blocks.
        """
        found = bisect_right(self._large, block.entry, key=_list_entry)
        return self._large[found - 1] if found else None
