"""Recognises pointers behind the start of a block that stand for the block, because a header precedes the data.

    aligned memory   the word before the pointer is the start of the block: Rust's allocator for alignments above 16
                     bytes (8 in 32-bit programs), _aligned_malloc; in debug builds bytes ed stand between them
    new[]            the first word of the block is the number of objects, which divides the bytes behind it; the
                     pointer leads to these bytes
    inner vtable     a COM object or another one with several bases: at the start and at the pointer lie tables of
                     functions, whose first functions are code of modules

Sources: Rust's library/std/src/sys/alloc/windows.rs, the UCRT's align.cpp, MSVC's array cookies. Words that are not in
the dump are no evidence: the pointer then stays one to the inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.node_places import Integers, Places
from heapdump.process.model import Process

_FARTHEST = 4096 + 32
"""Bytes from the start of a block up to which a header is looked for: an alignment of a page."""

_FARTHEST_TABLE = 256
_GAP = {8: 0xEDEDEDEDEDEDEDED, 4: 0xEDEDEDED}


@dataclass(frozen=True)
class InnerStarts:
    """Tells which pointers into blocks stand for them. `places`: of the blocks."""

    process: Process
    places: Places

    def stand_for(self, values: NDArray[np.int64], blocks: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """(k,) bool for pointers with these values into these blocks, none to a start; `width`: bytes of a pointer."""
        start = self.places.starts(blocks)
        offset = values - start
        is_near = (offset <= _FARTHEST) & (offset % width == 0)
        out = np.zeros(len(values), bool)
        aligned = np.flatnonzero(is_near & (values % (2 * width) == 0))
        out[aligned] = self._aligned(values[aligned], start[aligned], width)
        counted = np.flatnonzero(offset == width)
        out[counted] |= self._counted(start[counted], self.places.sizes(blocks[counted]), width)
        tables = np.flatnonzero(is_near & ~out & (offset <= _FARTHEST_TABLE))
        tables = tables[self._has_table(values[tables], width)]
        out[tables] = self._has_table(start[tables], width)
        return out

    def _words(self, at: NDArray[np.int64], width: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        return self.process.space.mapped.gather(at.astype(np.uint64), width)

    def _aligned(self, at: NDArray[np.int64], start: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """The block's start stands before the pointer, but not twice, as in an empty list of nodes."""
        own = start.astype(np.uint64)
        last, _ = self._words(at - width, width)
        one_before, _ = self._words(at - 2 * width, width)
        is_gap = (last == np.uint64(_GAP[width])) & (one_before == own)
        found: NDArray[np.bool_] = is_gap | ((last == own) & (one_before != own))
        return found

    def _counted(self, start: NDArray[np.int64], size: Integers, width: int) -> NDArray[np.bool_]:
        """The first word divides the bytes behind it."""
        count, is_there = self._words(start, width)
        rest = np.maximum(size.astype(np.int64) - width, 0).astype(np.uint64)
        divides = rest % np.maximum(count, np.uint64(1)) == 0
        found: NDArray[np.bool_] = is_there & (count > 0) & (count <= rest) & divides
        return found

    def _has_table(self, at: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
        """True where a pointer to a table of functions lies: both it and the first function are in modules."""
        table, _ = self._words(at, width)
        inside = np.flatnonzero(self.process.in_modules(table))
        out = np.zeros(len(at), bool)
        function, _ = self._words(table[inside].astype(np.int64), width)
        out[inside] = self.process.in_modules(function)
        return out
