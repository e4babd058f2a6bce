"""The LFH of one heap: subsegments whose user blocks lie in a window, and their blocks as rows.

Rules: `lfh_user_blocks`, `lfh_encoding`; docs/reference/heap-structures.md §3.5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.lfh_blocks import LfhSubsegment, add_lfh_blocks
from heapdump.heaps.nt.lfh_encoding import block_encoding, derive_key, first_block_offset
from heapdump.heaps.nt.lfh_user_blocks import UserBlocks, find_user_blocks
from heapdump.heaps.nt.windows import Window

_MAX_FAILURES = 64
"""User blocks from which the key is derived at most; in a healthy process the first one gives it."""


@dataclass
class LfhState:
    """The LFH of one view of the process, as far as the walk of its heaps knows it.

    Attributes:
        key: RtlpLFHKey, 32 or 40 bits as the encoding needs; None until user blocks gave it.
        failures: user blocks that did not give it.
        internal: before Vista, addresses of user blocks and subsegments; later ones are marked by Flags.
    """

    key: int | None = None
    failures: int = 0
    internal: set[int] = field(default_factory=set)


class LfhWalk:
    """The walk of the LFH of one heap, window by window."""

    def __init__(self, context: WalkContext, state: LfhState) -> None:
        """`state` is shared by the heaps of a view."""
        self._context, self._state = context, state

    def add(self, window: Window, first_row: int) -> None:
        """Adds the blocks of the subsegments whose user blocks are rows from `first_row` on; sorts these rows."""
        found = [
            one
            for user_blocks in self._user_blocks(window, first_row)
            if (one := self._subsegment(window, user_blocks))
        ]
        if found:
            add_lfh_blocks(self._context, window, found)
            self._context.columns.sort(first_row)

    def _user_blocks(self, window: Window, first_row: int) -> Iterator[UserBlocks]:
        """The user blocks among these rows; the key is derived on the way."""
        context, state = self._context, self._state
        for user_blocks in find_user_blocks(context, window, context.columns.since(first_row)):
            if context.entry_format.is_pre_vista:
                state.internal |= {user_blocks.address, user_blocks.subsegment}
            if state.key is None and state.failures < _MAX_FAILURES:
                state.key = derive_key(context, user_blocks)
                state.failures += state.key is None
            yield user_blocks

    def _subsegment(self, window: Window, user_blocks: UserBlocks) -> LfhSubsegment | None:
        """The subsegment with the place of its blocks; None, and a finding, where they do not fit in."""
        context, key = self._context, self._state.key
        granule = context.entry_format.granule
        block_bytes = user_blocks.block_granules * user_blocks.block_count * granule
        offset = first_block_offset(context, user_blocks, key)
        if offset is not None and offset % granule == 0 and offset + block_bytes <= user_blocks.size:
            base = int(window.bases(np.array([user_blocks.address]))[0])
            return LfhSubsegment(
                (user_blocks.address + offset - base) // granule,
                base,
                user_blocks.block_granules,
                user_blocks.block_count,
                block_encoding(context, user_blocks, key),
                _busy_bitmap(context, user_blocks),
            )
        message = f"the LFH subsegment at {user_blocks.subsegment:#x} of {context.name} cannot be decoded"
        place, length = user_blocks.address, context.layout["_HEAP_USERDATA_HEADER"].size
        expected, found = "offsets inside the user blocks", f"{offset}"
        context.log.damage(
            Finding("lfh_subsegment", "error", context.address, place, length, message, expected, found),
            f"{message}: {user_blocks.block_count} blocks are missing",
        )
        return None


def _busy_bitmap(context: WalkContext, user_blocks: UserBlocks) -> bytes | None:
    """BusyBitmap, 32-bit words of one bit for each block; None before 8, and where the dump lacks it."""
    header = context.layout["_HEAP_USERDATA_HEADER"]
    if "BusyBitmap" not in header:
        return None
    buffer = context.space.try_pointer(user_blocks.address + header.offset("BusyBitmap") + context.view.pointer_bytes)
    return context.space.try_read(buffer, -(-user_blocks.block_count // 32) * 4) if buffer else None
