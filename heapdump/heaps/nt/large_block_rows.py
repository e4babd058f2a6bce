"""Large blocks as rows: from the header of each, BusyBlock (docs/reference/heap-structures.md §2.6).

    requested bytes = CommitSize - Size
    user address    = BusyBlock + granule * (1 + SegmentOffset)

Size of this header is a number of bytes, counted from the list entry on. SegmentOffset is the number of granules of the
front prefix: 2 with allocation stacks, else 0. The row begins at BusyBlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heapdump.blocks.heap import LargeBlock
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import BUSY_FLAG
from heapdump.kernels.row import FLAGS_SHIFT

_MAX_HEADER_BYTES = 255 * 8  # the column header8 has 8 bits
_TABLE_BYTES = 8 << 32  # the column size8 has 32 bits


class _Row(NamedTuple):
    """One row; all but `entry` and `flags` in bytes."""

    entry: int
    occupied: int
    unused: int
    header: int
    flags: int


def add_large_blocks(context: WalkContext, blocks: Sequence[LargeBlock]) -> None:
    """Adds a row for each of these large blocks of the heap whose header is in the dump."""
    rows = [row for block in blocks if (row := _row(context, block)) is not None]
    if not rows:
        return
    entry, occupied, unused, header, flags = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    tags = tag(BlockKind.VIRTUAL, busy=True) | flags << FLAGS_SHIFT
    context.columns.append(context.heap.index, entry, occupied // 8, unused, header // 8, tags)


def _row(context: WalkContext, block: LargeBlock) -> _Row | None:
    """The row of one block; None, and a gap, where the table cannot have one. Damage of its header is a gap, too."""
    log, entry_format, node, commit = context.log, context.entry_format, block.list_entry, block.commit_bytes
    offset = context.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock")
    entry = node + offset
    word = context.header_word(entry)
    log.headers += 1
    if word is None:
        log.gap(f"{context.name}: the header of the large block at {node:#x} is not in the dump")
        return None
    word = _decoded(entry_format, word)
    size, flags = word & 0xFFFF, word >> entry_format.bits.flags & 0xFF
    prefix = 0 if entry_format.is_pre_vista else word >> entry_format.bits.segment & 0xFF
    header, occupied = (1 + prefix) * entry_format.granule, commit - offset
    if occupied >= _TABLE_BYTES:
        log.gap(
            f"{context.name}: the large block at {node:#x} ({commit:,} bytes committed) is beyond the block table's 32 GiB; "
            "its sizes are among the large blocks of the heap"
        )
        return None
    if header > _MAX_HEADER_BYTES or not offset + header <= size <= commit or not flags & BUSY_FLAG:
        log.gap(f"{context.name}: the header of the large block at {node:#x} is damaged")
        header = header if header <= _MAX_HEADER_BYTES else entry_format.granule
        size = min(max(size, offset + header), commit)
    else:
        log.good_headers += 1
    return _Row(entry, occupied, size - offset, header, flags)


def _decoded(entry_format: EntryFormat, word: int) -> int:
    """The decoded header word. Bits 0-31 alone are encoded: PreviousSize of a large block is plain 0 (§2.6)."""
    return word ^ (entry_format.key & 0xFFFFFFFF if word & entry_format.mask else 0)
