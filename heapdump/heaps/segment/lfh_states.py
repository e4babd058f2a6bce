"""Decides the states of the blocks of an LFH subsegment whose bitmap contradicts itself or the subsegment's counts.

There are two more witnesses: the subsegment's number of free blocks (up to 22000), and the *count* bit, which no free
block has (docs/reference/heap-structures.md §6.5). Where exactly as many free blocks have that bit as the number of
free blocks is too small, these blocks are busy.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.lfh_bitmap import bitmap_damage, block_bits
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.kernels.row import BUSY, UNIT
from heapdump.trust import Trust

_ONE_BYTE, _COUNT_BITS = 0x8000, 0x3FFF


class DoubtfulStates:
    """Reports bitmaps of subsegments of one heap."""

    def __init__(
        self, walk: SegmentWalk, subsegments: LfhSubsegments, padding: int, changing: Callable[[], str]
    ) -> None:
        """`padding`: bytes from the start of a block to its user data; `changing`: see `jobs.CheckJob`, called once."""
        self._walk, self._subsegments, self._padding = walk, subsegments, padding
        self._changing, self._is_changing = changing, list[bool]()

    def report(self, i: int, rows: BlockTable) -> None:
        """Adds a finding about subsegment `i`. `rows`: its blocks; they become guesses where states are in doubt."""
        walk, count = self._walk, len(rows)
        at, free = int(self._subsegments.start[i]), int(self._subsegments.free_count[i])
        strays, gap = self._free_with_count(i, count), None
        more = count - int(rows.is_busy.sum()) - free if free >= 0 else 0
        is_excused = not len(strays) and abs(more) == 1 and self._may_be_changed()
        if len(strays) or (more and not is_excused) or free < 0:
            if len(strays) == more:
                self._make_busy(rows, strays)
            lower_trust(rows.tags, slice(None), Trust.GUESS)
            gap = (
                f"{walk.name}: which of the {count:,} blocks of the LFH subsegment at {at:#x} are busy is in doubt: "
                "its bitmap is damaged"
            )
        message = f"{walk.name}: the bitmap of the LFH subsegment at {at:#x} contradicts itself or its counts"
        walk.report(bitmap_damage(self._subsegments, i, count), message, gap=gap)

    def _may_be_changed(self) -> bool:
        """True where a thread may be changing the heap: ntdll writes the bitmap and the count one after the other."""
        if not self._is_changing:
            self._is_changing.append(bool(self._changing()))
        return self._is_changing[0]

    def _free_with_count(self, i: int, count: int) -> NDArray[np.int64]:
        """Numbers of free blocks whose *count* bit is set; ascending."""
        subsegments = self._subsegments
        start = int(subsegments.start[i]) + subsegments.struct.offset("BlockBitmap")
        end = int(subsegments.start[i]) + int(subsegments.bitmap_end(np.array([count]))[0])
        data = self._walk.view.space.try_read(start, end - start)
        if data is None:
            return np.empty(0, np.int64)
        is_busy, has_count = block_bits(subsegments, data)
        return np.flatnonzero(~is_busy[:count] & has_count[:count])

    def _make_busy(self, rows: BlockTable, chosen: NDArray[np.int64]) -> None:
        """Makes the `chosen` free rows busy, with the counts of unused bytes at their ends."""
        size = rows.size8[chosen].astype(np.int64) * UNIT
        value, _ = self._walk.mapped.gather(rows.entry[chosen] + (size - 2).astype(np.uint64), 2)
        mark = value.astype(np.int64)
        unused = np.where(mark & _ONE_BYTE, 1, mark & _COUNT_BITS) + self._padding
        rows.unused[chosen] = np.where(unused <= size, unused, np.minimum(size, self._padding))
        rows.header8[chosen] = np.minimum(size, self._padding) // UNIT
        rows.tags[chosen] |= np.uint16(BUSY)
