"""What a built NT heap contains, as plain data.

In: nothing. Out: the frozen dataclasses that `NtHeapBuilder.build` fills. Layouts are restated by hand
elsewhere in this package on purpose; this module knows no layout and nothing of the tool under test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FrontEnd = Literal["none", "lookaside", "lfh"]
Region = tuple[int, int, str, str, int, int]
"""(base, size, state, type, protect, allocation base), as VirtualQuery tells them."""


@dataclass(frozen=True)
class BusyTruth:
    """A busy back-end entry: header address, user pointer, bytes asked for, bytes occupied."""

    entry: int
    user: int
    size: int
    entry_size: int


@dataclass(frozen=True)
class FreeTruth:
    """A free back-end entry: header address and bytes occupied."""

    entry: int
    entry_size: int


@dataclass(frozen=True)
class LargeTruth:
    """A block with memory of its own: list entry, user pointer, bytes asked for, committed, reserved."""

    list_entry: int
    user: int
    requested: int
    commit_bytes: int
    reserve_bytes: int


@dataclass(frozen=True)
class ManyTruth:
    """Busy entries behind each other, the first at `entry`: granules and bytes asked for of each, (n,) int64."""

    entry: int
    units: NDArray[np.int64]
    sizes: NDArray[np.int64]


@dataclass(frozen=True)
class LfhBlockTruth:
    """An LFH block: header address, user pointer, bytes asked for (None: it is free), bytes occupied."""

    entry: int
    user: int
    size: int | None
    entry_size: int


@dataclass(frozen=True)
class SubsegmentTruth:
    """An LFH subsegment: address of its _HEAP_SUBSEGMENT, of its user data header, of the entry that this lies in."""

    address: int
    user_blocks: int
    entry: int
    blocks: tuple[LfhBlockTruth, ...]


@dataclass(frozen=True)
class HeapTruth:
    """One heap.

    `segments` are [base, end of the reservation that the segment counts), `uncommitted` the non-empty ranges
    [start, end) the heap records; `reserved_bytes` and `committed_bytes` are those of the segments, large
    blocks apart; `internal` are busy entries the heap keeps for its front end, not in `busy`; `free` holds
    the padding before an uncommitted range, too; `free_bytes` is their sum in bytes. The blocks of `lfh` are in
    neither; the entries that hold them are `internal`.
    """

    address: int
    arch: Literal["x64", "x86"]
    build: int
    flags: int
    segments: tuple[tuple[int, int], ...]
    uncommitted: tuple[tuple[int, int], ...]
    reserved_bytes: int
    committed_bytes: int
    large: tuple[LargeTruth, ...]
    busy: tuple[BusyTruth, ...]
    free: tuple[FreeTruth, ...]
    internal: tuple[BusyTruth, ...]
    free_bytes: int
    front_end: FrontEnd
    lock_collisions: int
    many: tuple[ManyTruth, ...] = ()
    lfh: tuple[SubsegmentTruth, ...] = ()

    @property
    def free_entries(self) -> int:
        """Number of free back-end entries."""
        return len(self.free)

    @property
    def large_bytes(self) -> int:
        """Committed bytes of the large blocks."""
        return sum(block.commit_bytes for block in self.large)


@dataclass(frozen=True)
class BuiltHeap:
    """The heap's committed memory, what VirtualQuery says about it, and what is in it.

    `memory` are (address, bytes), `zeros` (address, size) of committed zero bytes; both page granular.
    """

    memory: tuple[tuple[int, bytes], ...]
    zeros: tuple[tuple[int, int], ...]
    regions: tuple[Region, ...]
    truth: HeapTruth
