"""The first bytes of many blocks at once, and which blocks the pointers among them lead to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BUSY, INTERNAL, BlockTable
from heapdump.process.model import View

HEAD_BYTES = 16


@dataclass(frozen=True)
class Heads:
    """Of n blocks: `address`, `size` (n,) uint64 what the program got and asked for; `there` (n,) bool, in the dump.

    `raw`: (n, 16) uint8, the first requested bytes; zero where a block has fewer, which `known` (n,) int64 says.
    `words`: the first two pointers, (n,) uint64 each. `table`: of all blocks.
    """

    table: BlockTable
    address: NDArray[np.uint64]
    size: NDArray[np.uint64]
    there: NDArray[np.bool_]
    raw: NDArray[np.uint8]
    known: NDArray[np.int64]
    words: tuple[NDArray[np.uint64], NDArray[np.uint64]]

    def part(self, some: NDArray[np.int64]) -> Heads:
        """Of some of the blocks, by their places."""
        words = (self.words[0][some], self.words[1][some])
        return Heads(
            self.table, self.address[some], self.size[some], self.there[some], self.raw[some], self.known[some], words
        )

    @cached_property
    def row_below(self) -> NDArray[np.int64]:
        """Of the first pointer of each block: see `rows_below`."""
        return rows_below(self.table, self.words[0])


def heads_of(view: View, table: BlockTable, rows: NDArray[np.int64]) -> Heads:
    """The first bytes of the rows, all of heaps of this view. Some 10 million a second."""
    lead, units = table.header8[rows].astype(np.uint64), table.size8[rows].astype(np.uint64)
    address = table.entry[rows] + lead * np.uint64(8)
    size = units * np.uint64(8) - table.unused[rows]
    first, there = view.space.mapped.gather(address, 8)
    second, _ = view.space.mapped.gather(address + np.uint64(8), 8)
    raw = np.stack([first, second], axis=1).view(np.uint8).reshape(-1, HEAD_BYTES)
    known = np.minimum(size, np.uint64(HEAD_BYTES)).astype(np.int64)
    short = np.flatnonzero(known < HEAD_BYTES)
    raw[short] = np.where(np.arange(HEAD_BYTES) < known[short, None], raw[short], 0)
    pointers = raw.view(f"<u{view.pointer_bytes}").astype(np.uint64)
    return Heads(table, address, size, there, raw, known, (pointers[:, 0], pointers[:, 1]))


def starts_block(table: BlockTable, words: NDArray[np.uint64], row_below: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Words that are the address of a busy block of the program; (n,) bool. `row_below`: of the words, see `rows_below`."""
    out = np.zeros(len(words), bool)
    near = np.flatnonzero(row_below >= 0)
    row = row_below[near]
    out[near] = (_addresses(table, row) == words[near]) & _is_program(table, row)
    return out


def room_at(
    view: View, table: BlockTable, words: NDArray[np.uint64], row_below: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """(least, most) bytes that an array at each word can have been made for; (n,) uint64 each, 0 where none is there.

    Those of the program's busy block that begins there. The C++ library aligns arrays of 4 KiB and more to 32 bytes
    inside a larger block, whose address it keeps before them.
    """
    least, most = np.zeros(len(words), np.uint64), np.zeros(len(words), np.uint64)
    near = np.flatnonzero(row_below >= 0)
    near = near[_is_program(table, row_below[near])]
    row = row_below[near]
    address, at = _addresses(table, row), words[near]
    size, offset = table.size8[row].astype(np.uint64) * np.uint64(8) - table.unused[row], at - address
    whole = offset == 0
    least[near[whole]] = most[near[whole]] = size[whole]
    aligned = np.flatnonzero(~whole & (offset <= _MOST_PADDING) & (at % _ALIGNMENT == 0) & (size >= _ALIGNED_FROM))
    kept, _ = view.space.mapped.gather(at[aligned] - np.uint64(view.pointer_bytes), view.pointer_bytes)
    aligned = aligned[kept == address[aligned]]
    least[near[aligned]], most[near[aligned]] = size[aligned] - _MOST_PADDING, size[aligned] - offset[aligned]
    return least, most


_ALIGNMENT, _ALIGNED_FROM, _MOST_PADDING = np.uint64(32), np.uint64(4096), np.uint64(64)


def rows_below(table: BlockTable, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The last row whose entry is at or below each word, -1 for words before the first or far behind the last; (n,) int64.

    Words are looked up in their order, which is six times as fast as in any.
    """
    out = np.full(len(words), -1, np.int64)
    if not len(table):
        return out
    end = table.entry[-1:] + table.size8[-1:].astype(np.uint64) * np.uint64(8)
    near = np.flatnonzero((words >= table.entry[0]) & (words <= end))
    near = near[np.argsort(words[near])]
    out[near] = np.searchsorted(table.entry, words[near], side="right") - 1
    return out


def _addresses(table: BlockTable, row: NDArray[np.int64]) -> NDArray[np.uint64]:
    address: NDArray[np.uint64] = table.entry[row] + table.header8[row].astype(np.uint64) * np.uint64(8)
    return address


def _is_program(table: BlockTable, row: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Busy, and not the allocator's own."""
    own: NDArray[np.bool_] = (table.tags[row] & np.uint16(BUSY | INTERNAL)) == BUSY
    return own
