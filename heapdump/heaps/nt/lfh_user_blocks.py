"""User blocks of the LFH: the busy back-end blocks that hold its blocks (docs/reference/heap-structures.md §3.5).

They are found among the rows of the back end: the user data of such a block begins with a _HEAP_USERDATA_HEADER with
the signature F0E0D0C0, and the _HEAP_SUBSEGMENT that it points to points back. Where one of the two does not hold, the
headers of the blocks inside decide (`lfh_recovery`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.header_word import BUSY_FLAG, INTERNAL_FLAG
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import FLAGS_SHIFT

SIGNATURE = 0xF0E0D0C0


@dataclass(frozen=True, slots=True)
class UserArea:
    """The user data of a back-end block that may be the user blocks of a subsegment.

    Attributes:
        address: of the user data, and of the _HEAP_USERDATA_HEADER there.
        size: bytes from `address` to the end of the back-end block.
        request: requested bytes of the back-end block.
        has_signature: True where the signature F0E0D0C0 is at its place.
    """

    address: int
    size: int
    request: int
    has_signature: bool


@dataclass(frozen=True, slots=True)
class UserAreas:
    """User areas as columns, ascending by address; (n,) each.

    `row`: number of the row of the back-end block; the others as in `UserArea`.
    """

    row: NDArray[np.int64]
    address: NDArray[np.int64]
    size: NDArray[np.int64]
    request: NDArray[np.int64]
    has_signature: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of areas."""
        return len(self.row)

    def of(self, which: NDArray[np.bool_] | NDArray[np.integer]) -> UserAreas:
        """The chosen areas, in their order."""
        return UserAreas(
            self.row[which], self.address[which], self.size[which], self.request[which], self.has_signature[which]
        )

    def __iter__(self) -> Iterator[UserArea]:
        """Yields each area."""
        columns = (self.address, self.size, self.request, self.has_signature)
        return (UserArea(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


_NONE = np.empty(0, np.int64)


def find_user_areas(context: HeapContext, window: Window, rows: BlockTable) -> UserAreas:
    """The areas of the back-end blocks in the window that may be user blocks.

    Vista and later: all internal blocks. Before Vista no flag marks these: blocks with the signature, and blocks whose
    first pointer leads to a subsegment that points back.
    """
    pre_vista = context.entry_format.is_pre_vista
    wanted = np.uint16((BUSY_FLAG if pre_vista else BUSY_FLAG | INTERNAL_FLAG) << FLAGS_SHIFT)
    if np.bitwise_or.reduce(rows.tags) & wanted != wanted:
        return UserAreas(_NONE, _NONE, _NONE, _NONE, _NONE != 0)
    flagged = np.flatnonzero(rows.tags & wanted == wanted)
    entry = rows.entry[flagged].astype(np.int64)
    user = entry + rows.header8[flagged].astype(np.int64) * 8
    size = rows.size8[flagged].astype(np.int64) * 8
    request = size - rows.unused[flagged].astype(np.int64)
    header = context.layout["_HEAP_USERDATA_HEADER"]
    signature = _word(window, entry, user, header.offset("Signature"))
    has_signature = signature & 0xFFFFFFFF == SIGNATURE
    chosen = has_signature | (size >= 2 * header.size)
    if pre_vista:
        chosen = has_signature | _are_linked(context, user, _word(window, entry, user, 0))
    area = entry + size - user  # 0 where the header says that it is the whole entry
    return UserAreas(flagged, user, area, request, has_signature).of(chosen & (area > 0))


def _word(window: Window, entry: NDArray[np.int64], user: NDArray[np.int64], offset: int) -> NDArray[np.int64]:
    """The 64-bit word at `offset` of each user area, shifted so that its low bits begin there; 0 behind the window."""
    place = (user + offset - window.bases(entry)) // 8
    words: NDArray[np.int64] = window.words[np.where(place < len(window.words), place, 0)] >> offset % 8 * 8
    return np.where(place < len(window.words), words, 0)


def _are_linked(context: HeapContext, user: NDArray[np.int64], first: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True where the first pointer of the area leads to a possible subsegment that points back; (n,)."""
    struct, pointer = context.layout["_HEAP_SUBSEGMENT"], context.view.pointer_bytes
    subsegment = (first & (1 << 32) - 1 if pointer == 4 else first).astype(np.uint64)
    mapped = context.space.mapped
    back, is_present = mapped.gather(subsegment + np.uint64(struct.offset("UserBlocks")), pointer)
    granules, _ = mapped.gather(subsegment + np.uint64(struct.offset("BlockSize")), 2)
    count, _ = mapped.gather(subsegment + np.uint64(struct.offset("BlockCount")), 2)
    linked: NDArray[np.bool_] = is_present & (back == user.astype(np.uint64)) & (granules > 1) & (count > 1)
    return linked
