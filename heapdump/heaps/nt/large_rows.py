"""Rows of the block table that the chain does not give: large blocks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.heap import Heap, LargeBlock
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.kernels.row import FLAGS_SHIFT, UNIT
from heapdump.process.model import View

_MOST_LEAD = 255 * UNIT  # the table counts the bytes before the user data in 8 bits of 8 bytes
_TABLE_BYTES = 8 << 32  # the table counts occupied bytes in 32 bits of 8 bytes


def add_large_blocks(
    view: View,
    heap: Heap,
    entry_format: EntryFormat,
    blocks: Sequence[LargeBlock],
    columns: BlockColumns,
    walked: WalkLog,
) -> None:
    """A row for each of the heap's large blocks given. Size in its header counts the committed bytes not asked for.

    User data lies behind the header, and behind a prefix of as many granules as the header's offset byte says (2 with
    allocation stacks).
    """
    found = (_large_row(view, heap, entry_format, block.list_entry, block.commit_bytes, walked) for block in blocks)
    rows = [row for row in found if row is not None]
    if not rows:
        return
    entry, size, spare, lead, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    tags = tag(BlockKind.VIRTUAL, busy=True) | flags << FLAGS_SHIFT
    columns.append(heap.index, entry, size // UNIT, spare, lead // UNIT, tags)


def _large_row(
    view: View, heap: Heap, entry_format: EntryFormat, node: int, commit: int, walked: WalkLog
) -> tuple[int, int, int, int, int] | None:
    """(entry, occupied bytes, spare bytes, bytes to the user data, flags)."""
    offset = entry_format.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock")
    entry = node + offset
    raw = view.space.try_integer(entry + entry_format.word_index * 8, 8)
    walked.headers += 1
    if raw is None:
        walked.gap(f"heap {heap.address:#x}: the header of the large block at {node:#x} is not in the dump")
        return None
    if entry_format.is_pre_vista:
        flags, prefix = raw >> 40 & 0xFF, 0
    else:
        raw ^= entry_format.key & 0xFFFFFFFF if raw & entry_format.mask else 0
        flags, prefix = raw >> 16 & 0xFF, raw >> 48 & 0xFF
    lead = (1 + prefix) * entry_format.granule
    unused, occupied = raw & 0xFFFF, commit - offset
    if occupied >= _TABLE_BYTES:
        walked.gap(
            f"heap {heap.address:#x}: the large block at {node:#x} ({commit:,} bytes committed) is beyond the block table's 32 GiB; "
            "its sizes are among the large blocks of the heap"
        )
        return None
    if lead > _MOST_LEAD or not offset + lead <= unused <= commit or not flags & 1:
        walked.gap(f"heap {heap.address:#x}: the header of the large block at {node:#x} is damaged")
        lead = lead if lead <= _MOST_LEAD else entry_format.granule
        unused = min(max(unused, offset + lead), commit)
    else:
        walked.good_headers += 1
    return entry, occupied, unused - offset, lead, flags
