"""The result of a walk: the block table, the counts of each heap, findings and gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind, Place
from heapdump.blocks.table import BlockTable

Fact = int | str | bool | None
HeapFacts = Mapping[str, Fact]
"""Name → value of a fact that the walk of one heap inferred: a key, padding, a rule of the build. The heap's package
defines the names."""


@dataclass(frozen=True, slots=True)
class KindCount:
    """The blocks of one kind in one heap: those of the program, or those that the allocator uses itself.

    Attributes:
        kind: the kind of block.
        busy_blocks: number of busy blocks.
        busy_bytes: requested bytes of the busy blocks.
        busy_entry_bytes: occupied bytes of the busy blocks.
        free_blocks: number of free blocks.
        free_bytes: occupied bytes of the free blocks.
    """

    kind: BlockKind
    busy_blocks: int
    busy_bytes: int
    busy_entry_bytes: int
    free_blocks: int
    free_bytes: int

    @property
    def occupied_bytes(self) -> int:
        """Occupied bytes of busy and free blocks."""
        return self.busy_entry_bytes + self.free_bytes


class CheckKind(StrEnum):
    """The number that a self-check compares. Values are the words in JSON."""

    FREE_BYTES = "free_bytes"
    SEGMENT_BYTES = "segment_bytes"
    MAPPED_BYTES = "mapped_bytes"
    SEGMENTS = "segments"
    LARGE_BYTES = "large_bytes"
    FREE_ENTRIES = "free_entries"
    LARGE_BLOCKS = "large_blocks"
    BLOCKS = "blocks"

    @property
    def words(self) -> str:
        """The number's name for a person."""
        return _CHECK_WORDS[self]


_CHECK_WORDS = {
    CheckKind.FREE_BYTES: "free bytes of the back end",
    CheckKind.SEGMENT_BYTES: "committed bytes of the segments",
    CheckKind.MAPPED_BYTES: "committed bytes by the memory map",
    CheckKind.SEGMENTS: "segments",
    CheckKind.LARGE_BYTES: "committed bytes of large blocks",
    CheckKind.FREE_ENTRIES: "entries on the free lists",
    CheckKind.LARGE_BLOCKS: "large blocks on the list",
    CheckKind.BLOCKS: "blocks",
}


@dataclass(frozen=True, slots=True)
class Check:
    """A self-check: one number from two sources.

    Attributes:
        kind: the number.
        counted: by Windows' counter, or by the length of a list; None where this version of Windows has neither.
        walked: by the walk.
        may_exceed: True for a counter that Windows does not always lower, so that any value from `walked` on is right.
    """

    kind: CheckKind
    counted: int | None
    walked: int
    may_exceed: bool = False

    @property
    def holds(self) -> bool:
        """True where `counted` is None, equals `walked`, or exceeds it and may."""
        if self.counted is None or self.counted == self.walked:
            return True
        return self.may_exceed and self.counted > self.walked

    @property
    def agreement(self) -> float:
        """The smaller number divided by the larger one, 0.0 to 1.0; 1.0 where the check holds."""
        if self.counted is None or self.holds:
            return 1.0
        return min(self.counted, self.walked) / max(self.counted, self.walked)


@dataclass(frozen=True, slots=True)
class HeapCount:
    """The counts of one heap after its walk.

    Attributes:
        kinds: the program's blocks, ascending by code of the kind; kinds without blocks are left out.
        internal: blocks that the allocator uses itself, likewise. LFH blocks and VS chunks lie inside of them.
        headers: number of headers that the walk examined.
        integrity: (verified headers / headers) * product of the `agreement` of all `checks`, 0.0 to 1.0; None without
            headers.
        checks: the self-checks.
        hosted: light page-heap blocks inside blocks of this heap, which the page heap counts as well. Kind BACKEND:
            in segments; kind VIRTUAL: in large blocks.
        uncommitted_bytes: bytes of entries in segments that are not committed by the memory map; 0 for NT heaps, whose
            lists say what is committed.
        uncommitted_free_bytes: the part of `uncommitted_bytes` in free blocks.
    """

    kinds: tuple[KindCount, ...]
    internal: tuple[KindCount, ...]
    headers: int
    integrity: float | None
    checks: tuple[Check, ...] = ()
    hosted: tuple[KindCount, ...] = ()
    uncommitted_bytes: int = 0
    uncommitted_free_bytes: int = 0

    @property
    def busy_blocks(self) -> int:
        """The number of the program's busy blocks, of every kind."""
        return sum(kind.busy_blocks for kind in self.kinds)

    @property
    def busy_bytes(self) -> int:
        """Requested bytes of the program's busy blocks."""
        return sum(kind.busy_bytes for kind in self.kinds)

    @property
    def free_blocks(self) -> int:
        """The number of free blocks of every kind but LFH."""
        return sum(kind.free_blocks for kind in self.kinds if kind.kind != BlockKind.LFH)

    @property
    def free_bytes(self) -> int:
        """Occupied bytes of the free blocks of every kind but LFH."""
        return sum(kind.free_bytes for kind in self.kinds if kind.kind != BlockKind.LFH)

    @property
    def lfh_free_blocks(self) -> int:
        """The number of free LFH blocks."""
        return sum(kind.free_blocks for kind in self.of(BlockKind.LFH))

    @property
    def lfh_free_bytes(self) -> int:
        """Occupied bytes of the free LFH blocks."""
        return sum(kind.free_bytes for kind in self.of(BlockKind.LFH))

    @property
    def overhead_bytes(self) -> int:
        """Committed bytes that serve no request: unused bytes of busy blocks, and internal blocks.

        Bytes of internal blocks in which blocks of the program lie are subtracted: those are counted themselves.
        """
        nested = sum(kind.occupied_bytes for kind in self.kinds if kind.kind.place is Place.NESTED)
        own = sum(kind.occupied_bytes for kind in self.internal if kind.kind != BlockKind.LFH)
        hosted = sum(kind.occupied_bytes for kind in self.hosted)
        own -= nested + hosted + self.uncommitted_bytes - self.uncommitted_free_bytes
        return sum(kind.busy_entry_bytes - kind.busy_bytes for kind in self.kinds) + own

    @property
    def segment_bytes(self) -> int:
        """Committed bytes of all entries in segments. Without gaps these are all committed bytes of the segments."""
        own = (kind for kind in (*self.kinds, *self.internal) if kind.kind.place is Place.SEGMENT)
        return sum(kind.occupied_bytes for kind in own) - self.uncommitted_bytes

    @property
    def internal_blocks(self) -> int:
        """The number of blocks that the allocator uses itself."""
        return sum(kind.busy_blocks + kind.free_blocks for kind in self.internal)

    def of(self, *kinds: BlockKind) -> Iterable[KindCount]:
        """The counts of the program's blocks of these kinds."""
        return (kind for kind in self.kinds if kind.kind in kinds)


@dataclass(frozen=True)
class Walk:
    """The walk of all heaps of a process.

    Attributes:
        load: makes the block table, or opens it in the index; called once, when `table` is first read.
        counts: heap index → its counts; heaps that were not walked are left out.
        findings: damage that the walk met.
        gaps: sentences that say which blocks may be missing, and why.
        facts: heap index → facts that its walk inferred. Later readers of the heap need them; the index keeps them.
    """

    load: Callable[[], BlockTable]
    counts: dict[int, HeapCount]
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]
    facts: Mapping[int, HeapFacts] = field(default_factory=dict)

    @cached_property
    def table(self) -> BlockTable:
        """Every block of the process."""
        return self.load()
