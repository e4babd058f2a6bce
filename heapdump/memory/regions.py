"""The memory map as columns: state, type, protection and allocation base of each region.

Where the dump has no memory map, `rebuilt_table` makes one of the memory ranges. A `RegionClaim` says what a region is
used for (`analyses/memory/usage.py`). Tables are never changed: `split` gives a new one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from itertools import pairwise
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from heapdump.spans import Span, merged
from heapdump.wording import plural

_U64 = np.uint64
_TOP = (1 << 64) - 1
_NO_ACCESS, _GUARD = 0x01, 0x100


class State(IntEnum):
    """MEMORY_BASIC_INFORMATION.State; UNKNOWN for gaps of a dump without a memory map."""

    UNKNOWN = 0
    MEM_COMMIT = 0x1000
    MEM_RESERVE = 0x2000
    MEM_FREE = 0x10000


class Kind(IntEnum):
    """MEMORY_BASIC_INFORMATION.Type; UNKNOWN where it is not recorded."""

    UNKNOWN = 0
    MEM_PRIVATE = 0x20000
    MEM_MAPPED = 0x40000
    MEM_IMAGE = 0x1000000


_PROTECTIONS = {
    0x01: "PAGE_NOACCESS",
    0x02: "PAGE_READONLY",
    0x04: "PAGE_READWRITE",
    0x08: "PAGE_WRITECOPY",
    0x10: "PAGE_EXECUTE",
    0x20: "PAGE_EXECUTE_READ",
    0x40: "PAGE_EXECUTE_READWRITE",
    0x80: "PAGE_EXECUTE_WRITECOPY",
    0x100: "PAGE_GUARD",
    0x200: "PAGE_NOCACHE",
    0x400: "PAGE_WRITECOMBINE",
}


def protection_name(value: int) -> str | None:
    """`PAGE_READWRITE|PAGE_GUARD` as WinDbg prints it; None for 0 (reserved or unknown)."""
    names = [name for bit, name in _PROTECTIONS.items() if value & bit]
    unknown = value & ~sum(_PROTECTIONS)
    return "|".join([*names, *([f"{unknown:#x}"] if unknown else [])]) or None


@dataclass(frozen=True, slots=True)
class Region:
    """One row of the memory map with its usage.

    Attributes:
        span: its addresses.
        allocation_base: AllocationBase: start of the VirtualAlloc reservation; 0 where it is not known.
        state: committed, reserved or free.
        type: private, mapped or image.
        protect: PAGE_* bits; 0 for reserved and free memory, and where they are not known.
        usage: word of the claim: `Heap`, `Stack` …; "" without a claim.
        detail: more words of the claim, for example the name of a module.
        bytes_in_dump: bytes of the span that the dump holds.
        evidence: words that say how the owner was recognised; "" where no owner was.
        trust: how far the owner can be relied on; None where no owner was recognised.
    """

    span: Span
    allocation_base: int
    state: State
    type: Kind
    protect: int
    usage: str
    detail: str
    bytes_in_dump: int
    evidence: str = ""
    trust: str | None = None

    @property
    def protection(self) -> str | None:
        """`PAGE_READWRITE|PAGE_GUARD`; None for reserved and free memory, and where it is not known."""
        return protection_name(self.protect)


@dataclass(frozen=True, slots=True)
class RegionClaim:
    """The usage of one span. Where claims of one list overlap, the later claim wins.

    Attributes:
        span: the addresses.
        usage: the word: `Heap`, `Stack` …
        detail: more words, for example the name of a module.
        item: line of the reconciliation in which the committed memory counts, where one usage has several lines.
        owner: name of the owner that was recognised; "" for none.
        evidence: words that say how the owner was recognised.
        trust: how far the owner can be relied on; None for none.
    """

    span: Span
    usage: str
    detail: str = ""
    item: str = ""
    owner: str = ""
    evidence: str = ""
    trust: str | None = None


@dataclass(frozen=True)
class RegionTable:
    """The regions of a process as columns, ascending by address; regions do not overlap.

    Attributes:
        start: (n,) uint64 first address.
        end: (n,) uint64 address behind the region.
        allocation_base: (n,) uint64 start of the reservation; 0 where it is not known.
        state: (n,) uint32 MEM_* state, a value of `State`.
        type: (n,) uint32 MEM_* type, a value of `Kind`.
        protect: (n,) uint32 PAGE_* bits; 0 where there are none or they are not known.
        claim: (n,) int64 index into `claims`; -1 without a claim.
        claims: the claims that `split` was given.
        is_complete_map: False for a map that was rebuilt from the memory ranges of the dump.
    """

    start: NDArray[np.uint64]
    end: NDArray[np.uint64]
    allocation_base: NDArray[np.uint64]
    state: NDArray[np.uint32]
    type: NDArray[np.uint32]
    protect: NDArray[np.uint32]
    claim: NDArray[np.int64]
    claims: tuple[RegionClaim, ...]
    is_complete_map: bool

    def __len__(self) -> int:
        """The number of regions."""
        return len(self.start)

    @property
    def size(self) -> NDArray[np.uint64]:
        """Bytes of each region; (n,) uint64."""
        return self.end - self.start

    def index_at(self, address: int) -> int | None:
        """The index of the region that holds the address; None for none."""
        starts, ends = self._edges
        i = bisect_right(starts, address) - 1
        return i if i >= 0 and address < ends[i] else None

    @cached_property
    def _edges(self) -> tuple[array[int], array[int]]:
        """Starts and ends for scalar searches: bisect over an array is four times as fast as numpy's search."""
        return array("Q", self.start.tobytes()), array("Q", self.end.tobytes())

    def row(self, i: int) -> tuple[Span, int, State, Kind, int, RegionClaim | None]:
        """Row `i`: span, allocation base, state, type, protection, claim."""
        claim = int(self.claim[i])
        return (
            Span(int(self.start[i]), int(self.end[i])),
            int(self.allocation_base[i]),
            known(State, int(self.state[i])),
            known(Kind, int(self.type[i])),
            int(self.protect[i]),
            self.claims[claim] if claim >= 0 else None,
        )

    def allocation(self, address: int) -> Span | None:
        """The whole reservation that holds the address; None for free memory and for a rebuilt map."""
        i = self.index_at(address)
        if i is None or not self.is_complete_map or self.state[i] == State.MEM_FREE:
            return None
        firsts = self._run_starts
        run = bisect_right(firsts, i) - 1
        last = firsts[run + 1] - 1 if run + 1 < len(firsts) else len(self) - 1
        return Span(int(self.start[firsts[run]]), int(self.end[last]))

    @property
    def all_committed_bytes(self) -> int:
        """Committed bytes of the whole map."""
        return int(self.size[self.state == State.MEM_COMMIT].sum())

    def is_committed(self, address: int) -> bool:
        """True for an address of committed memory by this map."""
        i = self.index_at(address)
        return i is not None and bool(self.state[i] == State.MEM_COMMIT)

    def committed_bytes(self, span: Span, *, readable: bool = False) -> int:
        """Committed bytes of the span by this map; `readable`: guard pages and PAGE_NOACCESS pages are left out."""
        span = Span(min(span.start, _TOP), min(span.end, _TOP))
        lo = max(0, int(np.searchsorted(self.start, _U64(span.start), side="right")) - 1)
        hi = int(np.searchsorted(self.start, _U64(span.end), side="left"))
        if lo >= hi:
            return 0
        start = np.maximum(self.start[lo:hi], _U64(span.start))
        end = np.minimum(self.end[lo:hi], _U64(span.end))
        keep = (self.state[lo:hi] == State.MEM_COMMIT) & (end > start)
        if readable:
            keep &= self.protect[lo:hi] & (_NO_ACCESS | _GUARD) == 0
        return int((end - start)[keep].sum())

    def split(self, claims: Sequence[RegionClaim]) -> RegionTable:
        """The same regions, cut where the claim changes. Free memory gets no claim.

        Neighbouring pieces of one region stay together where their claims have the same usage and detail, and in
        committed memory the same item; the piece then has the first of these claims.
        O((regions + claims) log) in numpy, plus one slice assignment for each claim.
        """
        if not len(self) or not claims:
            return self
        claim_edges = np.array([min(edge, _TOP) for c in claims for edge in (c.span.start, c.span.end)], dtype=_U64)
        edges = np.unique(np.concatenate([self.start, self.end, claim_edges]))
        owner = np.full(len(edges), -1, np.int64)
        lows = np.searchsorted(edges, claim_edges[0::2]).tolist()
        highs = np.searchsorted(edges, claim_edges[1::2]).tolist()
        for i, (low, high) in enumerate(zip(lows, highs, strict=True)):
            owner[low:high] = i
        region = np.searchsorted(self.start, edges, side="right").astype(np.int64) - 1
        inside = (region >= 0) & (edges < self.end[np.maximum(region, 0)])
        edges_in, region, owner = edges[inside], region[inside], owner[inside]
        owner[self.state[region] == State.MEM_FREE] = -1
        same = self._claim_numbers(claims, region, owner)
        first = np.ones(len(edges_in), bool)
        first[1:] = (region[1:] != region[:-1]) | (same[1:] != same[:-1])
        rows, owner, start = region[first], owner[first], edges_in[first]
        end = np.append(start[1:], self.end[-1]) if len(start) else start
        end = np.minimum(end, self.end[rows])
        return RegionTable(
            start, end, self.allocation_base[rows], self.state[rows], self.type[rows], self.protect[rows],
            owner, tuple(claims), self.is_complete_map,
        )  # fmt: skip

    def _claim_numbers(
        self, claims: Sequence[RegionClaim], region: NDArray[np.int64], owner: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """A number for each piece, equal where `split` may join neighbours; `owner`: index of the claim on each."""
        numbers: dict[tuple[str, ...], int] = {}
        fine = [numbers.setdefault((c.usage, c.detail, c.item), len(numbers)) for c in claims]
        coarse = [numbers.setdefault((c.usage, c.detail), len(numbers)) for c in claims]
        committed = self.state[region] == State.MEM_COMMIT
        return np.where(committed, np.array([*fine, -1])[owner], np.array([*coarse, -1])[owner])

    def allocation_rows(self) -> Iterator[tuple[int, int]]:
        """[first row, row behind the last) of each allocation: touching rows with the same allocation base."""
        yield from pairwise([*self._run_starts, len(self)])

    @cached_property
    def _run_starts(self) -> list[int]:
        """First row of each allocation."""
        if not len(self):
            return []
        breaks = (self.allocation_base[1:] != self.allocation_base[:-1]) | (self.start[1:] != self.end[:-1])
        return [0, *(np.flatnonzero(breaks) + 1).tolist()]


Member = TypeVar("Member", State, Kind)


def known(kind: type[Member], value: int) -> Member:
    """The member with that value; UNKNOWN for values that Windows does not document."""
    return kind(value) if value in kind._value2member_map_ else kind(0)


def region_table(regions: NDArray[np.void], notes: list[str]) -> RegionTable:
    """The memory map of the dump, sorted; entries that overlap, wrap or are empty are cut, with a note."""
    start, size = regions["base"].astype(_U64), regions["size"].astype(_U64)
    good = (size > 0) & (size <= _U64(_TOP) - start)
    if not good.all():
        notes.append(f"{plural(int((~good).sum()), 'entry')} of the memory map with an impossible extent left out")
    regions = regions[good]
    regions = regions[np.argsort(regions["base"], kind="stable")]
    start = regions["base"].astype(_U64)
    end = start + regions["size"].astype(_U64)
    if len(start):
        floor = np.concatenate([np.zeros(1, _U64), np.maximum.accumulate(end)[:-1]])
        late = floor > start
        if late.any():
            notes.append(f"overlapping entries in the memory map ({int(late.sum()):,}): the first one counts")
            start = np.where(late, floor, start)
            keep = start < end
            regions, start, end = regions[keep], start[keep], end[keep]
    return _table(start, end, regions, is_complete_map=True)


def _table(
    start: NDArray[np.uint64], end: NDArray[np.uint64], regions: NDArray[np.void], *, is_complete_map: bool
) -> RegionTable:
    state = regions["state"].astype(np.uint32)
    free = state == State.MEM_FREE
    base = np.where(free, start, regions["allocation_base"].astype(_U64))
    kind = np.where(free, np.uint32(0), regions["type"].astype(np.uint32))
    committed = state == State.MEM_COMMIT
    protect = np.where(committed, regions["protect"].astype(np.uint32), np.uint32(0))
    claim = np.full(len(start), -1, np.int64)
    return RegionTable(start, end, base, state, kind, protect, claim, (), is_complete_map)


def rebuilt_table(present: Sequence[Span], images: Sequence[Span]) -> RegionTable:
    """The memory map of a dump without MemoryInfoList.

    Memory in the dump was committed. The extent of a module is MEM_IMAGE; where the dump lacks it, its state is
    UNKNOWN. Protections, other reservations and free memory are not known, so no region is MEM_FREE.

    Args:
        present: the memory ranges of the dump.
        images: the extents of the modules.
    """
    image_spans = merged(Span(span.start, min(span.end, _TOP)) for span in images)
    edges = sorted({edge for span in (*present, *image_spans) for edge in (span.start, span.end)})
    rows = []
    p = i = 0
    present_spans = merged(present)
    for start, end in pairwise(edges):
        while p < len(present_spans) and present_spans[p].end <= start:
            p += 1
        while i < len(image_spans) and image_spans[i].end <= start:
            i += 1
        is_present = p < len(present_spans) and present_spans[p].start <= start
        is_image = i < len(image_spans) and image_spans[i].start <= start
        if is_present or is_image:
            base = image_spans[i].start if is_image else present_spans[p].start
            state = State.MEM_COMMIT if is_present else State.UNKNOWN
            rows.append((start, end, base, state, Kind.MEM_IMAGE if is_image else Kind.UNKNOWN))
    columns = list(zip(*rows, strict=True)) or [(), (), (), (), ()]
    count = len(rows)
    return RegionTable(
        np.array(columns[0], _U64), np.array(columns[1], _U64), np.array(columns[2], _U64),
        np.array(columns[3], np.uint32), np.array(columns[4], np.uint32), np.zeros(count, np.uint32),
        np.full(count, -1, np.int64), (), is_complete_map=False,
    )  # fmt: skip
