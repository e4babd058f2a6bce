"""Light page heap blocks: inside a busy block of the ordinary heap, behind a `_DPH_BLOCK_INFORMATION` with stamps.

    block of the ordinary heap:  | StartStamp Heap RequestedSize … StackTrace EndStamp | user data | suffix A0… |

The top bit of `Heap` is set (every recorded dump of XP and 19041).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.allocator import PAGE
from heapdump.layouts import Layout
from heapdump.process.model import View

BUSY_STAMPS = (0xABCDAAAA, 0xDCBAAAAA)
FREED_STAMPS = (0xABCDAAA9, 0xDCBAAAA9)


@dataclass(frozen=True, slots=True)
class LightBlocks:
    """Light blocks of one page heap, in the order of `rows`, their carriers' rows; columns of one length n.

    `start`: of the block information, uint64; `room`: bytes from there to the end of the carrier, `size`: requested
    ones, both int64; `trace`: record of the stack that allocated it, or freed it, uint64; `is_sound`: both stamps hold.
    """

    rows: NDArray[np.int64]
    start: NDArray[np.uint64]
    room: NDArray[np.int64]
    size: NDArray[np.int64]
    trace: NDArray[np.uint64]
    is_busy: NDArray[np.bool_]
    is_sound: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.rows)


def light_blocks(view: View, layout: Layout, heap: int, table: BlockTable, carriers: NDArray[np.int64]) -> LightBlocks:
    """Those of the page heap with that handle among the rows `carriers`, busy blocks of the heap behind it.

    A block needs two of three witnesses: its heap's root in `Heap`, its start stamp, its end stamp; and a size that fits.
    """
    struct = layout["_DPH_BLOCK_INFORMATION"]
    start = table.address[carriers]
    room = (table.entry[carriers] + table.entry_size[carriers] - start).astype(np.int64)

    def member(name: str) -> NDArray[np.uint64]:
        """A member of the block information in every carrier."""
        field = struct.fields[name]
        size = {"u32": 4, "u64": 8}.get(field.type, view.pointer_bytes)
        return view.space.mapped.gather(start + np.uint64(field.offset), size)[0]

    top = np.uint64(1 << 8 * view.pointer_bytes - 1)
    is_mine = member("Heap") == np.uint64(heap + PAGE) | top
    first, last, size = member("StartStamp"), member("EndStamp"), member("RequestedSize").astype(np.int64)
    busy = (first == BUSY_STAMPS[0]).astype(int) + (last == BUSY_STAMPS[1]).astype(int)
    freed = (first == FREED_STAMPS[0]).astype(int) + (last == FREED_STAMPS[1]).astype(int)
    fits = (size >= 0) & (size <= room - struct.size)
    found = fits & is_mine & (np.maximum(busy, freed) > 0) & (busy != freed)
    return LightBlocks(
        carriers[found], start[found], room[found], size[found], member("StackTrace")[found],
        (busy > freed)[found], (np.maximum(busy, freed) == 2)[found],
    )  # fmt: skip


def carriers_of(table: BlockTable, heap: int) -> NDArray[np.int64]:
    """Rows of the ordinary heap (its index) that may hold light blocks: busy, not its own."""
    mine = (table.heap == heap) & table.is_busy & ~table.is_internal
    return np.flatnonzero(mine & np.isin(table.kind, _CARRIERS))


_CARRIERS = [BlockKind.BACKEND, BlockKind.LFH, BlockKind.VIRTUAL]
