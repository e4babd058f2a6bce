"""The page ranges of a segment heap, from the range descriptors at the start of each segment.

In: segments. Out: `Ranges`, a table of what lies where. Structures: docs/reference/heap-structures.md §6.3. Each unit of a
segment has a descriptor. The first descriptor of a range says what the range holds, and its number of units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Segment
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.header import DESCRIPTORS
from heapdump.layouts import Struct
from heapdump.memory.space import AddressSpace

EXTRA_ROOM = 0x40
"""Bytes that an extra behind user data needs at most; they count as unused."""

_MANY = 4
"""Descriptors, or segments, from which on a majority says how the build writes them."""

KIND_CODES = range(4)
"""Codes of the kinds of ranges that a build can have, as far as is known."""

_TREE_SIGNATURE = 0xCCDDCCDD
_KNOWN_KIND_WEIGHT = 1 / 8
_POOR_SCORE = 1 / 4
"""Share of the units that make sense where the flags may have another meaning than the header of the heap suggests."""


class RangeKind(IntEnum):
    """The content of a page range; a FREE one belongs to nobody, an INTERNAL one to the allocator."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    INTERNAL = 4


@dataclass(frozen=True, slots=True)
class Ranges:
    """The page ranges of some segments, ascending by address; columns of one length n.

    Attributes:
        start: address of the first unit; int64.
        size: bytes of all units; int64.
        kind: `RangeKind`; as it is read PAGES for all ranges in use: `range_codes` tells their codes apart; int64.
        code: bits of the flags that name the kind of a range in use, 0 for plain pages; -1 for others; int64.
        unused: bytes at the end that the program did not ask for, of a block; int64.
        extra: True where an extra of the heap's own stands behind the user data.
        is_sound: False where the first descriptor contradicts the others.
        unit: bytes of one unit; int64.
        descriptor: address of the first descriptor; the range of the descriptors themselves has its own address; int64.
    """

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    kind: NDArray[np.int64]
    code: NDArray[np.int64]
    unused: NDArray[np.int64]
    extra: NDArray[np.bool_]
    is_sound: NDArray[np.bool_]
    unit: NDArray[np.int64]
    descriptor: NDArray[np.int64]

    @property
    def is_size_possible(self) -> NDArray[np.bool_]:
        """False for a block whose unused bytes are a unit and an extra, or more; (n,)."""
        possible: NDArray[np.bool_] = self.unused < self.unit + self.extra * EXTRA_ROOM
        possible |= self.kind != RangeKind.PAGES
        return possible

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Ranges:
        """The chosen rows."""
        return Ranges(*(getattr(self, column.name)[rows] for column in fields(self)))

    def of_kind(self, kind: RangeKind) -> Ranges:
        """The ranges of one kind."""
        return self.of(self.kind == kind)


