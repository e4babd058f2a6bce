"""User blocks of the LFH: the busy back-end blocks that hold its blocks (docs/reference/heap-structures.md §3.5).

User blocks are found from the rows of the back end alone: the user area of such a block begins with a
_HEAP_USERDATA_HEADER with the signature F0E0D0C0, and the _HEAP_SUBSEGMENT that it points at points back.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.header_word import BUSY_FLAG, INTERNAL_FLAG
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import FLAGS_SHIFT

SIGNATURE = 0xF0E0D0C0
_MAX_BLOCKS = 0x10000


@dataclass(frozen=True, slots=True)
class UserBlocks:
    """The user blocks of one subsegment.

    Attributes:
        address: of the _HEAP_USERDATA_HEADER, which is the user address of the back-end block.
        size: bytes from there to the end of the back-end block.
        subsegment: address of the _HEAP_SUBSEGMENT.
        block_granules: granules of each LFH block (BlockSize).
        block_count: LFH blocks, busy and free (BlockCount).
    """

    address: int
    size: int
    subsegment: int
    block_granules: int
    block_count: int


def find_user_blocks(context: HeapContext, window: Window, rows: BlockTable) -> list[UserBlocks]:
    """The user blocks among rows of the back end that lie in the window."""
    entry_format = context.entry_format
    # from Vista on Flags mark what the heap uses itself
    flags = BUSY_FLAG if entry_format.is_pre_vista else BUSY_FLAG | INTERNAL_FLAG
    wanted = np.uint16(flags << FLAGS_SHIFT)
    if np.bitwise_or.reduce(rows.tags) & wanted != wanted:
        return []
    flagged = np.flatnonzero(rows.tags & wanted == wanted)
    entry = rows.entry[flagged].astype(np.int64)
    user = entry + rows.header8[flagged].astype(np.int64) * 8
    end = entry + rows.size8[flagged].astype(np.int64) * 8
    offset = context.layout["_HEAP_USERDATA_HEADER"].offset("Signature")
    place = (user - window.bases(entry)) // 8 + offset // 8
    place[place >= len(window.words)] = 0
    has_signature = window.words[place] >> offset % 8 * 8 & 0xFFFFFFFF == SIGNATURE
    candidates = zip(user[has_signature].tolist(), end[has_signature].tolist(), strict=True)
    found = (_user_blocks(context, start, stop - start) for start, stop in candidates)
    return [one for one in found if one is not None]


def _user_blocks(context: HeapContext, user: int, size: int) -> UserBlocks | None:
    """The user blocks at that user address; None where its subsegment does not point back or does not fit in."""
    subsegment = context.space.try_pointer(user) or 0
    fields = context.view.struct("_HEAP_SUBSEGMENT", subsegment, context.layout) if subsegment else None
    if fields is None or fields["UserBlocks"] != user:
        return None
    granules, count = fields["BlockSize"], fields["BlockCount"]
    bytes_ = granules * count * context.entry_format.granule
    if not granules > 0 or not 0 < count <= _MAX_BLOCKS or bytes_ > size:
        return None
    return UserBlocks(user, size, subsegment, granules, count)
