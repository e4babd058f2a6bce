"""Blocks that match filters, groups of them by size, and what lies at an address."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap, LargeBlock
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import PAGE_DECOMMITTED, PAGE_LIGHT, Block, BlockTable
from heapdump.errors import WrongUsage
from heapdump.kernels.row import INTERNAL
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span, SpanMap

_PAGE = 0x1000
_list_entry = attrgetter("list_entry")
Relation = Literal["user", "header", "slack", "free", "guard", "outside"]
_FLAG_WORDS = {0x02: "extra", 0x04: "fill", 0x10: "last", 0x20: "user1", 0x40: "user2", 0x80: "user3"}
_PAGE_FLAG_WORDS = {PAGE_LIGHT: "light", PAGE_DECOMMITTED: "decommitted"}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which blocks are wanted; every given one must hold. `size` in requested bytes, `at` addresses, both half-open.

    `kind`: a kind's JSON name.
    """

    heap: int | None = None
    state: Literal["busy", "free", "all"] = "busy"
    kind: str | None = None
    size: Span | None = None
    at: Span | None = None
    internal: bool = False


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Blocks of one requested size: `bytes` of all of them, `share` of all bytes in the groups."""

    size: int
    count: int
    bytes: int
    share: float


@dataclass(frozen=True, slots=True)
class Located:
    """What is at an address: the block, where in it, and the nearest blocks before and after."""

    relation: Relation
    block: Block | None
    offset: int | None
    neighbours: tuple[Block, ...]


def select(table: BlockTable, heaps: Sequence[Heap], wanted: Filter) -> NDArray[np.int64]:
    """Rows that match, ascending by address.

    Raises:
        WrongUsage: no heap at that address.
    """
    keep = np.ones(len(table), bool) if wanted.internal else ~table.is_internal
    if wanted.state != "all":
        keep &= table.is_busy == (wanted.state == "busy")
    if wanted.heap is not None:
        keep &= table.heap == heap_index(heaps, wanted.heap)
    if wanted.kind is not None:
        keep &= np.isin(table.kind, [kind for kind in BlockKind.known() if wanted.kind in (kind.word, kind.name)])
    if wanted.size is not None:
        sizes = table.size
        keep &= (sizes >= np.uint64(wanted.size.start)) & (sizes < np.uint64(wanted.size.end))
    if wanted.at is not None:
        address = table.address
        keep &= (address >= np.uint64(wanted.at.start)) & (address < np.uint64(wanted.at.end))
    return np.flatnonzero(keep)


def heap_index(heaps: Sequence[Heap], address: int) -> int:
    """The index of the heap with that handle.

    Raises:
        WrongUsage: there is none; the message names some that are.
    """
    for heap in heaps:
        if heap.address == address:
            return heap.index
    known = ", ".join(f"{heap.address:#x}" for heap in heaps[:5])
    raise WrongUsage(f"no heap at {address:#x}; there are: {known or 'none'}{' …' if len(heaps) > 5 else ''}")


def by_size(table: BlockTable, rows: NDArray[np.int64]) -> tuple[SizeGroup, ...]:
    """The rows grouped by requested size, most bytes first, as `!heap -stat` does."""
    sizes, counts = np.unique(table.size[rows], return_counts=True)
    total = int(sum(int(s) * int(c) for s, c in zip(sizes.tolist(), counts.tolist(), strict=True)))
    groups = [
        SizeGroup(size, count, size * count, size * count / total if total else 0.0)
        for size, count in zip(sizes.tolist(), counts.tolist(), strict=True)
    ]
    return tuple(sorted(groups, key=lambda group: (-group.bytes, -group.size)))


def flag_words(block: Block) -> list[str]:
    """The entry's flags in words; `pages` for whole page ranges of a segment heap, `internal` for the allocator's own."""
    known = _PAGE_FLAG_WORDS if block.kind in (BlockKind.PAGE, BlockKind.LIGHT) else _FLAG_WORDS
    words = [word for bit, word in known.items() if block.flags & bit]
    whole = ["pages"] if block.kind == BlockKind.PAGES else []
    return [*words, *whole, *(["internal"] if block.is_internal else [])]


class Owners:
    """Finds what holds a block: its segment, or its entry of the large-block list. Binary searches."""

    def __init__(self, heaps: Sequence[Heap]) -> None:
        """Sorts the segments and large blocks of all heaps once."""
        self._segments = SpanMap((s.span, s.address) for heap in heaps for s in heap.segments)
        self._large = sorted((b for heap in heaps for b in heap.large_blocks or ()), key=_list_entry)

    def segment(self, block: Block) -> int | None:
        """Address of the segment that holds the block; None for blocks with a reservation of their own."""
        return self._segments.at(block.entry)

    def large_block(self, block: Block) -> LargeBlock | None:
        """The entry of the large-block list behind a block of kind VIRTUAL or LARGE: the nearest one below its header.

        Not by reservation: a damaged ReserveSize reaches over other large blocks.
        """
        found = bisect_right(self._large, block.entry, key=_list_entry)
        return self._large[found - 1] if found else None


def locate(table: BlockTable, space: AddressSpace, address: int) -> Located:
    """What owns an address: the innermost block, or none with the nearest ones."""
    rows = table.at(address)
    program = [row for row in rows if not table.tags[row] & INTERNAL]
    row = next(iter(program or rows), None)
    if (asked_for := _asked_for(table, address)) is not None:
        row = asked_for
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
        relation = "user" if offset < block.size else "slack"
    return Located(relation, block, offset, neighbours)


def _in_page_heap(table: BlockTable, address: int) -> Located | None:
    """The block with pages of its own whose guard page, or first page before its header, holds the address."""
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
    """The inaccessible page of a block under full page heap: behind it, or before it where the block has no header."""
    if block.entry == block.address:
        return Span(block.entry - _PAGE, block.entry)
    end = block.end // _PAGE * _PAGE
    return Span(end, end + _PAGE)


def _asked_for(table: BlockTable, address: int) -> int | None:
    """The busy block of the program whose requested bytes hold the address.

    On x64 they reach 8 bytes behind the block: into the next one's header, or behind the last slot of a subsegment.
    """
    last = int(np.searchsorted(table.entry, np.uint64(address), side="right")) - 1
    for row in range(last, max(-1, last - 3), -1):
        block = table.block(row)
        if not block.is_internal and block.state == "busy" and block.address <= address < block.address + block.size:
            return row
    return None


def _neighbours(table: BlockTable, address: int, row: int | None) -> tuple[Block, ...]:
    """The block before and the one after, internal ones left out."""
    here = row if row is not None else int(np.searchsorted(table.entry, np.uint64(address), side="right"))
    near = (table.program_row(here - 1, -1), table.program_row(here + (row is not None), 1))
    return tuple(table.block(i) for i in near if i is not None)
