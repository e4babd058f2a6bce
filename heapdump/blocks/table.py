"""The block table: every block of every heap as numpy columns, sorted by the address of its entry.

21 bytes a row. Made by `columns.py`, never changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.kernels.row import (
    BUSY,
    FLAGS_SHIFT,
    INTERNAL,
    KIND_MASK,
    TRUST_MASK,
    TRUST_SHIFT,
    UNIT,
    RowReader,
    RowWriter,
)
from heapdump.trust import Trust

PAGE_LIGHT, PAGE_DECOMMITTED = 0x02, 0x04
"""Entry flags of page heap blocks: a light block, inside a block of the ordinary heap; a freed block whose pages are
decommitted."""

_TRUSTS = (Trust.EXACT, Trust.DERIVED, Trust.GUESS, Trust.GUESS)
"""Trust by the value of bits 6-7 of `tags`."""


@dataclass(frozen=True, slots=True)
class Block:
    """One row of the block table, decoded.

    Attributes:
        row: number of the row.
        entry: address of the block's first byte: of its header where it has one.
        address: of the user data: the pointer that the program got.
        size: requested bytes; of a free block the bytes behind its header.
        entry_size: occupied bytes, header included.
        heap: index of the heap (`Heap.index`).
        kind: the part of the allocator that owns the block.
        state: busy or free.
        is_internal: True for a block that the allocator uses itself.
        flags: entry flags, 8 bits, as the allocator's format defines them.
        trust: how far the row can be relied on.
    """

    row: int
    entry: int
    address: int
    size: int
    entry_size: int
    heap: int
    kind: BlockKind
    state: Literal["busy", "free"]
    is_internal: bool
    flags: int
    trust: Trust

    @property
    def end(self) -> int:
        """First address behind the entry."""
        return self.entry + self.entry_size


COLUMNS: dict[str, type[np.generic]] = {
    "entry": np.uint64, "size8": np.uint32, "unused": np.uint32, "header8": np.uint8, "heap": np.uint16,
    "tags": np.uint16,
}  # fmt: skip
"""The columns of a block table and their types, in the order of its fields; `kernels.row` defines their meaning."""


@dataclass(frozen=True)
class BlockTable:
    """Columns of one length n, ascending by `entry`; `kernels.row` defines their units and the bits of `tags`.

    Attributes:
        entry: (n,) uint64 address of the block's first byte, its header where it has one.
        size8: (n,) uint32 occupied bytes / UNIT.
        unused: (n,) uint32 occupied bytes that the program did not ask for, header included.
        header8: (n,) uint8 bytes from entry to user data / UNIT.
        heap: (n,) uint16 index of the heap.
        tags: (n,) uint16 kind, busy, internal, trust, entry flags.
    """

    entry: NDArray[np.uint64]
    size8: NDArray[np.uint32]
    unused: NDArray[np.uint32]
    header8: NDArray[np.uint8]
    heap: NDArray[np.uint16]
    tags: NDArray[np.uint16]

    def __len__(self) -> int:
        """The number of blocks, internal ones included."""
        return len(self.entry)

    def columns(self) -> tuple[NDArray[Any], ...]:
        """All columns, in the order of `COLUMNS`; no copies."""
        return self.entry, self.size8, self.unused, self.header8, self.heap, self.tags

    def part(self, low: int, high: int) -> BlockTable:
        """The rows [low, high) as a table; no copy."""
        return BlockTable(*(column[low:high] for column in self.columns()))

    def writer(self) -> RowWriter:
        """The columns that kernels write: all but `heap`. Only for a table that `BlockColumns` still fills."""
        return RowWriter(self.entry, self.size8, self.unused, self.header8, self.tags)

    def reader(self) -> RowReader:
        """The columns as kernels read them, `entry` as int64; no copy."""
        return RowReader(self.entry.view(np.int64), self.size8, self.unused, self.header8, self.heap, self.tags)

    @property
    def address(self) -> NDArray[np.uint64]:
        """Addresses of the user data, which the program got; (n,) uint64."""
        return self.addresses(slice(None))

    @property
    def entry_size(self) -> NDArray[np.uint64]:
        """Occupied bytes; (n,) uint64."""
        return self.entry_sizes(slice(None))

    @property
    def size(self) -> NDArray[np.uint64]:
        """Requested bytes; (n,) uint64."""
        return self.sizes(slice(None))

    def addresses(self, rows: NDArray[np.integer] | slice) -> NDArray[np.uint64]:
        """Addresses of the user data of some rows; (rows,) uint64."""
        return self.entry[rows] + self.header8[rows].astype(np.uint64) * np.uint64(UNIT)

    def entry_sizes(self, rows: NDArray[np.integer] | slice) -> NDArray[np.uint64]:
        """Occupied bytes of some rows; (rows,) uint64."""
        return self.size8[rows].astype(np.uint64) * np.uint64(UNIT)

    def sizes(self, rows: NDArray[np.integer] | slice) -> NDArray[np.uint64]:
        """Requested bytes of some rows; (rows,) uint64."""
        return self.entry_sizes(rows) - self.unused[rows]

    @property
    def kind(self) -> NDArray[np.uint16]:
        """`BlockKind` values; (n,) uint16."""
        return self.tags & np.uint16(KIND_MASK)

    @property
    def is_busy(self) -> NDArray[np.bool_]:
        """True for allocated blocks, of the program or of the allocator itself; (n,) bool."""
        return (self.tags & np.uint16(BUSY)).astype(bool)

    @property
    def is_internal(self) -> NDArray[np.bool_]:
        """True for blocks that the allocator uses itself; (n,) bool."""
        return (self.tags & np.uint16(INTERNAL)).astype(bool)

    @cached_property
    def internal_rows(self) -> NDArray[np.int64]:
        """Rows of the blocks that the allocator uses itself, ascending; (m,) int64. Computed once."""
        return np.flatnonzero(self.tags & np.uint16(INTERNAL))

    def program_row(self, row: int, step: Literal[-1, 1]) -> int | None:
        """The nearest row that is not internal, from `row` on upwards (step 1) or downwards (step -1); or None."""
        width = _NESTING
        while 0 <= row < len(self):
            tags = self.tags[row : row + width] if step > 0 else self.tags[max(0, row + 1 - width) : row + 1][::-1]
            found = np.flatnonzero(tags & np.uint16(INTERNAL) == 0)
            if len(found):
                return row + step * int(found[0])
            row, width = row + step * len(tags), 2 * width
        return None

    def block(self, row: int) -> Block:
        """One row, decoded."""
        return _block((int(row), *[int(column[row]) for column in self.columns()]))

    def blocks(self, rows: NDArray[np.int64]) -> Iterator[Block]:
        """The given rows, decoded, in the given order."""
        for first in range(0, len(rows), _BATCH):
            batch = rows[first : first + _BATCH]
            values = zip(batch.tolist(), *(column[batch].tolist() for column in self.columns()), strict=True)
            yield from map(_block, values)

    def at(self, address: int) -> list[int]:
        """Rows of the blocks that occupy the address, innermost first.

        There can be two or more: LFH blocks and VS chunks lie inside internal blocks.
        """
        row = int(np.searchsorted(self.entry, np.uint64(address), side="right")) - 1
        near = range(row, max(-1, row - _NESTING), -1)
        found = [i for i in near if address < int(self.entry[i]) + int(self.size8[i]) * UNIT]
        outer = self._enclosing(row, address)
        return [*found, *([outer] if outer is not None and outer not in found else [])]

    def _enclosing(self, row: int, address: int) -> int | None:
        """The row of the internal block that occupies the address; None for none. It begins at or before `row`."""
        behind = int(np.searchsorted(self.internal_rows, row, side="right"))
        for candidate in self.internal_rows[max(0, behind - _NESTING) : behind][::-1].tolist():
            if address < int(self.entry[candidate]) + int(self.size8[candidate]) * UNIT:
                return int(candidate)
        return None


def _block(values: tuple[int, ...]) -> Block:
    """One row, decoded. `values`: its number, and the values of its columns."""
    row, entry, size8, unused, header8, heap, tags = values
    return Block(
        row, entry, entry + header8 * UNIT, size8 * UNIT - unused, size8 * UNIT, heap, BlockKind.of(tags & KIND_MASK),
        "busy" if tags & BUSY else "free", bool(tags & INTERNAL), tags >> FLAGS_SHIFT,
        _TRUSTS[(tags & TRUST_MASK) >> TRUST_SHIFT],
    )  # fmt: skip


_NESTING = 4
"""Number of rows before an address that are asked whether they occupy it, because blocks lie inside each other."""

_BATCH = 4096


def tag(kind: BlockKind, *, busy: bool = False, internal: bool = False, trust: Trust = Trust.EXACT) -> int:
    """The `tags` of a row without entry flags."""
    return int(kind) | BUSY * busy | INTERNAL * internal | _TRUSTS.index(trust) << TRUST_SHIFT


def lower_trust(tags: NDArray[np.uint16], which: NDArray[np.bool_] | NDArray[np.integer] | slice, trust: Trust) -> None:
    """Lowers the trust of the chosen rows' tags to `trust`, in place; rows of lower trust stay as they are.

    `which`: a mask of all rows, their numbers, or a slice.
    """
    mask, level = np.uint16(TRUST_MASK), np.uint16(_TRUSTS.index(trust) << TRUST_SHIFT)
    tags[which] = (tags[which] & ~mask) | np.maximum(tags[which] & mask, level)
