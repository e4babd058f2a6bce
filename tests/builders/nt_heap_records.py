"""Entries, runs, segments and large blocks of an NT heap in the making.

In: appends by `NtHeapBuilder`. Out: the same, laid out at addresses but not yet encoded. Sizes restated by
hand on purpose; this module knows no field offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

PAGE = 0x1000
EntryKind = Literal["header", "busy", "internal", "free", "ucr", "many"]
Stopped = Literal["plain", "unwritten"]


@dataclass
class Entry:
    """One entry: header address, size in granules and what it is."""

    address: int
    units: int
    kind: EntryKind
    requested: int = 0
    content: bytes = b""
    trace: int = 0
    """Of a busy entry from 6000 on: address of the record of the stack that allocated it; 0 = no front prefix."""
    many: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
    """Of kind `many`: (granules, bytes asked for) of each of the busy entries that lie in this one's place."""

    stopped: Stopped | None = None
    """The dump is taken while ntdll works on this entry: its header is plain, or not written yet."""

    @property
    def last_units(self) -> int:
        """Granules that the entry behind it names as its previous size."""
        return self.units if self.many is None else int(self.many[0][-1])


@dataclass
class Run:
    """Committed memory [start, end) of a segment and its entries; `hole` bytes behind it are not."""

    start: int
    entries: list[Entry] = field(default_factory=list)
    end: int = 0
    hole: int = 0


@dataclass
class Segment:
    """Reserved memory [base, base + reserve) of which the heap counts [base, end)."""

    base: int
    reserve: int
    end: int
    runs: list[Run] = field(default_factory=list)

    def entries(self) -> Iterator[tuple[Entry, int]]:
        """All entries with the granules of the one before, which is 0 at the start of a run."""
        for run in self.runs:
            previous = 0
            for entry in run.entries:
                yield entry, previous
                previous = entry.last_units

    @property
    def uncommitted(self) -> int:
        """Bytes the heap counts but has not committed."""
        return sum(run.hole for run in self.runs)

    @property
    def holes(self) -> list[tuple[int, int]]:
        """Non-empty uncommitted ranges as (start, end)."""
        return [(run.end, run.end + run.hole) for run in self.runs if run.hole]


@dataclass
class LargeBlock:
    """A block with memory of its own: its list entry, bytes asked for, committed and reserved; `trace` as in `Entry`."""

    node: int
    size: int
    commit: int
    reserve: int
    content: bytes
    trace: int = 0

    def user(self, pointer: int) -> int:
        """Address that the program got: behind the list entry of eight pointers, and the front prefix of four."""
        return self.node + pointer * (12 if self.trace else 8)

    @property
    def allocation(self) -> int:
        """Start of the reservation the block lies in."""
        return self.node & ~0xFFFF


@dataclass
class Subsegment:
    """An LFH subsegment at `address`; `entry` holds its user blocks, `first` bytes behind whose header block 0 begins.

    `asked`: requested bytes of each block, -1 for a free one; `trace` as in `Entry`, for all busy ones.
    """

    address: int
    entry: Entry
    units: int
    first: int
    asked: tuple[int, ...]
    trace: int

    def user_blocks(self, granule: int) -> int:
        """Address of the user data header."""
        return self.entry.address + granule

    def block(self, number: int, granule: int) -> int:
        """Address of a block's entry header."""
        return self.user_blocks(granule) + self.first + number * self.units * granule


@dataclass
class HeapPlan:
    """Everything a generation's encoder needs to know about the heap."""

    base: int
    flags: int
    build: int
    seed: int
    index: int
    encoded: bool
    front_end_entry: Entry | None
    front_end_type: int
    lock_collisions: int
    lfh_key: int = 0
    lock_owner: int = 0
    segments: list[Segment] = field(default_factory=list)
    large: list[LargeBlock] = field(default_factory=list)

    def entries(self, kind: EntryKind) -> list[Entry]:
        """All entries of one kind, by segment and address."""
        return [e for s in self.segments for e, _previous in s.entries() if e.kind == kind]