def read_ranges(walk: SegmentWalk) -> Ranges:
    """The page ranges of all segments of a heap.

    Under wrong flags, or a wrong structure, ranges do not fill the segments: the first combination that fits everywhere
    is used, else the one that fits best.
    """
    structs = walk.structs("_HEAP_PAGE_RANGE_DESCRIPTOR")
    segments, tables, missing = _descriptor_tables(walk, structs[0])
    if not segments:
        none = np.empty(0, np.int64)
        return Ranges(none, none, none, none, none, none != 0, none != 0, none, none)
    raw, absent = np.stack(tables), np.stack(missing)
    unit = np.array([segment.span.size // DESCRIPTORS for segment in segments], np.int64)
    starts = np.array([segment.address for segment in segments], np.int64)
    is_early = "SegContexts" not in walk.layout["_SEGMENT_HEAP"]
    return _best_descriptors(raw, absent, unit, structs, is_early=is_early).ranges(walk, starts)


def _best_descriptors(
    raw: NDArray[np.uint8],
    absent: NDArray[np.bool_],
    unit: NDArray[np.int64],
    structs: Sequence[Struct],
    *,
    is_early: bool,
) -> _Descriptors:
    """The reading under which every unit lies in a range that holds, all of a known kind; else the best one.

    `is_early`: the heap has no contexts, as up to 15063: then its flags should mean what they did up to 15063. A few
    damaged bytes in a small heap cost the right reading more units than the wrong one.
    """
    tried = []
    for struct in structs:
        for is_before_16299 in (is_early, not is_early):
            descriptors = _Descriptors(raw, absent, unit, struct, is_before_16299=is_before_16299)
            if descriptors.score > 1:
                return descriptors
            tried.append(descriptors)
    usual = max(tried[::2], key=lambda descriptors: descriptors.score)
    return usual if usual.score > _POOR_SCORE else max(tried, key=lambda descriptors: descriptors.score)


def _descriptor_tables(
    walk: SegmentWalk, struct: Struct
) -> tuple[list[Segment], list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """(segments with descriptors in the dump, ascending; their descriptors; those that are not in the dump).

    Descriptors are (256, bytes of one) uint8 for each segment, zeros where they are absent.
    """
    segments: list[Segment] = []
    tables: list[NDArray[np.uint8]] = []
    missing: list[NDArray[np.bool_]] = []
    for segment in sorted(walk.heap.segments, key=lambda segment: segment.address):
        data, absent = _words(walk.view.space, segment.address, DESCRIPTORS * struct.size)
        is_absent: NDArray[np.bool_] = absent.reshape(DESCRIPTORS, struct.size).max(axis=1)
        if is_absent.any():
            count = "" if is_absent.all() else f"{int(is_absent.sum()):,} of the "
            walk.add_gap(f"{walk.name}: {count}page descriptors of segment {segment.address:#x} are not in the dump")
        if not is_absent.all():
            segments.append(segment)
            tables.append(data.reshape(DESCRIPTORS, struct.size))
            missing.append(is_absent)
    return segments, tables, missing


def _words(space: AddressSpace, start: int, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(the bytes of [start, start + size), zeros where the dump lacks a word of 4 bytes; True for these)."""
    whole = space.try_read(start, size)
    if whole is not None:
        return np.frombuffer(whole, np.uint8), np.zeros(size, bool)
    words, is_there = space.mapped.gather(np.uint64(start) + np.arange(0, size, 4, dtype=np.uint64), 4)
    return words.astype("<u4").view(np.uint8), np.repeat(~is_there, 4)


class _Descriptors:
    """The range descriptors of some segments under one structure and one meaning of the flags.

    Arrays are (segments, 256). `is_first`: first descriptor of a range; `in_use`; `is_signed`: has the TreeSignature;
    `units`: UnitSize; `flags`: the bits of RangeFlags that count.
    """

    def __init__(
        self,
        raw: NDArray[np.uint8],
        absent: NDArray[np.bool_],
        unit: NDArray[np.int64],
        struct: Struct,
        *,
        is_before_16299: bool,
    ) -> None:
        """`raw`: (segments, 256, bytes of a descriptor); `absent`: (segments, 256) those that the dump lacks.

        `is_before_16299`: RangeFlags mean what they did up to 15063.
        """
        self._absent = absent
        self._unit, self._size, self._is_before_16299 = unit, raw.shape[2], is_before_16299
        self.flags = _member(raw, struct, "RangeFlags") & (0x3F if is_before_16299 else 0x1F)
        first_bit, in_use_bit = (8, 4) if is_before_16299 else (2, 1)
        # the segment's header lies over the descriptors of the units that hold the descriptors themselves
        self._own_units = -(-DESCRIPTORS * raw.shape[2] // unit)
        self._is_behind_own = np.arange(DESCRIPTORS) >= self._own_units[:, None]
        self.is_first = ((self.flags & first_bit) != 0) & self._is_behind_own
        self.in_use = ((self.flags & in_use_bit) != 0) & self._is_behind_own
        self.units = _member(raw, struct, "UnitSize")
        self.is_signed = _member(raw, struct, "TreeSignature") == _TREE_SIGNATURE
        free = self.is_first & ~self.in_use
        if _is_majority(int((free & self.is_signed).sum()), int(free.sum())):
            self.is_signed &= ~free
        self._is_spurious = self._inside_sound_ranges()
        self.is_first &= ~self._is_spurious
        self._unused = _member(raw, struct, "UnusedBytes")
        self._extra = (_member(raw, struct, "ExtraPresent") & 1) != 0

    @property
    def score(self) -> float:
        """Share of the units with flags that lie in sound ranges, plus 1/8 of the share of those of a known kind."""
        sound = self._sound()
        in_use = sound & self.in_use
        covered = int(self.units[in_use].sum()) + int((sound & ~in_use).sum())
        flagged = max(int(((self.flags != 0) & self._is_behind_own).sum()), 1)
        is_known = self._code()[in_use] < len(KIND_CODES)
        return covered / flagged + (float(is_known.mean()) * _KNOWN_KIND_WEIGHT if len(is_known) else 0.0)

    def _inside_sound_ranges(self) -> NDArray[np.bool_]:
        """Descriptors that begin a range by their flags alone, inside one in use that ends exactly where another begins."""
        spurious = np.zeros(self.is_first.shape, bool)
        whole = self.is_first & self.in_use & self.is_signed & (self.units > 0)
        for row, place in zip(
            *(index.tolist() for index in np.nonzero(whole & (self._lengths() < self.units))), strict=True
        ):
            end = place + int(self.units[row, place])
            inner = self.is_first[row, place + 1 : end] & ~self.is_signed[row, place + 1 : end]
            others = self.is_first[row, place + 1 : end] & ~inner
            if not others.any() and (end == DESCRIPTORS or (end < DESCRIPTORS and self.is_first[row, end])):
                spurious[row, place + 1 : end] = inner
        return spurious

    def _lengths(self) -> NDArray[np.int64]:
        """Units of each range, at its first descriptor, and 0 elsewhere: UnitSize, but at most up to the next range."""
        place = np.where(self.is_first, np.arange(DESCRIPTORS), DESCRIPTORS)
        following = np.minimum.accumulate(place[:, ::-1], axis=1)[:, ::-1]
        following = np.concatenate([following[:, 1:], np.full((len(place), 1), DESCRIPTORS)], axis=1)
        lengths = np.where(self.is_first, following - np.arange(DESCRIPTORS), 0)
        return np.where(self.is_first & (self.units > 0), np.minimum(lengths, self.units), lengths)

    def _sound(self) -> NDArray[np.bool_]:
        """First descriptors that no other one contradicts.

        A range ends where the next one begins. It is signed exactly where it is in use. No unit of a free range is in use
        (recorded heaps of all builds).
        """
        next_in_use = self.in_use[:, 1:] & ~self.is_first[:, 1:]
        next_in_use = np.concatenate([next_in_use, np.zeros((len(next_in_use), 1), bool)], axis=1)
        signature_fits = np.where(self.in_use, self.is_signed, ~self.is_signed & ~next_in_use)
        sound: NDArray[np.bool_] = (self._lengths() == self.units) & self.is_first & signature_fits
        return sound

    def _is_open(self) -> NDArray[np.bool_]:
        """Units that may lie in a range whose first descriptor is absent."""
        place = np.arange(DESCRIPTORS)
        first, absent = (
            np.maximum.accumulate(np.where(which, place, -1), axis=1) for which in (self.is_first, self._absent)
        )
        is_open: NDArray[np.bool_] = absent > first
        return is_open

    def _uncovered(self) -> NDArray[np.bool_]:
        """Units that lie in no range, which an undamaged segment does not have."""
        ends = np.where(self.is_first, np.arange(DESCRIPTORS) + self._lengths(), 0)
        reach = np.maximum.accumulate(ends, axis=1)
        uncovered: NDArray[np.bool_] = self._is_behind_own & (np.arange(DESCRIPTORS) >= reach) & ~self._is_open()
        if _is_majority(int((uncovered & ~self.in_use).any(axis=1).sum()), len(uncovered)):
            uncovered &= self.in_use
        return uncovered

    def _ends_at_orphan(self) -> NDArray[np.bool_]:
        """Ranges with a unit in no range behind them: the UnitSize of the range may be what is damaged."""
        end = np.arange(DESCRIPTORS) + self._lengths()
        behind = np.take_along_axis(self._uncovered(), np.minimum(end, DESCRIPTORS - 1), axis=1)
        orphan: NDArray[np.bool_] = self.is_first & (end < DESCRIPTORS) & behind
        return orphan

    def _code(self) -> NDArray[np.int64]:
        """The bits of the flags that name the kind of a range (docs/reference/heap-structures.md §6.3)."""
        code = np.where(self.flags & 32, 2, self.flags & 1) if self._is_before_16299 else self.flags >> 2
        return np.where(self.in_use | self.is_signed, code, -1)

    def ranges(self, walk: SegmentWalk, starts: NDArray[np.int64]) -> Ranges:
        """The ranges, and for each segment an INTERNAL one for the units of the descriptors; reports what contradicts.

        `starts`: (segments,) addresses. A signed descriptor that no range holds begins one: its flags are damaged.
        """
        sound = self._sound()
        self.is_first |= self._uncovered() & self.is_signed
        self._report(walk, starts, ((self.is_first & ~sound) | self._is_spurious) & ~self._absent)
        sound &= ~self._ends_at_orphan()
        lengths, (row, place) = self._lengths(), np.nonzero(self.is_first)
        unit = self._unit[row]
        size = lengths[row, place] * unit
        code = self._code()[row, place]
        kind = np.where(code < 0, RangeKind.FREE, RangeKind.PAGES).astype(np.int64)
        found = Ranges(
            starts[row] + place * unit, size, kind, code, np.minimum(self._unused[row, place], size),
            self._extra[row, place], sound[row, place], unit, starts[row] + place * self._size,
        )  # fmt: skip
        none, own_bytes = np.zeros(len(starts), np.int64), self._own_units * self._unit
        own = Ranges(
            starts, own_bytes, none + RangeKind.INTERNAL, none - 1, none, none != 0, none == 0, self._unit, starts
        )
        return joined(own, found)

    def _report(self, walk: SegmentWalk, starts: NDArray[np.int64], bad: NDArray[np.bool_]) -> None:
        """Counts headers; findings for bad first descriptors, and for the first of neighbouring units in no range."""
        headers = self.is_first & ~self._absent
        walk.count_headers(int(headers.sum()), int((headers & ~bad).sum()))
        orphans = self._uncovered()
        orphans &= ~np.concatenate([np.zeros((len(orphans), 1), bool), orphans[:, :-1]], axis=1)
        for what, wrong in (("is damaged", bad), ("belongs to no range", orphans)):
            for row, place in zip(*(index.tolist() for index in np.nonzero(wrong)), strict=True):
                address = int(starts[row]) + place * self._size
                found = f"flags {int(self.flags[row, place]):#x}, {int(self.units[row, place])} units"
                damaged = DamagedBytes("segment", address, self._size, "a range that fits", found)
                walk.report(damaged, f"{walk.name}: the page descriptor at {address:#x} {what}")
        walk.count_headers(int(orphans.sum()), 0)


def _is_majority(count: int, total: int) -> bool:
    """True for most of many: what most descriptors have is how the build writes them, and no damage."""
    return count >= _MANY and 2 * count > total


def joined(one: Ranges, other: Ranges) -> Ranges:
    """Both, ascending by address."""
    both = Ranges(*(np.concatenate([getattr(each, column.name) for each in (one, other)]) for column in fields(Ranges)))
    order: NDArray[np.int64] = np.argsort(both.start, kind="stable")
    return both.of(order)


def _member(raw: NDArray[np.uint8], struct: Struct, name: str) -> NDArray[np.int64]:
    """A member of every descriptor; (segments, 256) int64."""
    field = struct.fields[name]
    size = {"u8": 1, "u16": 2, "u32": 4}[field.type]
    data = np.ascontiguousarray(raw[:, :, field.offset : field.offset + size])
    return data.view(f"<u{size}")[:, :, 0].astype(np.int64)
