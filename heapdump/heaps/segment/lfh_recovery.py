"""LFH subsegments of which one member of the header is damaged: the others still tell where their blocks lie.

In every recorded heap (subsegments of up to 32 KiB) blocks begin right behind the commit states, these right behind the
bitmap, and there is no room for one block more: so place, size and number of blocks each follow from the rest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.lfh_bitmap import is_filled_behind
from heapdump.heaps.segment.lfh_subsegments import MOST_BLOCKS, Decoded, Subsegments

_MOST_MENDED = 1 << 12
"""Damaged headers of some megabytes that are looked at one by one; the rest are left out with their findings."""


@dataclass(frozen=True, slots=True)
class _Told:
    """What the sound members tell of a subsegment's blocks, and which member is damaged."""

    member: Literal["BlockOffsets", "BlockCount", "CommitStateOffset"]
    size: int
    first: int
    count: int


def mended(job: SegmentHeapJob, read: Subsegments, decoded: Decoded) -> Decoded:
    """The offsets with what follows for subsegments whose header contradicts itself; a finding for each of those."""
    if read.states is None or not job.keys.has_full_slots:
        return replace(decoded, is_whole=decoded.is_good)
    rows = np.flatnonzero(read.there & ~decoded.is_whole)
    if not len(rows):
        return decoded
    out = replace(
        decoded,
        size=decoded.size.copy(),
        first=decoded.first.copy(),
        count=decoded.count.copy(),
        is_good=decoded.is_good.copy(),
    )
    out.is_good[rows[_MOST_MENDED:]] = False
    for i in rows[:_MOST_MENDED].tolist():
        readings = list(_told(read, decoded, i))
        if len(readings) > 1:
            readings = [told for told in readings if is_filled_behind(read, np.array([i]), np.array([told.count]))[0]]
            out.is_good[i] = False
        if len(readings) == 1:
            (told,) = readings
            out.size[i], out.first[i], out.count[i], out.is_good[i] = told.size, told.first, told.count, True
            _find(job, read, decoded, i, told)
        elif out.is_good[i]:
            address, heap = int(read.start[i]), job.heap.address
            message = f"heap {heap:#x}: the members of the header of the LFH subsegment at {address:#x} disagree"
            job.walked.find(
                Finding(
                    "lfh_subsegment",
                    "warning",
                    heap,
                    address,
                    read.struct.size,
                    message,
                    "blocks that fill it",
                    "others",
                )
            )
    return out


def _told(read: Subsegments, decoded: Decoded, i: int) -> Iterator[_Told]:
    """Readings of subsegment `i` under which all members but one agree, the likeliest first."""
    size, first, count, total = (int(v[i]) for v in (decoded.size, decoded.first, decoded.count, read.bytes))
    states, units = (int(v[i]) for v in (read.states if read.states is not None else read.bytes, read.commit_units))
    has_size = size > 0 and size % read.job.view.granularity == 0
    most = (total - first) // size if has_size else 0
    for fits in (most, most - 1):  # one more block may need one more word of the bitmap
        if 0 < fits <= MOST_BLOCKS and _bits_end(read, fits) == states and _is_full(read, i, size, first, fits):
            yield _Told("BlockCount", size, first, fits)
    if not 0 < count <= MOST_BLOCKS:
        return
    if _bits_end(read, count) == states and units == total // PAGE:
        granule, part, number = read.job.view.granularity, slice(i, i + 1), np.array([count])
        sizes = np.arange(granule, min(total // count, 0xFFFF) + 1, granule)
        found: dict[int, int] = {}
        for place in read.places(sizes, part):  # the aligned one counts before the other
            place = np.broadcast_to(place, sizes.shape)
            full = read.is_full(sizes, place, number, part)
            found |= dict(zip(sizes[full].tolist(), place[full].tolist(), strict=True))
        # the size as it is, else the only one of which so many blocks fit
        if size in found or len(found) == 1:
            size = size if size in found else next(iter(found))
            yield _Told("BlockOffsets", size, found[size], count)
    elif has_size and _bits_end(read, count) <= first and 0 <= total - first - size * count < size:
        yield _Told("CommitStateOffset", size, first, count)


def _is_full(read: Subsegments, i: int, size: int, first: int, count: int) -> bool:
    return bool(read.is_full(np.array([size]), np.array([first]), np.array([count]), slice(i, i + 1))[0])


def _bits_end(read: Subsegments, count: int) -> int:
    return int(read.bits_end(np.array([count]))[0])


def _find(job: SegmentHeapJob, read: Subsegments, decoded: Decoded, i: int, told: _Told) -> None:
    """A finding of the damaged member."""
    heap, address = job.heap.address, int(read.start[i])
    member = read.struct.fields[told.member]
    first = address + member.offset
    end = first + {"BlockOffsets": 4, "BlockCount": 2, "CommitStateOffset": 2}[told.member]
    if told.member == "BlockCount" and "WitheldBlockCount" in read.struct:
        end = address + read.struct.offset("WitheldBlockCount") + 1  # the two are added
    message = f"heap {heap:#x}: the header of the LFH subsegment at {address:#x} is damaged ({told.member})"
    expected = f"{told.count} blocks of {told.size} bytes from {told.first:#x} on"
    found = f"{int(decoded.count[i])} blocks of {int(decoded.size[i])} bytes from {int(decoded.first[i]):#x} on"
    job.walked.find(Finding("lfh_subsegment", "error", heap, first, end - first, message, expected, found))
