"""The first bytes of many blocks at once, and the blocks that pointers among them lead to.

In: rows of the block table. Out: `BlockStarts`, arrays that `block_types.py` and `containers.py` classify.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.kernels.row import BUSY, INTERNAL
from heapdump.process.model import View

START_BYTES = 16
"""Bytes of each block that are read."""
_ALIGNMENT, _ALIGNED_FROM, _MOST_PADDING = np.uint64(32), np.uint64(4096), np.uint64(64)


@dataclass(frozen=True)
class BlockData:
    """The data of blocks: all of a block, or what lies behind a header of the debug CRT.

    Attributes:
        table: the block table.
        rows: (k,) int64 rows with a header, ascending.
        address: (k,) uint64 where the data of each begins.
        size: (k,) uint64 requested bytes of each.
    """

    table: BlockTable
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    address: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    size: NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))

    def addresses(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Where the data of each row begins."""
        return self._put(self.table.addresses(rows), rows, self.address)

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """The requested bytes of each row."""
        return self._put(self.table.sizes(rows), rows, self.size)

    def have_headers(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """True for rows with a header; (n,) bool."""
        return self._places(rows)[1]

    def _put(self, values: NDArray[np.uint64], rows: NDArray[np.int64], own: NDArray[np.uint64]) -> NDArray[np.uint64]:
        if len(self.rows):
            places, has_header = self._places(rows)
            values[has_header] = own[places[has_header]]
        return values

    def _places(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not len(self.rows):
            return np.zeros(len(rows), np.int64), np.zeros(len(rows), bool)
        places = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        return places, self.rows[places] == rows


@dataclass(frozen=True)
class BlockStarts:
    """The first bytes of n blocks.

    Attributes:
        data: of all blocks.
        address: (n,) uint64 where their data begins.
        size: (n,) uint64 requested bytes.
        is_present: (n,) bool, True where the first 8 bytes are in the dump.
        raw: (n, 16) uint8 first bytes; 0 behind the requested bytes.
        known_bytes: (n,) int64 min(size, 16).
        words: ((n,) uint64 first pointer-sized word, (n,) uint64 second one).
    """

    data: BlockData
    address: NDArray[np.uint64]
    size: NDArray[np.uint64]
    is_present: NDArray[np.bool_]
    raw: NDArray[np.uint8]
    known_bytes: NDArray[np.int64]
    words: tuple[NDArray[np.uint64], NDArray[np.uint64]]

    def subset(self, places: NDArray[np.int64]) -> BlockStarts:
        """The starts at these places."""
        return BlockStarts(
            self.data, self.address[places], self.size[places], self.is_present[places], self.raw[places],
            self.known_bytes[places], (self.words[0][places], self.words[1][places]),
        )  # fmt: skip

    @cached_property
    def row_below(self) -> NDArray[np.int64]:
        """`rows_below` of the first pointer of each block."""
        return rows_below(self.data.table, self.words[0])


def read_starts(view: View, data: BlockData, rows: NDArray[np.int64]) -> BlockStarts:
    """The starts of rows, all of heaps of this view. Some 10 million rows a second."""
    address, size = data.addresses(rows), data.sizes(rows)
    first, is_present = view.space.mapped.gather(address, 8)
    second, _ = view.space.mapped.gather(address + np.uint64(8), 8)
    raw = np.stack([first, second], axis=1).view(np.uint8).reshape(-1, START_BYTES)
    known_bytes = np.minimum(size, np.uint64(START_BYTES)).astype(np.int64)
    short = np.flatnonzero(known_bytes < START_BYTES)
    raw[short] = np.where(np.arange(START_BYTES) < known_bytes[short, None], raw[short], 0)
    pointers = raw.view(f"<u{view.pointer_bytes}").astype(np.uint64)
    return BlockStarts(data, address, size, is_present, raw, known_bytes, (pointers[:, 0], pointers[:, 1]))


def starts_block(data: BlockData, words: NDArray[np.uint64], row_below: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for words that lead to the data of a busy block of the program; (n,) bool.

    `row_below`: `rows_below(data.table, words)`.
    """
    out = np.zeros(len(words), bool)
    near = np.flatnonzero(row_below >= 0)
    row = row_below[near]
    out[near] = (data.addresses(row) == words[near]) & _is_program(data.table, row)
    return out


def room_at(
    view: View, data: BlockData, words: NDArray[np.uint64], row_below: NDArray[np.int64]
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The bytes that the program can have requested for an array that begins at each word.

    An array begins where a busy block of the program begins; then least = most = requested bytes. Or it lies inside a
    larger block, aligned to 32 bytes, with the address of the block in the pointer before it: Visual C++ does so for
    arrays of 4096 bytes and more. `row_below`: `rows_below(data.table, words)`.

    Returns:
        ((n,) uint64 least bytes, (n,) uint64 most bytes); 0 for words at which no array can begin.
    """
    least, most = np.zeros(len(words), np.uint64), np.zeros(len(words), np.uint64)
    near = np.flatnonzero(row_below >= 0)
    near = near[_is_program(data.table, row_below[near])]
    row = row_below[near]
    address, array = data.addresses(row), words[near]
    size, offset = data.sizes(row), array - address
    at_start = offset == 0
    least[near[at_start]] = most[near[at_start]] = size[at_start]
    aligned = np.flatnonzero(
        ~at_start & (offset <= _MOST_PADDING) & (array % _ALIGNMENT == 0) & (size >= _ALIGNED_FROM)
    )
    before, _ = view.space.mapped.gather(array[aligned] - np.uint64(view.pointer_bytes), view.pointer_bytes)
    aligned = aligned[before == address[aligned]]
    least[near[aligned]], most[near[aligned]] = size[aligned] - _MOST_PADDING, size[aligned] - offset[aligned]
    return least, most


def rows_below(table: BlockTable, words: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The last row whose entry is at or below each word; (n,) int64, -1 for words outside all blocks' address range.

    Words are sorted first: the search is then six times as fast.
    """
    out = np.full(len(words), -1, np.int64)
    if not len(table):
        return out
    end = table.entry[-1:] + table.entry_sizes(slice(-1, None))
    near = np.flatnonzero((words >= table.entry[0]) & (words <= end))
    near = near[np.argsort(words[near])]
    out[near] = np.searchsorted(table.entry, words[near], side="right") - 1
    return out


def _is_program(table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for busy blocks that are not the allocator's own."""
    is_program: NDArray[np.bool_] = (table.tags[rows] & np.uint16(BUSY | INTERNAL)) == BUSY
    return is_program
