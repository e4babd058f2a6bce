"""The kinds of content that one loop over the first 16 bytes of blocks decides; the others are left to arrays.

In: the block table. Out: numbers of `ContentKind`, `UNDECIDED_NUMBER` for rows that need another look.
"""

from __future__ import annotations

import threading
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.contents.recognise import format_starts
from heapdump.analyses.graph.node_places import TOP
from heapdump.analyses.graph.pointer_map import levels, shift_of
from heapdump.analyses.types.content_kind import ContentKind
from heapdump.blocks.table import BlockTable
from heapdump.kernels import block_starts, run
from heapdump.kernels.block_starts import (
    MODULE,
    OPEN,
    FileWords,
    Places,
    decide_starts,
    follow_starts,
    leave_data,
    read_starts,
)
from heapdump.kernels.pointer_map import mark_rows, take_starts
from heapdump.kernels.row import BUSY, INTERNAL, UNIT
from heapdump.large_arrays import batches, empty, zeros
from heapdump.process.model import Process, View

UNDECIDED_NUMBER = 1 << 62
_NUMBERS = np.full(10, UNDECIDED_NUMBER, np.uint64)
for _kind, _content in (
    (block_starts.EMPTY, ContentKind.EMPTY), (block_starts.ABSENT, ContentKind.ABSENT),
    (block_starts.ZEROS, ContentKind.ZEROS), (block_starts.FILL, ContentKind.FILL),
    (block_starts.MODULE, ContentKind.MODULE_POINTER), (block_starts.POINTERS, ContentKind.BLOCK_POINTERS),
    (block_starts.POINTER, ContentKind.BLOCK_POINTER), (block_starts.SMALL, ContentKind.SMALL_NUMBER),
):  # fmt: skip
    _NUMBERS[_kind] = _content.number


class QuickStarts:
    """Decides blocks of one table; several threads may call it at once."""

    def __init__(self, process: Process, table: BlockTable) -> None:
        """Makes a map of the blocks when a block may begin with a pointer: some 0.03 µs for each block."""
        self._process, self._table, self._making = process, table, threading.Lock()
        self._biggest = int(table.size8.max()) * UNIT if len(table) else 0

    def kinds(
        self, view: View, rows: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]:
        """((n,) uint64 numbers of kinds, places of MODULE_POINTER with a whole pointer, that pointer as uint64)."""
        blocks, table, pointer = len(self._table), self._table.reader(), view.pointer_bytes
        kinds, pointers = np.empty(len(rows), np.uint8), np.empty(len(rows), np.uint8)
        first, second, third, fourth = (np.empty(len(rows), np.int64) for _ in range(4))
        run(read_starts, blocks, rows, table, self._file, kinds, first, second, third, fourth)
        run(leave_data, blocks, rows, table, pointer, self._biggest, first, second, third, fourth, kinds)
        if (kinds == OPEN).any():
            with self._making:
                places = self._places
            run(follow_starts, blocks, pointer, places, table.entry, first, second, kinds, pointers)
            run(decide_starts, blocks, pointer, format_starts(), first, pointers, kinds)
        objects = np.flatnonzero(kinds == MODULE)
        objects = objects[self._table.sizes(rows[objects]) >= np.uint64(pointer)]
        return _NUMBERS[kinds], objects, (first[objects] & (-1 if pointer == 8 else 0xFFFFFFFF)).view(np.uint64)

    @cached_property
    def _file(self) -> FileWords:
        """The words that most bytes of memory lie in; the others are left undecided."""
        memory = self._process.space.mapped
        start, end = memory.starts.astype(np.int64), memory.ends.astype(np.int64)
        user = (start >= 0) & (end > 0)
        start, end, delta = start[user], end[user], (memory.file_offsets - memory.starts.astype(np.int64))[user]
        phases = np.bincount(delta % 8, (end - start).astype(np.float64), minlength=1)
        phase = int(np.argmax(phases))
        return FileWords(memory.file_words(phase), start, end, delta - phase)

    @cached_property
    def _places(self) -> Places:
        table, edges = self._table, [(span.start, span.end) for span, _ in self._process.module_map]
        module_start, module_end = np.array(edges, np.int64).reshape(-1, 2).T.copy()
        rows, leaves, none = empty(len(table), np.int32), empty(len(table), np.int64), np.empty(0, np.int64)
        count, pages, merged, crowded = run(
            take_starts, len(table), table.reader(), BUSY | INTERNAL, BUSY, TOP, rows, leaves
        )
        if count <= 0:  # heaps over each other, which is damage: pointers are left to arrays
            tops, middles = levels(none, none, none)
            return Places(module_start, module_end, tops, middles, none, 0, rows[:1], 0, TOP.bit_length() - 1, 0)
        shift, rows = shift_of(merged), rows[:count]
        tops, middles = levels(leaves[:pages].copy(), none, none)
        del leaves
        cells = zeros(pages * (65536 >> shift >> 5), np.int64)
        run(mark_rows, len(table), table.reader(), rows, shift, cells)
        low, last = table.addresses(rows[[0, -1]]).tolist()
        is_whole = count == self._count_busy()
        if is_whole and not crowded:
            rows = rows[:1].copy()
        return Places(
            module_start, module_end, tops, middles, cells, shift, rows, low, (last - low + 1).bit_length(),
            is_whole * (1 if crowded else 2),
        )  # fmt: skip

    def _count_busy(self) -> int:
        tags, mask = self._table.tags, np.uint16(BUSY | INTERNAL)
        return sum(int(np.count_nonzero((tags[part] & mask) == BUSY)) for part in batches(len(tags)))
