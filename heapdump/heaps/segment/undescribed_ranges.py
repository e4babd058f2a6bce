"""Finds subsegments in page ranges whose descriptors are not in the dump, by the headers of the subsegments.

Every unit whose descriptor is missing may be the first of a range. A VS header has a signature that confirms its size;
one unit follows its chunks. Under the key of the process, the members of an LFH header for blocks, bitmap and commit
states (one for each page) confirm each other (docs/reference/heap-structures.md §6.3 to §6.5).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Segment
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.header import DESCRIPTORS
from heapdump.heaps.segment.lfh_coding import read_lfh_subsegments
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.vs_subsegments import vs_ends
from heapdump.layouts import Struct


def undescribed_subsegments(walk: SegmentWalk, ranges: Ranges) -> Iterator[Ranges]:
    """Ranges without descriptors that begin as subsegments, ascending, one at a time; none overlaps `ranges`."""
    for unit, start, end in undescribed_units(walk, ranges):
        found = [*_vs(walk, start, end, unit), *_lfh(walk, start, end, unit)]
        yield from sorted(found, key=lambda one: int(one.start[0]))


def undescribed_units(walk: SegmentWalk, ranges: Ranges) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
    """(bytes of a unit, (n,) int64 addresses of units without descriptor outside `ranges`, (n,) ends of the runs).

    A run ends where the next known range begins. One for each segment that has such units; all ascends.
    """
    for segment, start in _absent_units(walk):
        known = ranges.of((ranges.start >= segment.span.start) & (ranges.start < segment.span.end))
        covered = np.zeros(len(start), bool)
        for low, size in zip(known.start.tolist(), known.size.tolist(), strict=True):
            covered |= (start >= low) & (start < low + size)
        start = start[~covered]
        # a range ends where the next known one begins
        limits = np.append(known.start, segment.span.end)
        end = limits[np.searchsorted(limits, start, side="right").clip(max=len(limits) - 1)]
        if len(start):
            yield segment.span.size // DESCRIPTORS, start, end


def _absent_units(walk: SegmentWalk) -> Iterator[tuple[Segment, NDArray[np.int64]]]:
    """(segment, (n,) int64 addresses of its units whose descriptors are not in the dump), where there are any.

    Segments ascend by address. The descriptors' own units are left out.
    """
    struct = walk.structs("_HEAP_PAGE_RANGE_DESCRIPTOR")[0]
    segments = sorted(walk.heap.segments, key=lambda segment: segment.address)
    address = np.array([segment.address for segment in segments], np.uint64).reshape(-1, 1)
    place = address + (struct.offset("RangeFlags") + np.arange(DESCRIPTORS) * struct.size).astype(np.uint64)
    is_present = walk.mapped.gather(place.reshape(-1), 1)[1].reshape(place.shape)
    for i in np.flatnonzero(~is_present.all(axis=1)).tolist():
        unit = segments[i].span.size // DESCRIPTORS
        number = np.arange(-(-DESCRIPTORS * struct.size // unit), DESCRIPTORS)
        absent = segments[i].address + number[~is_present[i, number]] * unit
        if len(absent):
            yield segments[i], absent


def _vs(walk: SegmentWalk, start: NDArray[np.int64], end: NDArray[np.int64], unit: int) -> Iterator[Ranges]:
    """Those that begin as VS subsegments and end, with one unit more, on a unit before `end`."""
    structs = walk.structs("_HEAP_VS_SUBSEGMENT")
    for used_end in vs_ends(walk.mapped, walk.granule, structs, start.astype(np.uint64)):
        fits = (used_end > start) & (used_end % unit == 0) & (used_end + unit <= end)
        for i in np.flatnonzero(fits).tolist():
            yield undescribed_range(int(start[i]), int(used_end[i]) + unit - int(start[i]), RangeKind.VS, unit)


def _lfh(walk: SegmentWalk, start: NDArray[np.int64], end: NDArray[np.int64], unit: int) -> Iterator[Ranges]:
    """Those that begin as LFH subsegments under the coding of the process, and end before `end`."""
    if walk.keys.lfh is None:
        _solve_coding(walk, start, end, unit)
    coding = walk.keys.lfh
    if coding is None:
        return
    size = _lfh_sizes(walk, coding.struct, start, end, unit)
    extents = LfhSubsegments(walk, _ranges(start, size, RangeKind.LFH, unit), coding.struct).extents(coding)
    for i in np.flatnonzero(extents.is_consistent & (size > 0)).tolist():
        yield undescribed_range(int(start[i]), int(size[i]), RangeKind.LFH, unit)


def _solve_coding(walk: SegmentWalk, start: NDArray[np.int64], end: NDArray[np.int64], unit: int) -> None:
    """Finds the coding of the process by those that begin with a header whose plain members agree."""
    for struct in walk.structs("_HEAP_LFH_SUBSEGMENT"):
        size = _lfh_sizes(walk, struct, start, end, unit)
        ranges = _ranges(start, size, RangeKind.LFH, unit)
        agree = (size > 0) & LfhSubsegments(walk, ranges, struct).members_agree()
        if agree.any():
            read_lfh_subsegments(walk, ranges.of(agree))
        if walk.keys.lfh is not None:
            return


def _lfh_sizes(
    walk: SegmentWalk, struct: Struct, start: NDArray[np.int64], end: NDArray[np.int64], unit: int
) -> NDArray[np.int64]:
    """(n,) bytes of the ranges of LFH subsegments, by their numbers of commit states; 0 where that cannot be."""
    headers = LfhSubsegments(walk, _ranges(start, end - start, RangeKind.LFH, unit), struct)
    if headers.commit_state_offset is None:
        return np.zeros(len(start), np.int64)
    size = -(-headers.commit_units * PAGE // unit) * unit
    possible: NDArray[np.int64] = np.where(headers.is_present & (size <= end - start), size, 0)
    return possible


def undescribed_range(start: int, size: int, kind: RangeKind, unit: int) -> Ranges:
    """A range without a descriptor."""
    return _ranges(np.array([start]), np.array([size]), kind, unit)


def _ranges(start: NDArray[np.int64], size: NDArray[np.int64], kind: RangeKind, unit: int) -> Ranges:
    """Ranges without a descriptor, of one kind."""
    none = np.zeros(len(start), np.int64)
    unused = none + (unit if kind is RangeKind.VS else 0)
    return Ranges(start, size, none + kind, none - 1, unused, none != 0, none != 0, none + unit, none - 1)
