"""The states of the blocks of one LFH subsegment whose bitmap contradicts itself or its counts: which are busy is in doubt.

Two things tell: the subsegment's count of free blocks (up to 22000), and that a free block never has the bit of a count of
unused bytes (docs/reference/heap-structures.md §6.5). Where as many free blocks have that bit as the count misses, these are
the busy ones.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable, doubt
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.lfh_bitmap import bitmap_damage, block_bits
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.kernels.row import BUSY, UNIT
from heapdump.trust import Trust

_ONE_BYTE, _COUNT_BITS = 0x8000, 0x3FFF


class DoubtfulStates:
    """Reports bitmaps of some subsegments of one heap. `changing`: see `jobs.CheckJob`; asked once at most."""

    def __init__(
        self, walk: SegmentWalk, subsegments: LfhSubsegments, padding: int, changing: Callable[[], str]
    ) -> None:
        """`padding`: bytes between the start of a block and its user data."""
        self._walk, self._subsegments, self._padding = walk, subsegments, padding
        self._changing, self._is_changing = changing, list[bool]()

    def report(self, i: int, rows: BlockTable) -> None:
        """A finding on subsegment `i`, whose blocks are `rows`; these become guesses where their states are in doubt."""
        walk, count = self._walk, len(rows)
        at, free = int(self._subsegments.start[i]), int(self._subsegments.free_count[i])
        strays, gap = self._strays(i, count), None
        more = count - int(rows.is_busy.sum()) - free if free >= 0 else 0
        is_excused = not len(strays) and abs(more) == 1 and self._may_be_changed()
        if len(strays) or (more and not is_excused) or free < 0:
            if len(strays) == more:
                self._make_busy(rows, strays)
            doubt(rows.tags, slice(None), Trust.GUESS)
            gap = f"{walk.name}: which of the {count:,} blocks of the LFH subsegment at {at:#x} are busy is in doubt: its bitmap is damaged"
        message = f"{walk.name}: the bitmap of the LFH subsegment at {at:#x} contradicts itself or its counts"
        walk.report(bitmap_damage(self._subsegments, i, count), message, gap=gap)

    def _may_be_changed(self) -> bool:
        """True while a thread may be changing the heap: ntdll changes bitmap and count one after the other."""
        if not self._is_changing:
            self._is_changing.append(bool(self._changing()))
        return self._is_changing[0]

    def _strays(self, i: int, count: int) -> NDArray[np.int64]:
        """Numbers of free blocks that have the bit of a count; ascending."""
        subsegments = self._subsegments
        start = int(subsegments.start[i]) + subsegments.struct.offset("BlockBitmap")
        end = int(subsegments.start[i]) + int(subsegments.bitmap_end(np.array([count]))[0])
        data = self._walk.view.space.try_read(start, end - start)
        if data is None:
            return np.empty(0, np.int64)
        is_busy, has_count = block_bits(subsegments, data)
        return np.flatnonzero(~is_busy[:count] & has_count[:count])

    def _make_busy(self, rows: BlockTable, chosen: NDArray[np.int64]) -> None:
        """Makes busy rows of free ones, with the counts of unused bytes at their ends."""
        size = rows.size8[chosen].astype(np.int64) * UNIT
        value, _ = self._walk.mapped.gather(rows.entry[chosen] + (size - 2).astype(np.uint64), 2)
        mark = value.astype(np.int64)
        unused = np.where(mark & _ONE_BYTE, 1, mark & _COUNT_BITS) + self._padding
        rows.unused[chosen] = np.where(unused <= size, unused, np.minimum(size, self._padding))
        rows.header8[chosen] = np.minimum(size, self._padding) // UNIT
        rows.tags[chosen] |= np.uint16(BUSY)
