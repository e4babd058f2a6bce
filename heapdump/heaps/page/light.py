"""Light blocks: inside a busy block of the ordinary heap, its *host*, behind a _DPH_BLOCK_INFORMATION with stamps.

    host:  | StartStamp Heap RequestedSize … StackTrace EndStamp | user data | suffix A0… |

Source: docs/reference/heap-structures.md §5.1 and §5.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.page.structures import light_heap_member, members
from heapdump.layouts import Layout
from heapdump.process.model import View

BUSY_STAMPS = (0xABCDAAAA, 0xDCBAAAAA)
FREED_STAMPS = (0xABCDAAA9, 0xDCBAAAA9)
"""StartStamp and EndStamp, 32 bits each."""

_HOST_KINDS = [BlockKind.BACKEND, BlockKind.LFH, BlockKind.VIRTUAL]


@dataclass(frozen=True, slots=True)
class LightBlocks:
    """n light blocks of one page heap, in the order of their hosts.

    Attributes:
        rows: (n,) int64 rows of the hosts.
        start: (n,) uint64 addresses of the block information.
        room: (n,) int64 bytes from `start` to the end of the host.
        size: (n,) int64 requested bytes.
        trace: (n,) uint64 address of the record of a stack: of a busy block the stack that allocated it, of a freed
            block the stack that freed it; 0 for none.
        is_busy: (n,) bool.
        has_both_stamps: (n,) bool, True where neither stamp is damaged.
    """

    rows: NDArray[np.int64]
    start: NDArray[np.uint64]
    room: NDArray[np.int64]
    size: NDArray[np.int64]
    trace: NDArray[np.uint64]
    is_busy: NDArray[np.bool_]
    has_both_stamps: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.rows)


def light_blocks(view: View, layout: Layout, heap: int, table: BlockTable, hosts: NDArray[np.int64]) -> LightBlocks:
    """The light blocks of the page heap with handle `heap` in the rows `hosts`.

    A host holds a light block where three facts hold: the member Heap names the root of the heap, one of the two stamps
    is right, and the size fits into the host.
    """
    struct = layout["_DPH_BLOCK_INFORMATION"]
    start = table.address[hosts]
    room = (table.entry[hosts] + table.entry_size[hosts] - start).astype(np.int64)
    heap_member, start_stamp, end_stamp, requested, trace = (
        members(view, struct, start, name) for name in ("Heap", "StartStamp", "EndStamp", "RequestedSize", "StackTrace")
    )
    size = requested.astype(np.int64)
    busy_stamps = (start_stamp == BUSY_STAMPS[0]).astype(int) + (end_stamp == BUSY_STAMPS[1]).astype(int)
    freed_stamps = (start_stamp == FREED_STAMPS[0]).astype(int) + (end_stamp == FREED_STAMPS[1]).astype(int)
    stamps = np.maximum(busy_stamps, freed_stamps)
    fits = (size >= 0) & (size <= room - struct.size)
    names_root = heap_member == np.uint64(light_heap_member(view, heap))
    found = fits & names_root & (stamps > 0) & (busy_stamps != freed_stamps)
    return LightBlocks(
        hosts[found], start[found], room[found], size[found], trace[found], (busy_stamps > freed_stamps)[found],
        (stamps == 2)[found],
    )  # fmt: skip


def hosts_of(table: BlockTable, heap: int) -> NDArray[np.int64]:
    """Rows of the ordinary heap with index `heap` that may hold light blocks: busy ones that are not internal."""
    program = (table.heap == heap) & table.is_busy & ~table.is_internal
    return np.flatnonzero(program & np.isin(table.kind, _HOST_KINDS))
