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
        rows: rows of the hosts, (n,) int64.
        start: addresses of the block information, (n,) uint64.
        room: bytes from there to the end of the host, (n,) int64.
        size: requested bytes, (n,) int64.
        trace: record of the stack that allocated the block, of a freed block that freed it, (n,) uint64.
        is_busy: (n,) bool.
        has_both_stamps: (n,) bool; neither stamp is damaged.
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
    """The light blocks of the page heap with that handle in these rows, as `hosts_of` gives them.

    A block needs three facts: its Heap member names the root of the heap, one of its two stamps holds, and its size
    fits in the host.
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
    """Rows of the ordinary heap with that index that may have light blocks: busy ones that are not its own."""
    program = (table.heap == heap) & table.is_busy & ~table.is_internal
    return np.flatnonzero(program & np.isin(table.kind, _HOST_KINDS))
