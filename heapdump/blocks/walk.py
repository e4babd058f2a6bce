"""The result of walking: the block table, what was counted in each heap, findings and gaps."""

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
"""What the walk of one heap inferred, by name: keys, padding, rules of the build. The heap's own package names them."""


@dataclass(frozen=True, slots=True)
class KindCount:
    """Blocks of one kind in one heap, the program's or the allocator's own; bytes.

    `busy_bytes` as requested, `busy_entry_bytes` as occupied by them, `free_bytes` as occupied by free ones.
    """

    kind: BlockKind
    busy_blocks: int
    busy_bytes: int
    busy_entry_bytes: int
    free_blocks: int
    free_bytes: int

    @property
    def occupied_bytes(self) -> int:
        """Bytes of busy and free ones."""
        return self.busy_entry_bytes + self.free_bytes


class CheckKind(StrEnum):
    """The number that a self-check compares."""

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

    `counted`: Windows' counter, or the number of linked list entries; None where this version of Windows keeps no such
    number. `walked`: the number that the walk found. `may_exceed`: the counter is not lowered whenever Windows frees
    something, so that it is only at least what the walk finds.
    """

    kind: CheckKind
    counted: int | None
    walked: int
    may_exceed: bool = False

    @property
    def holds(self) -> bool:
        """True without a counter, for equal numbers, and for a counter that may exceed the walk and does."""
        if self.counted is None or self.counted == self.walked:
            return True
        return self.may_exceed and self.counted > self.walked

    @property
    def agreement(self) -> float:
        """The smaller number as a share of the larger one; 1.0 where the check holds."""
        if self.counted is None or self.holds:
            return 1.0
        return min(self.counted, self.walked) / max(self.counted, self.walked)


@dataclass(frozen=True, slots=True)
class HeapCount:
    """The blocks of one heap after its walk. `kinds`: kinds that have blocks, by code.

    `internal`: blocks of the allocator itself, by kind; LFH blocks and VS chunks lie inside of these. `hosted`:
    blocks of page heaps that lie inside blocks of this heap and are counted by the page heap, too; BACKEND: in
    segments, VIRTUAL: in large blocks. `uncommitted_bytes`: bytes of entries in segments that the memory map does not
    call committed, `uncommitted_free_bytes`: those of them in free blocks (0 for NT heaps, whose lists say what is
    committed). `integrity` = verified headers / headers * product of `agreement` of `checks`; None without headers.
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
        """Busy blocks of the program, of every kind."""
        return sum(kind.busy_blocks for kind in self.kinds)

    @property
    def busy_bytes(self) -> int:
        """Requested bytes of the program's busy blocks."""
        return sum(kind.busy_bytes for kind in self.kinds)

    @property
    def free_blocks(self) -> int:
        """Free entries of the back end."""
        return sum(kind.free_blocks for kind in self.kinds if kind.kind != BlockKind.LFH)

    @property
    def free_bytes(self) -> int:
        """Occupied bytes of the free entries of the back end."""
        return sum(kind.free_bytes for kind in self.kinds if kind.kind != BlockKind.LFH)

    @property
    def lfh_free_blocks(self) -> int:
        """Free blocks of the LFH."""
        return sum(kind.free_blocks for kind in self.of(BlockKind.LFH))

    @property
    def lfh_free_bytes(self) -> int:
        """Occupied bytes of the free blocks of the LFH."""
        return sum(kind.free_bytes for kind in self.of(BlockKind.LFH))

    @property
    def overhead_bytes(self) -> int:
        """Committed bytes of headers, of unused bytes, and of internal blocks where no block of the program lies."""
        nested = sum(kind.occupied_bytes for kind in self.kinds if kind.kind.place is Place.NESTED)
        own = sum(kind.occupied_bytes for kind in self.internal if kind.kind != BlockKind.LFH)
        hosted = sum(kind.occupied_bytes for kind in self.hosted)
        own -= nested + hosted + self.uncommitted_bytes - self.uncommitted_free_bytes
        return sum(kind.busy_entry_bytes - kind.busy_bytes for kind in self.kinds) + own

    @property
    def segment_bytes(self) -> int:
        """Committed bytes of the walked entries in segments; after a walk without gaps all committed bytes there."""
        own = (kind for kind in (*self.kinds, *self.internal) if kind.kind.place is Place.SEGMENT)
        return sum(kind.occupied_bytes for kind in own) - self.uncommitted_bytes

    @property
    def internal_blocks(self) -> int:
        """The allocator's own blocks."""
        return sum(kind.busy_blocks + kind.free_blocks for kind in self.internal)

    def of(self, *kinds: BlockKind) -> Iterable[KindCount]:
        """The counts of the program's blocks of these kinds."""
        return (kind for kind in self.kinds if kind.kind in kinds)


@dataclass(frozen=True)
class Walk:
    """Every block of the process. `counts`: heap index → what was counted, for the heaps that were walked.

    `load` makes or opens the table, once, when it is first asked for. `gaps`: what keeps it from being whole, and why.
    `facts`: heap index → what its walk inferred; later readers of the heap need it, so the index holds it too.
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
