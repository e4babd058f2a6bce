"""Blocks that match filters, groups of blocks by size, flags in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import PAGE_DECOMMITTED, PAGE_LIGHT, Block, BlockTable
from heapdump.errors import WrongUsage
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.large_arrays import batches
from heapdump.spans import Span

_FLAG_WORDS = {0x02: "extra", 0x04: "fill", 0x10: "last", 0x20: "user1", 0x40: "user2", 0x80: "user3"}
_PAGE_FLAG_WORDS = {PAGE_LIGHT: "light", PAGE_DECOMMITTED: "decommitted"}


@dataclass(frozen=True, slots=True)
class Filter:
    """A filter of blocks; every member that is not None must hold.

    Attributes:
        heap: address of the heap.
        state: busy, free or all.
        kind: word or name of the kind.
        size: requested bytes, [low, high).
        at: addresses of user data, [start, end).
        internal: True to include blocks that the allocator uses itself.
    """

    heap: int | None = None
    state: Literal["busy", "free", "all"] = "busy"
    kind: str | None = None
    size: Span | None = None
    at: Span | None = None
    internal: bool = False


@dataclass(frozen=True, slots=True)
class SizeGroup:
    """Blocks of one size.

    Attributes:
        size: requested bytes of each.
        count: number of blocks.
        bytes: requested bytes of all.
        share: bytes / bytes of all groups, 0 to 1.
    """

    size: int
    count: int
    bytes: int
    share: float


def select(table: BlockTable, heaps: Sequence[Heap], wanted: Filter) -> NDArray[np.int64]:
    """The rows of the blocks that match, (n,) int64, ascending by address.

    Raises:
        WrongUsage: no heap at that address.
    """
    heap = None if wanted.heap is None else heap_index(heaps, wanted.heap)
    keep = np.empty(len(table), bool)
    for part in batches(len(table)):
        keep[part] = _matches(table.part(part.start, part.stop), wanted, heap)
    return np.flatnonzero(keep)


def _matches(table: BlockTable, wanted: Filter, heap: int | None) -> NDArray[np.bool_]:
    """True for the rows that match; (n,) bool. `heap`: index of the heap, None for all."""
    bits = BUSY * (wanted.state != "all") | INTERNAL * (not wanted.internal)
    keep: NDArray[np.bool_] = (table.tags & np.uint16(bits)) == np.uint16(BUSY * (wanted.state == "busy"))
    if heap is not None:
        keep &= table.heap == heap
    if wanted.kind is not None:
        keep &= np.isin(table.kind, [kind for kind in BlockKind.known() if wanted.kind in (kind.word, kind.name)])
    if wanted.size is not None:
        sizes = table.size
        keep &= (sizes >= np.uint64(wanted.size.start)) & (sizes < np.uint64(wanted.size.end))
    if wanted.at is not None:
        address = table.address
        keep &= (address >= np.uint64(wanted.at.start)) & (address < np.uint64(wanted.at.end))
    return keep


def heap_index(heaps: Sequence[Heap], address: int) -> int:
    """The index of the heap with that handle.

    Raises:
        WrongUsage: there is none; the message names some that are.
    """
    for heap in heaps:
        if heap.address == address:
            return heap.index
    if not heaps:
        raise WrongUsage(f"no heap at {address:#x}: no heap is known in this dump")
    known = ", ".join(f"{heap.address:#x}" for heap in heaps[:5])
    raise WrongUsage(f"no heap at {address:#x}; there are: {known}{' …' if len(heaps) > 5 else ''}")


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
    """The flags of the entry in words; `pages`: made of whole page ranges; `internal`: a block of the allocator."""
    known = _PAGE_FLAG_WORDS if block.kind in (BlockKind.PAGE, BlockKind.LIGHT) else _FLAG_WORDS
    words = [word for bit, word in known.items() if block.flags & bit]
    pages = ["pages"] if block.kind == BlockKind.PAGES else []
    return [*words, *pages, *(["internal"] if block.is_internal else [])]
