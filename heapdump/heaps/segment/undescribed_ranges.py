"""Finds subsegments in page ranges whose descriptors are not in the dump, by the headers of the subsegments.

Every unit whose descriptor is missing may be the first of a range. A VS header has a signature that confirms its size;
one unit follows its chunks. Under the key of the process, the members of an LFH header for blocks, bitmap and commit
states (one for each page) confirm each other (docs/reference/heap-structures.md §6.3 to §6.5).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.header import DESCRIPTORS
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.vs_subsegments import vs_ends


def undescribed_subsegments(walk: SegmentWalk, ranges: Ranges) -> Iterator[Ranges]:
    """Ranges without descriptors that begin as subsegments, ascending, one at a time; none overlaps `ranges`."""
    for segment in sorted(walk.heap.segments, key=lambda segment: segment.address):
        unit = segment.span.size // DESCRIPTORS
        inside = (ranges.start >= segment.span.start) & (ranges.start < segment.span.end)
        known = ranges.of(inside)
        start = _absent_units(walk, segment.address, unit)
        covered = np.zeros(len(start), bool)
        for low, size in zip(known.start.tolist(), known.size.tolist(), strict=True):
            covered |= (start >= low) & (start < low + size)
        start = start[~covered]
        # a range ends where the next known one begins
        limits = np.append(known.start, segment.span.end)
        end = limits[np.searchsorted(limits, start, side="right").clip(max=len(limits) - 1)]
        if len(start):
            found = [*_vs(walk, start, end, unit), *_lfh(walk, start, end, unit)]
            yield from sorted(found, key=lambda one: int(one.start[0]))


def _absent_units(walk: SegmentWalk, segment: int, unit: int) -> NDArray[np.int64]:
    """(n,) int64 addresses of the units whose descriptors are not in the dump, without those of the descriptors."""
    struct = walk.structs("_HEAP_PAGE_RANGE_DESCRIPTOR")[0]
    own = -(-DESCRIPTORS * struct.size // unit)
    number = np.arange(own, DESCRIPTORS)
    place = np.uint64(segment + struct.offset("RangeFlags")) + (number * struct.size).astype(np.uint64)
    _, is_present = walk.mapped.gather(place, 1)
    return segment + number[~is_present] * unit


def _vs(walk: SegmentWalk, start: NDArray[np.int64], end: NDArray[np.int64], unit: int) -> Iterator[Ranges]:
    """Those that begin as VS subsegments and end, with one unit more, on a unit before `end`."""
    for used_end in vs_ends(walk, start):
        fits = (used_end > start) & (used_end % unit == 0) & (used_end + unit <= end)
        for i in np.flatnonzero(fits).tolist():
            yield _range(int(start[i]), int(used_end[i]) + unit - int(start[i]), RangeKind.VS, unit)


def _lfh(walk: SegmentWalk, start: NDArray[np.int64], end: NDArray[np.int64], unit: int) -> Iterator[Ranges]:
    """Those that begin as LFH subsegments under the coding of the process, and end before `end`."""
    coding = walk.keys.lfh
    if coding is None:
        return
    headers = LfhSubsegments(walk, _ranges(start, end - start, RangeKind.LFH, unit), coding.struct)
    if headers.commit_state_offset is None:
        return
    size = -(-headers.commit_units * PAGE // unit) * unit
    size = np.where(headers.is_present & (size <= end - start), size, 0)
    extents = LfhSubsegments(walk, _ranges(start, size, RangeKind.LFH, unit), coding.struct).extents(coding)
    for i in np.flatnonzero(extents.is_consistent & (size > 0)).tolist():
        yield _range(int(start[i]), int(size[i]), RangeKind.LFH, unit)


def _range(start: int, size: int, kind: RangeKind, unit: int) -> Ranges:
    return _ranges(np.array([start]), np.array([size]), kind, unit)


def _ranges(start: NDArray[np.int64], size: NDArray[np.int64], kind: RangeKind, unit: int) -> Ranges:
    """Ranges without a descriptor, of one kind."""
    none = np.zeros(len(start), np.int64)
    unused = none + (unit if kind is RangeKind.VS else 0)
    return Ranges(start, size, none + kind, none - 1, unused, none != 0, none != 0, none + unit, none - 1)
