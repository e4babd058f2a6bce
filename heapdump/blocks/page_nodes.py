"""The nodes of a page heap: its own records of its full blocks (heap-structures.md §5.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PageNodes:
    """Full blocks, ascending by `user`; columns of one length n, all uint64 but `is_busy`.

    `node`: address of the _DPH_HEAP_BLOCK. `user`: user address; `size`: requested bytes. [`start`, `end`): the virtual
    block, guard page included; [`data`, `data_end`): its accessible pages. `trace`: address of the record of the stack
    that allocated the block, or freed it when it is free; `thread`: id of the thread that did, 0 where not recorded.
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
        """The index of the block whose virtual block [start, end) holds the address; None where none does."""
        i = int(np.searchsorted(self.start, np.uint64(address), side="right")) - 1
        return i if i >= 0 and address < int(self.end[i]) else None
