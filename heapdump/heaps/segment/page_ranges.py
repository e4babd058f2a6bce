"""The page ranges of a segment heap: the descriptors at the start of each segment (heap-structures.md §6.3).

A descriptor stands for each unit of a segment. The first one of a range says what the range is and how many units it has.

Folklore: up to 15063 the flags have other meanings (1 LFH, 2 committed, 4 allocated, 8 first, 0x20 VS; recorded 14393, the
reference gives one meaning for all builds). Which hold is seen on the descriptors: under the wrong ones the ranges do not
fill the segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap, Segment
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.segment.header import DESCRIPTORS
from heapdump.layouts import Struct
from heapdump.process.model import View

_MANY = 4
"""Descriptors or segments, most of which tell what is usual."""

_TREE_SIGNATURE = 0xCCDDCCDD
EXTRA_ROOM = 0x40
"""More bytes than stand behind a block with an extra."""


class RangeKind(IntEnum):
    """What lies in a page range; FREE ones belong to nobody, INTERNAL ones to the allocator."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    INTERNAL = 4


@dataclass(frozen=True, slots=True)
class Ranges:
    """The ranges of some segments, ascending by address; (n,) each.

    `start` address and `size` bytes, int64; `kind`: `RangeKind`; `unused`: bytes at the end of it that were not asked
    for, `extra`: whether something of the heap's stands behind the asked ones; `is_sure` False beside damage; `unit`
    bytes of one; `descriptor` address of its first one, of the descriptors' own range its start.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    kind: NDArray[np.int64]
    unused: NDArray[np.int64]
    extra: NDArray[np.bool_]
    is_sure: NDArray[np.bool_]
    unit: NDArray[np.int64]
    descriptor: NDArray[np.int64]

    @property
    def is_size_known(self) -> NDArray[np.bool_]:
        """Where the unused bytes of a block can be true: less than a unit, and what the heap puts behind it; (n,)."""
        known: NDArray[np.bool_] = (self.kind != RangeKind.PAGES) | (self.unused < self.unit + self.extra * EXTRA_ROOM)
        return known

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Ranges:
        """Some of them."""
        return Ranges(*(getattr(self, column.name)[rows] for column in fields(self)))


def read_ranges(view: View, heap: Heap, structs: Sequence[Struct], walked: WalkLog) -> Ranges:
    """The ranges of all segments of a heap. `structs`: descriptors of the builds, the likeliest first."""
    segments, tables = _tables(view, heap, structs[0], walked)
    if not segments:
        return _none()
    raw = np.stack(tables)
    unit = np.array([segment.span.size // DESCRIPTORS for segment in segments], np.int64)
    best = _best_reading(raw, unit, structs)
    starts = np.array([segment.address for segment in segments], np.int64)
    return best.ranges(heap.address, starts, walked)


def _best_reading(raw: NDArray[np.uint8], unit: NDArray[np.int64], structs: Sequence[Struct]) -> _Reading:
    """The first that fits everywhere, else the one that fits best."""
    tried = []
    for struct in structs:
        for is_pre_vista in (False, True):
            reading = _Reading(raw, unit, struct, is_pre_vista)
            if reading.score > 1:  # every unit, and known kinds
                return reading
            tried.append(reading)
    return max(tried, key=lambda reading: reading.score)


def _none() -> Ranges:
    empty = np.empty(0, np.int64)
    return Ranges(empty, empty, empty, empty, empty != 0, empty != 0, empty, empty)


def _tables(view: View, heap: Heap, struct: Struct, walked: WalkLog) -> tuple[list[Segment], list[NDArray[np.uint8]]]:
    """Segments, ascending, whose descriptors are in the dump, and these; (256, bytes of one) uint8 each."""
    segments, tables = [], []
    for segment in sorted(heap.segments, key=lambda segment: segment.address):
        data = view.space.try_read(segment.address, DESCRIPTORS * struct.size)
        if data is None:
            walked.gap(
                f"heap {heap.address:#x}: the page descriptors of segment {segment.address:#x} are not in the dump"
            )
            continue
        segments.append(segment)
        tables.append(np.frombuffer(data, np.uint8).reshape(DESCRIPTORS, struct.size))
    return segments, tables


class _Reading:
    """The descriptors as one kind of build wrote them; (segments, 256) arrays."""

    def __init__(self, raw: NDArray[np.uint8], unit: NDArray[np.int64], struct: Struct, is_pre_vista: bool) -> None:
        self._struct, self._unit, self._size = struct, unit, raw.shape[2]
        flags = _column(raw, struct, "RangeFlags") & (0x3F if is_pre_vista else 0x1F)
        first, in_use = (flags & (8 if is_pre_vista else 2)) != 0, (flags & (4 if is_pre_vista else 1)) != 0
        # the descriptors of the units that hold the descriptors themselves have the segment's header in their place
        own = -(-DESCRIPTORS * raw.shape[2] // unit)
        behind = np.arange(DESCRIPTORS) >= own[:, None]
        self.first, self.in_use, self.own, self.behind = first & behind, in_use & behind, own, behind
        self.units = _column(raw, struct, "UnitSize")
        self.flags, self.is_pre_vista = flags, is_pre_vista
        self.signed = _column(raw, struct, "TreeSignature") == _TREE_SIGNATURE
        free = self.first & ~self.in_use
        if _is_usual(int((free & self.signed).sum()), int(free.sum())):
            self.signed &= ~free
        self.unused = _column(raw, struct, "UnusedBytes")
        self.extra = (_column(raw, struct, "ExtraPresent") & 1) != 0

    @property
    def score(self) -> float:
        """Share of the units with flags that lie in ranges as long as they say; more where the kinds are known ones."""
        good = self._good()
        busy = good & self.in_use
        covered = int(self.units[busy].sum()) + int((good & ~busy).sum())
        flagged = max(int(((self.flags != 0) & self.behind).sum()), 1)
        kinds = self._kinds()[busy]
        return covered / flagged + (float((kinds != RangeKind.INTERNAL).mean()) if len(kinds) else 0.0) / 8

    def _lengths(self) -> NDArray[np.int64]:
        """Units from each first descriptor to the next one, or the last unit in use before that; 0 for others."""
        count = DESCRIPTORS
        place = np.where(self.first, np.arange(count), count)
        following = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
        following = np.concatenate([following[:, 1:], np.full((len(place), 1), count)], axis=1)
        lengths = np.where(self.first, following - np.arange(count), 0)
        return np.where(self.first & (self.units > 0), np.minimum(lengths, self.units), lengths)

    def _good(self) -> NDArray[np.bool_]:
        """First descriptors of ranges that hold.

        As long as they say, signed where they are in use and only there, and nothing in use inside free ones (recorded
        heaps of all builds).
        """
        following = np.concatenate(
            [self.in_use[:, 1:] & ~self.first[:, 1:], np.zeros((len(self.first), 1), bool)], axis=1
        )
        free = ~self.signed & ~following
        good: NDArray[np.bool_] = (
            (self._lengths() == self.units) & self.first & np.where(self.in_use, self.signed, free)
        )
        return good

    def _uncovered(self) -> NDArray[np.bool_]:
        """Units that no range holds: in a whole segment there are none."""
        reach = np.maximum.accumulate(np.where(self.first, np.arange(DESCRIPTORS) + self._lengths(), 0), axis=1)
        uncovered: NDArray[np.bool_] = self.behind & (np.arange(DESCRIPTORS) >= reach)
        if _is_usual(int((uncovered & ~self.in_use).any(axis=1).sum()), len(uncovered)):
            uncovered &= self.in_use
        return uncovered

    def _kinds(self) -> NDArray[np.int64]:
        if self.is_pre_vista:
            busy = np.where(self.flags & 0x20, RangeKind.VS, np.where(self.flags & 1, RangeKind.LFH, RangeKind.PAGES))
        else:
            busy = np.array([RangeKind.PAGES, RangeKind.INTERNAL, RangeKind.LFH, RangeKind.VS])[self.flags >> 2 & 3]
        return np.where(self.in_use | self.signed, busy, RangeKind.FREE)

    def ranges(self, heap: int, starts: NDArray[np.int64], walked: WalkLog) -> Ranges:
        """The ranges, and an internal one for the units that hold the descriptors; findings for what cannot be."""
        good = self._good()
        self.first |= self._uncovered() & self.signed  # their flags are lost
        lengths, bad = self._lengths(), self.first & ~good
        seg, place = np.nonzero(self.first)
        self._count(heap, starts, bad, walked)
        unit = self._unit[seg]
        found = Ranges(
            starts[seg] + place * unit, lengths[seg, place] * unit, self._kinds()[seg, place].astype(np.int64),
            np.minimum(self.unused[seg, place], lengths[seg, place] * unit), self.extra[seg, place], good[seg, place],
            unit, starts[seg] + place * self._size,
        )  # fmt: skip
        none = np.zeros(len(starts), np.int64)
        size = self.own * self._unit
        own = Ranges(starts, size, none + RangeKind.INTERNAL, none, none != 0, none == 0, self._unit, starts)
        return _joined(own, found)

    def _count(self, heap: int, starts: NDArray[np.int64], bad: NDArray[np.bool_], walked: WalkLog) -> None:
        """Headers and findings; and units that no range holds."""
        walked.headers += int(self.first.sum())
        walked.good_headers += int((self.first & ~bad).sum())
        orphans = self._uncovered()
        orphans &= ~np.concatenate([np.zeros((len(orphans), 1), bool), orphans[:, :-1]], axis=1)  # the first of several
        for what, wrong in (("is damaged", bad), ("belongs to no range", orphans)):
            for seg, place in zip(*(index.tolist() for index in np.nonzero(wrong)), strict=True):
                address = int(starts[seg]) + place * self._size
                message = f"heap {heap:#x}: the page descriptor at {address:#x} {what}"
                found = f"flags {int(self.flags[seg, place]):#x}, {int(self.units[seg, place])} units"
                walked.find(Finding("segment", "error", heap, address, self._size, message, "a range that fits", found))
                walked.headers += what != "is damaged"


def _is_usual(odd: int, count: int) -> bool:
    """What most of many are is how the build has them, not damage: no recorded one has any."""
    return odd >= _MANY and 2 * odd > count


def _joined(one: Ranges, other: Ranges) -> Ranges:
    """Both, ascending by address."""
    both = Ranges(*(np.concatenate([getattr(part, column.name) for part in (one, other)]) for column in fields(Ranges)))
    order: NDArray[np.int64] = np.argsort(both.start, kind="stable")
    return both.of(order)


def _column(raw: NDArray[np.uint8], struct: Struct, name: str) -> NDArray[np.int64]:
    """A member of every descriptor, int64."""
    field = struct.fields[name]
    size = {"u8": 1, "u16": 2, "u32": 4}[field.type]
    data = np.ascontiguousarray(raw[:, :, field.offset : field.offset + size])
    return data.view(f"<u{size}")[:, :, 0].astype(np.int64)
