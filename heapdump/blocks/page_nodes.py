"""The nodes of a page heap: the _DPH_HEAP_BLOCK of each block that has pages of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PageNodes:
    """n full blocks, busy and freed, ascending by `user`. (n,) uint64 each unless said otherwise.

    Attributes:
        node: address of the _DPH_HEAP_BLOCK.
        user: user address.
        size: requested bytes.
        start: first address of the virtual block, which includes the guard page.
        end: first address behind the virtual block.
        data: first address of its accessible pages.
        data_end: first address behind its accessible pages.
        trace: address of the record of a stack: of a busy block the stack that allocated it, of a freed block the stack
            that freed it; 0 where there is none.
        thread: id of the thread that allocated or freed it; 0 where it is not recorded.
        is_busy: (n,) bool.
    """

    node: NDArray[np.uint64]
    user: NDArray[np.uint64]
    size: NDArray[np.uint64]
    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    data: NDArray[np.uint64]
    data_end: NDArray[np.uint64]
    trace: NDArray[np.uint64]
    thread: NDArray[np.uint64]
    is_busy: NDArray[np.bool_]

    def __len__(self) -> int:
        """The number of blocks."""
        return len(self.user)

    def at(self, user: int) -> int | None:
        """The index of the block with that user address; None where there is none."""
        i = int(np.searchsorted(self.user, np.uint64(user)))
        return i if i < len(self) and int(self.user[i]) == user else None

    def covering(self, address: int) -> int | None:
        """The index of the block whose virtual block, guard page included, contains the address; None for none."""
        i = int(np.searchsorted(self.start, np.uint64(address), side="right")) - 1
        return i if i >= 0 and address < int(self.end[i]) else None
