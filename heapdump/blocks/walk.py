"""The result of walking: the block table, what was counted in each heap, findings and gaps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property

from heapdump.blocks.findings import Finding
from heapdump.blocks.table import BlockKind, BlockTable


@dataclass(frozen=True, slots=True)
class KindCount:
    """The program's blocks of one kind in one heap; bytes.

    `busy_bytes` as requested, `busy_entry_bytes` as occupied by them, `free_bytes` as occupied by free ones.
    """

    kind: BlockKind
    busy_blocks: int
    busy_bytes: int
    busy_entry_bytes: int
    free_blocks: int
    free_bytes: int


@dataclass(frozen=True, slots=True)
class Check:
    """A self-check. `stated`: what Windows counted, or what a list links; None where this version keeps no count."""

    what: str
    stated: int | None
    walked: int

    @property
    def holds(self) -> bool:
        """True when they agree, or nothing was stated."""
        return self.stated is None or self.stated == self.walked

    @property
    def agreement(self) -> float:
        """The smaller number as a share of the larger one; 1.0 where the check holds."""
        if self.stated is None or self.holds:
            return 1.0
        return min(self.stated, self.walked) / max(self.stated, self.walked)


_NESTED = (BlockKind.LFH, BlockKind.VS)
"""Kinds whose blocks lie inside blocks of the allocator's own."""


@dataclass(frozen=True, slots=True)
class HeapCount:
    """What was counted in one heap. `kinds`: those that have blocks, in the order of `BlockKind`.

    `internal_*`: the allocator's own blocks and the bytes they occupy; the slots of the front end and the chunks of VS
    subsegments lie inside them. `uncommitted_*`: of all bytes in segments, and of those in free blocks, what is not
    committed by the memory map (segment heaps; NT heaps have no such bytes by their own lists).
    `integrity` = share of headers that verified, lowered by each of `checks` that does not hold; None without headers.
    """

    kinds: tuple[KindCount, ...]
    internal_blocks: int
    internal_bytes: int
    headers: int
    integrity: float | None
    checks: tuple[Check, ...] = ()
    uncommitted_bytes: int = 0
    uncommitted_free_bytes: int = 0

    @property
    def busy_blocks(self) -> int:
        """Busy blocks of the program, of every kind."""
        return sum(kind.busy_blocks for kind in self.kinds)

    @property
    def busy_bytes(self) -> int:
        """Bytes that the program asked for in them."""
        return sum(kind.busy_bytes for kind in self.kinds)

    @property
    def free_blocks(self) -> int:
        """Free entries of the back end."""
        return sum(kind.free_blocks for kind in self.kinds if kind.kind is not BlockKind.LFH)

    @property
    def free_bytes(self) -> int:
        """Bytes that they occupy."""
        return sum(kind.free_bytes for kind in self.kinds if kind.kind is not BlockKind.LFH)

    @property
    def lfh_free_blocks(self) -> int:
        """Free slots of the front end."""
        return sum(kind.free_blocks for kind in self.of(BlockKind.LFH))

    @property
    def lfh_free_bytes(self) -> int:
        """Bytes that they occupy."""
        return sum(kind.free_bytes for kind in self.of(BlockKind.LFH))

    @property
    def overhead_bytes(self) -> int:
        """Headers, bytes behind the requested ones, and the allocator's own blocks, as far as no block lies in them.

        Committed ones only.
        """
        nested = sum(kind.busy_entry_bytes + kind.free_bytes for kind in self.of(*_NESTED))
        own = self.internal_bytes - nested - (self.uncommitted_bytes - self.uncommitted_free_bytes)
        return sum(kind.busy_entry_bytes - kind.busy_bytes for kind in self.kinds) + own

    @property
    def segment_bytes(self) -> int:
        """Committed bytes of all entries that were walked in segments: of a whole walk all that are committed there."""
        inside = self.of(BlockKind.BACKEND, BlockKind.LOOKASIDE, BlockKind.PAGES)
        return sum(kind.busy_entry_bytes + kind.free_bytes for kind in inside) + self.internal_bytes - self.uncommitted_bytes

    def of(self, *kinds: BlockKind) -> Iterable[KindCount]:
        """The counts of these kinds."""
        return (kind for kind in self.kinds if kind.kind in kinds)


@dataclass(frozen=True)
class Walk:
    """Every block of the process. `counts`: heap index → what was counted, for the heaps that were walked.

    `load` makes or opens the table, once, when it is first asked for. `gaps`: what keeps it from being whole, and why.
    """

    load: Callable[[], BlockTable]
    counts: dict[int, HeapCount]
    findings: tuple[Finding, ...]
    gaps: tuple[str, ...]

    @cached_property
    def table(self) -> BlockTable:
        """Every block of the process."""
        return self.load()
