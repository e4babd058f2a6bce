"""Finds where LFH blocks lie when the members of user blocks and subsegment contradict each other.

The header of an LFH block proves its own place (`lfh_encoding`). So the headers in a user area are witnesses, beside
the members of the user blocks and of the subsegment (`lfh_members`). Every geometry that some witness names is tried;
the one that most headers and members confirm is taken. User blocks to which no subsegment points back, and in which no
block is busy, are free ones that the LFH keeps for later: they are no damage and hold no blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_encoding import INDEX_SHIFT, block_coding
from heapdump.heaps.nt.lfh_members import (
    Geometry,
    Members,
    Subsegment,
    count_that_fits,
    decoded_offsets,
    first_offset,
    read_subsegment,
)
from heapdump.heaps.nt.lfh_user_blocks import UserArea
from heapdump.heaps.nt.windows import Window

_LEAST_EQUAL = 3
"""Number of headers with equal constants that are evidence where the right constant is not known."""

_MOST_BLOCKS = 0x10000


@dataclass(frozen=True, slots=True)
class Scan:
    """The words of a user area where headers may be: one for each granule, (n,) each.

    Attributes:
        words: the word at the place of a header word of each granule.
        good: True where it is the header word of an LFH block with `constant`.
        missing: True where it is not in the dump.
        constant: the constant of the area's headers (`lfh_encoding`).
    """

    words: NDArray[np.int64]
    good: NDArray[np.bool_]
    missing: NDArray[np.bool_]
    constant: int


@dataclass(frozen=True, slots=True)
class Recovered:
    """The blocks of a user area, as their headers place them.

    Attributes:
        geometry: where the blocks lie.
        constant: of their headers; None where it is not known.
        subsegment: their subsegment; None where it is not in the dump or not known.
        is_busy: True where at least one block is busy.
    """

    geometry: Geometry
    constant: int | None
    subsegment: Subsegment | None
    is_busy: bool


def has_marked_word(context: HeapContext, window: Window, area: UserArea) -> bool:
    """False where no word of the area has the mark of an LFH header: then `recover` finds nothing."""
    entry_format = context.entry_format
    first = (area.address - int(window.bases(np.array([area.address]))[0])) // 8 + entry_format.word_index
    words = window.words[first : first + area.size // 8 : entry_format.stride]
    return bool(block_coding(entry_format).are_lfh(words).any())


def recover(
    context: HeapContext, window: Window, area: UserArea, members: Members, key: int | None
) -> Recovered | None:
    """The blocks of the area; None where no geometry has enough evidence, or the area is kept for later."""
    coding = block_coding(context.entry_format)
    scan = _scan(context, window, area, members.pointer, key)
    if scan is None:
        return None
    subsegment = _subsegment(context, area, members, scan, key)
    geometry = _best(context, area, scan, _GeometryValues(context, area, members, subsegment, key))
    if geometry is None:
        return None
    places = _places(geometry, context.entry_format.granule)
    words, good = scan.words[places], scan.good[places]
    is_busy = bool((coding.are_busy(words) & good).any())
    is_linked = members.subsegment is not None and members.subsegment.user_blocks == area.address
    if not is_busy and not is_linked:
        return None
    return Recovered(geometry, scan.constant, subsegment, is_busy)


def _scan(context: HeapContext, window: Window, area: UserArea, pointer: int, key: int | None) -> Scan | None:
    """The words of the area and the good headers among them; None where no header is good.

    `pointer`: address of the subsegment that the user blocks name.
    """
    entry_format, coding = context.entry_format, block_coding(context.entry_format)
    granule, stride = entry_format.granule, entry_format.stride
    base = int(window.bases(np.array([area.address]))[0])
    places = np.arange(area.size // granule) + (area.address - base) // granule
    places = places[places * stride + entry_format.word_index < len(window.words)]
    words = window.words[places * stride + entry_format.word_index]
    entries = base + places * granule
    constants = coding.constants(words, entries, area.address)
    missing = np.zeros(len(words), bool)
    for hole in window.missing:
        missing |= (entries + granule > hole.start) & (entries < hole.end)
    lfh = coding.are_lfh(words) & ~missing
    constant = _constant(context, area, pointer, constants[lfh], key)
    if constant is None:
        return None
    return Scan(words, lfh & (constants == signed64(constant)), missing, constant)


def _constant(
    context: HeapContext, area: UserArea, pointer: int, constants: NDArray[np.int64], key: int | None
) -> int | None:
    """The constant of the headers of this area; None where it cannot be decided.

    `pointer`: address of the subsegment that the user blocks name. `constants`: of all words that may be headers.
    """
    coding = block_coding(context.entry_format)
    if key is not None and not coding.names_subsegment:
        right = coding.constant(key, context.address, 0)
        return right if (constants == right).any() else None
    if key is not None:
        struct = context.layout["_HEAP_SUBSEGMENT"]
        subsegments = coding.subsegments(constants, key, context.address)
        places = (subsegments + struct.offset("UserBlocks")).astype(np.uint64)
        back, is_present = context.space.mapped.gather(places, context.view.pointer_bytes)
        linked = constants[is_present & (back == np.uint64(area.address))]
        if len(linked):
            return _most_frequent(linked)[0]
        named = coding.constant(key, context.address, pointer)
        if (constants == signed64(named)).any():
            return named
    value, count = _most_frequent(constants)
    return value if count >= _LEAST_EQUAL else None


def _most_frequent(values: NDArray[np.int64]) -> tuple[int, int]:
    """(the most frequent value, its number); (0, 0) for no values."""
    if not len(values):
        return 0, 0
    found, counts = np.unique(values, return_counts=True)
    best = int(counts.argmax())
    return int(found[best]), int(counts[best])


def _subsegment(
    context: HeapContext, area: UserArea, members: Members, scan: Scan, key: int | None
) -> Subsegment | None:
    """The subsegment, named by the user blocks or by the block headers, that points back to the area.

    Where neither points back, the one that the user blocks name, which may be None.
    """
    named, coding = members.subsegment, block_coding(context.entry_format)
    if key is None or not coding.names_subsegment or (named and named.user_blocks == area.address):
        return named
    found = coding.subsegments(np.array([signed64(scan.constant)]), key, context.address)
    other = read_subsegment(context, int(found[0]))
    return other if other is not None and other.user_blocks == area.address else named


def _places(geometry: Geometry, granule: int) -> NDArray[np.int64]:
    """Granules from the user blocks to the header of each block."""
    places: NDArray[np.int64] = (geometry.first + np.arange(geometry.blocks) * geometry.stride) // granule
    return places


class _GeometryValues:
    """The values that members and headers name for each member of the geometry.

    Attributes:
        last: bytes from the user blocks to the last good header.
    """

    def __init__(
        self, context: HeapContext, area: UserArea, members: Members, subsegment: Subsegment | None, key: int | None
    ) -> None:
        self._context, self._area = context, area
        offsets = None if members.offsets is None else decoded_offsets(context, area, members.offsets, key)
        self.firsts = [offsets[0]] if offsets else []
        self.strides = [offsets[1]] if offsets else []
        self.counts = [] if members.bitmap_bits is None else [members.bitmap_bits]
        self.last = 0
        if subsegment is not None:
            self.strides.append(subsegment.stride)
            self.counts.append(subsegment.count)

    def add_headers(self, first: int | None, stride: int) -> None:
        """Adds values from the headers: `stride`, the distance of neighbours; `first`, where headers have numbers."""
        self.strides.append(stride)
        if first is not None:
            self.firsts.append(first)

    def _count_by_headers(self, stride: int) -> int:
        """The number of blocks up to the last good header."""
        first = self.firsts[-1] if self.firsts else first_offset(self._context, 0)
        return (self.last - first) // stride + 1

    def choices(self) -> Iterator[tuple[Geometry, int]]:
        """Each distinct geometry inside the area, with the number of values that agree with it."""
        granule, seen = self._context.entry_format.granule, set[Geometry]()
        for stride in dict.fromkeys(self.strides):
            if not stride or stride % granule:
                continue
            counts = [*self.counts, count_that_fits(self._context, self._area, stride)]
            # before 8 the LFH makes as many as fit; later that many or fewer, so that this is no evidence
            named = self.counts if "BusyBitmap" in self._context.layout["_HEAP_USERDATA_HEADER"] else counts
            for count in dict.fromkeys((*counts, self._count_by_headers(stride))):
                if not 0 < count <= _MOST_BLOCKS:
                    continue
                firsts = [*self.firsts, first_offset(self._context, count)]
                for first in dict.fromkeys(firsts):
                    geometry = Geometry(first, stride, count)
                    if geometry in seen or first % granule or first + stride * count > self._area.size:
                        continue
                    seen.add(geometry)
                    agreeing = self.strides.count(stride) + named.count(count) + firsts.count(first)
                    yield geometry, agreeing


def _best(context: HeapContext, area: UserArea, scan: Scan, sources: _GeometryValues) -> Geometry | None:
    """The geometry that most headers and members confirm; None where fewer than half of its headers are good."""
    granule = context.entry_format.granule
    found = np.flatnonzero(scan.good)
    sources.last = int(found[-1]) * granule if len(found) else 0
    if len(found) > 1 or block_coding(context.entry_format).has_index:
        _add_headers(context, scan, found, sources)
    best: tuple[int, Geometry] | None = None
    for geometry, agreeing in sources.choices():
        places = _places(geometry, granule)
        places = places[places < len(scan.good)]
        good, missing = int(scan.good[places].sum()), int(scan.missing[places].sum())
        bad = geometry.blocks - good - missing
        score = good - bad + 2 * agreeing
        if good and good >= bad and (best is None or score > best[0]):
            best = (score, geometry)
    return best[1] if best else None


def _add_headers(context: HeapContext, scan: Scan, found: NDArray[np.int64], sources: _GeometryValues) -> None:
    """Adds stride and offset of block 0 by the good headers at the granules `found`."""
    granule = context.entry_format.granule
    if not block_coding(context.entry_format).has_index:
        sources.add_headers(None, int(np.diff(found).min()) * granule)
        return
    number = scan.words[found] >> INDEX_SHIFT & 0xFFFF
    steps = number[1:] - number[:-1]
    rising = np.flatnonzero(steps > 0)
    strides = (np.diff(found)[rising] // steps[rising]).tolist()
    known = strides or [stride // granule for stride in sources.strides[:2]]
    stride = max(known, key=known.count) if known else 0
    if stride:
        first = _first(found, number, stride)
        sources.add_headers(first * granule, stride * granule)


def _first(found: NDArray[np.int64], number: NDArray[np.int64], stride: int) -> int:
    """The granule of block 0 that most headers name: granule - number * stride. `found`: granules of the headers."""
    firsts: Sequence[int] = (found - number * stride).tolist()
    return max(firsts, key=firsts.count)
