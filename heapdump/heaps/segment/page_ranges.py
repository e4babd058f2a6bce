"""Reads the page ranges of a segment heap from the range descriptors at the start of each segment.

Structures: docs/reference/heap-structures.md §6.3. A segment has 256 units, and a descriptor for each. The first
descriptor of a range names the content of the range and its number of units.
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
from heapdump.heaps.segment.range_lengths import range_lengths
from heapdump.layouts import Struct
from heapdump.memory.space import AddressSpace

EXTRA_ROOM = 0x40
"""The most bytes that an extra behind user data needs; they count as unused."""

_MANY = 4
"""From this many descriptors, or segments, on, the majority defines how the build writes them."""

KIND_CODES = range(4)
"""The codes of kinds of ranges that are known, over all builds."""

_TREE_SIGNATURE = 0xCCDDCCDD
_KNOWN_KIND_WEIGHT = 1 / 8
_POOR_SCORE = 1 / 4
"""Share of the units that make sense where the flags may have another meaning than the header of the heap suggests."""


class RangeKind(IntEnum):
    """The content of a page range: PAGES is a block of whole pages, INTERNAL belongs to the allocator."""

    FREE = 0
    PAGES = 1
    LFH = 2
    VS = 3
    INTERNAL = 4


@dataclass(frozen=True, slots=True)
class Ranges:
    """The page ranges of some segments, ascending by address; (n,) each.

    Attributes:
        start: int64 address of the first unit.
        size: int64 bytes of all units.
        kind: int64 `RangeKind`. `read_ranges` gives PAGES to all ranges in use; `range_codes` then corrects it.
        code: int64 code of the kind of a range in use, 0 for plain pages; -1 for other ranges.
        unused: int64 bytes at the end of a block that were not requested.
        extra: bool, True where an extra of the heap stands behind the user data.
        is_sound: bool, False where the first descriptor contradicts other descriptors.
        unit: int64 bytes of one unit.
        descriptor: int64 address of the first descriptor; for the range of the descriptors themselves its own address.
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
        """(n,) False for a block with as many unused bytes as a unit (and an extra, where it has one), or more."""
        possible: NDArray[np.bool_] = self.unused < self.unit + self.extra * EXTRA_ROOM
        possible |= self.kind != RangeKind.PAGES
        return possible

    def of(self, rows: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Ranges:
        """The chosen ranges."""
        return Ranges(*(getattr(self, column.name)[rows] for column in fields(self)))

    def of_kind(self, kind: RangeKind) -> Ranges:
        """The ranges of one kind."""
        return self.of(self.kind == kind)


def read_ranges(walk: SegmentWalk) -> Ranges:
    """The page ranges of all segments of a heap, ascending by address.

    Every combination of structure and meaning of the flags is tried, because under a wrong one ranges do not fill the
    segments. The first that fits everywhere is used, else the best one.
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
    """The descriptors under the structure and meaning of flags that fit best.

    The first combination under which every unit lies in a sound range of a known kind is taken, else the best one. The
    likelier meaning of the flags is preferred, because a few damaged bytes in a small heap can make the wrong one fit
    better. `is_early`: True for a heap without contexts, as up to 15063, whose flags should have the early meaning.
    """
    tried = []
    for struct in structs:
        for is_before_16299 in (is_early, not is_early):
            descriptors = _Descriptors(raw, absent, unit, struct, is_before_16299=is_before_16299)
            if descriptors.score >= 1 + _KNOWN_KIND_WEIGHT:  # that of a heap without contradictions
                return descriptors
            tried.append(descriptors)
    usual = max(tried[::2], key=lambda descriptors: descriptors.score)
    return usual if usual.score > _POOR_SCORE else max(tried, key=lambda descriptors: descriptors.score)


def _descriptor_tables(
    walk: SegmentWalk, struct: Struct
) -> tuple[list[Segment], list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """(segments with descriptors in the dump, ascending; their descriptors; which of these are not in the dump).

    The descriptors of a segment are (256, bytes of a descriptor) uint8, zeros where they are not in the dump; the third
    list has (256,) bool for each segment.
    """
    segments: list[Segment] = []
    tables: list[NDArray[np.uint8]] = []
    missing: list[NDArray[np.bool_]] = []
    for segment in sorted(walk.heap.segments, key=lambda segment: segment.address):
        data, absent = _words(walk.view.space, segment.address, DESCRIPTORS * struct.size)
        is_absent: NDArray[np.bool_] = np.zeros(DESCRIPTORS, bool)
        if absent.any():
            is_absent = absent.reshape(DESCRIPTORS, struct.size).max(axis=1)
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
    raw = space.try_read(start, size)
    if raw is not None:
        return np.frombuffer(raw, np.uint8), np.zeros(size, bool)
    words, is_there = space.mapped.gather(np.uint64(start) + np.arange(0, size, 4, dtype=np.uint64), 4)
    return words.astype("<u4").view(np.uint8), np.repeat(~is_there, 4)


class _Descriptors:
    """The range descriptors of some segments under one structure and one meaning of the flags; (segments, 256) each.

    Attributes:
        is_first: True for the first descriptor of a range.
        in_use: True for units in use.
        is_signed: True for descriptors with the TreeSignature.
        units: UnitSize.
        flags: the bits of RangeFlags that have a meaning.
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
        """Decodes the descriptors.

        Args:
            raw: (segments, 256, bytes of a descriptor) uint8.
            absent: (segments, 256) True for descriptors that are not in the dump.
            unit: (segments,) bytes of a unit.
            struct: the structure of a descriptor.
            is_before_16299: True for the meaning that RangeFlags had up to 15063.
        """
        self._absent = absent
        self._unit, self._size, self._is_before_16299 = unit, raw.shape[2], is_before_16299
        self.flags = _member(raw, struct, "RangeFlags") & (0x3F if is_before_16299 else 0x1F)
        first_bit, in_use_bit = (8, 4) if is_before_16299 else (2, 1)
        # the segment's header takes the place of the first descriptors: those of the units that hold the descriptors
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
        """Share of the units with flags that lie in sound ranges, plus 1/8 of the share that have a known kind."""
        sound = self._sound()
        in_use = sound & self.in_use
        covered = int(self.units[in_use].sum()) + int((sound & ~in_use).sum())
        flagged = max(int(((self.flags != 0) & self._is_behind_own).sum()), 1)
        is_known = self._code()[in_use] < len(KIND_CODES)
        return covered / flagged + (float(is_known.mean()) * _KNOWN_KIND_WEIGHT if len(is_known) else 0.0)

    def _inside_sound_ranges(self) -> NDArray[np.bool_]:
        """True for descriptors that begin a range by their flags alone, inside a range in use that is complete.

        That range ends exactly where the next one begins.
        """
        spurious = np.zeros(self.is_first.shape, bool)
        begins = self.is_first & self.in_use & self.is_signed & (self.units > 0)
        for row, place in zip(
            *(index.tolist() for index in np.nonzero(begins & (self._lengths() < self.units))), strict=True
        ):
            end = place + int(self.units[row, place])
            inner = self.is_first[row, place + 1 : end] & ~self.is_signed[row, place + 1 : end]
            others = self.is_first[row, place + 1 : end] & ~inner
            if not others.any() and (end == DESCRIPTORS or (end < DESCRIPTORS and self.is_first[row, end])):
                spurious[row, place + 1 : end] = inner
        return spurious

    def _lengths(self) -> NDArray[np.int64]:
        """Units of each range at its first descriptor, 0 elsewhere."""
        return range_lengths(self.is_first, self.in_use, self.is_signed, self.units)

    def _sound(self) -> NDArray[np.bool_]:
        """True for first descriptors that no other descriptor contradicts.

        A range ends where the next one begins; it is signed if and only if it is in use; no unit of a free range is in
        use (recorded heaps of all builds).
        """
        next_in_use = self.in_use[:, 1:] & ~self.is_first[:, 1:]
        next_in_use = np.concatenate([next_in_use, np.zeros((len(next_in_use), 1), bool)], axis=1)
        signature_fits = np.where(self.in_use, self.is_signed, ~self.is_signed & ~next_in_use)
        sound: NDArray[np.bool_] = (self._lengths() == self.units) & self.is_first & signature_fits
        return sound

    def _is_open(self) -> NDArray[np.bool_]:
        """True for units that may belong to a range whose first descriptor is not in the dump."""
        place = np.arange(DESCRIPTORS)
        first, absent = (
            np.maximum.accumulate(np.where(which, place, -1), axis=1) for which in (self.is_first, self._absent)
        )
        is_open: NDArray[np.bool_] = absent > first
        return is_open

    def _uncovered(self) -> NDArray[np.bool_]:
        """True for units in no range; an undamaged segment has none."""
        ends = np.where(self.is_first, np.arange(DESCRIPTORS) + self._lengths(), 0)
        reach = np.maximum.accumulate(ends, axis=1)
        uncovered: NDArray[np.bool_] = self._is_behind_own & (np.arange(DESCRIPTORS) >= reach) & ~self._is_open()
        if _is_majority(int((uncovered & ~self.in_use).any(axis=1).sum()), len(uncovered)):
            uncovered &= self.in_use
        return uncovered

    def _ends_at_orphan(self) -> NDArray[np.bool_]:
        """True for ranges directly before a unit in no range: their UnitSize may be damaged."""
        end = np.arange(DESCRIPTORS) + self._lengths()
        behind = np.take_along_axis(self._uncovered(), np.minimum(end, DESCRIPTORS - 1), axis=1)
        orphan: NDArray[np.bool_] = self.is_first & (end < DESCRIPTORS) & behind
        return orphan

    def _code(self) -> NDArray[np.int64]:
        """The code of the kind of each range, from the flags (docs/reference/heap-structures.md §6.3)."""
        code = np.where(self.flags & 32, 2, self.flags & 1) if self._is_before_16299 else self.flags >> 2
        return np.where(self.in_use | self.is_signed, code, -1)

    def ranges(self, walk: SegmentWalk, starts: NDArray[np.int64]) -> Ranges:
        """The ranges, with an INTERNAL one for the descriptors of each segment; reports contradictions.

        A signed descriptor in no range begins a range; its flags are damaged. `starts`: (segments,) addresses.
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
        """Counts first descriptors in the dump as headers; adds findings for bad ones and for runs in no range."""
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
    """True where `count` is most of a large `total`: then it is how the build writes them, and no damage."""
    return count >= _MANY and 2 * count > total


def joined(one: Ranges, other: Ranges) -> Ranges:
    """The ranges of both, ascending by address."""
    both = Ranges(*(np.concatenate([getattr(each, column.name) for each in (one, other)]) for column in fields(Ranges)))
    order: NDArray[np.int64] = np.argsort(both.start, kind="stable")
    return both.of(order)


def _member(raw: NDArray[np.uint8], struct: Struct, name: str) -> NDArray[np.int64]:
    """(segments, 256) int64 values of a member of every descriptor."""
    field = struct.fields[name]
    size = {"u8": 1, "u16": 2, "u32": 4}[field.type]
    data = np.ascontiguousarray(raw[:, :, field.offset : field.offset + size])
    return data.view(f"<u{size}")[:, :, 0].astype(np.int64)
