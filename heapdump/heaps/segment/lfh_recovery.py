"""LFH subsegments with one damaged member in the header: the other members determine where their blocks lie.

In every recorded heap (subsegments of up to 32 KiB) the commit states begin right behind the bitmap, the blocks right behind
the commit states, and one more block does not fit. So block size, number of blocks and offset of the bitmap's end each follow
from the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.lfh_search import FoundExtent, best_extent, find_extent
from heapdump.heaps.segment.lfh_subsegments import MOST_BLOCKS, BlockExtents, LfhSubsegments

_MOST_HEADERS = 1 << 12
"""Damaged headers of one batch that are corrected; the subsegments of further ones are left out."""

FEW_COUNTS = 2
"""Impossible counts of unused bytes that are taken for damage to the ends of the blocks."""

_MOST_SEARCHES = 64
"""Destroyed headers of one batch for which the bitmap and the blocks are searched."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """The extent of a subsegment's blocks, and the one member of its header that contradicts it."""

    member: Literal["BlockOffsets", "BlockCount", "CommitStateOffset"]
    block_bytes: int
    first_offset: int
    count: int

    @property
    def extent(self) -> FoundExtent:
        """Where the blocks lie."""
        return FoundExtent(self.block_bytes, self.first_offset, self.count)


def corrected(walk: SegmentWalk, subsegments: LfhSubsegments, extents: BlockExtents) -> BlockExtents:
    """The extents, with those of damaged headers replaced by what the rest of the subsegment determines.

    That is the bitmap and the counts in the blocks, else the rest of the header. A finding for each such header. Where both
    leave a choice, the extent is not possible any more.
    """
    has_rules = subsegments.commit_state_offset is not None and walk.keys.lfh_subsegments_are_full
    if not has_rules:
        extents = replace(extents, is_consistent=extents.is_possible)
    rows = np.flatnonzero(subsegments.is_present & ~extents.is_consistent)
    if not len(rows) or not extents.is_possible.any():
        return extents  # without a header that holds, their coding is not known
    recovery = _Recovery(walk, subsegments, extents, _copied(extents))
    recovery.found.is_possible[rows[_MOST_HEADERS:]] = False
    likely = np.unique(extents.block_bytes[extents.is_consistent])
    for number, i in enumerate(rows[:_MOST_HEADERS].tolist()):
        search = find_extent(subsegments, i, likely) if number < _MOST_SEARCHES else (None, False)
        recovery.correct(i, list(_corrections(subsegments, extents, i)) if has_rules else [], search)
    return recovery.found


def corrected_by_blocks(
    walk: SegmentWalk, subsegments: LfhSubsegments, extents: BlockExtents, contradicted: Mapping[int, int]
) -> BlockExtents:
    """The extents, as guesses for subsegments whose blocks contradict the size that a consistent header names.

    `contradicted`: of each, ascending, how many counts of unused bytes are impossible. They get the size that the blocks
    prove, else they stay as they are.
    """
    found, likely = _copied(extents), np.unique(extents.block_bytes[extents.is_consistent])
    recovery = _Recovery(walk, subsegments, extents, found)
    for number, (i, wrong) in enumerate(contradicted.items()):
        search = find_extent(subsegments, i, likely) if number < _MOST_SEARCHES else (None, False)
        recovery.correct_size(i, search, is_header_damaged=wrong > FEW_COUNTS)
    return found


@dataclass(frozen=True, slots=True)
class _Recovery:
    """The recovery of damaged headers: `extents` as their headers say, `found` as they are, to be written to."""

    walk: SegmentWalk
    subsegments: LfhSubsegments
    extents: BlockExtents
    found: BlockExtents

    def correct(self, i: int, corrections: list[_Correction], search: tuple[FoundExtent | None, bool]) -> None:
        """Writes and reports the extent of subsegment `i`. `search`: see `find_extent`."""
        walk, (found, is_proved) = self.walk, search
        if not is_proved and corrections:
            found = best_extent(self.subsegments, i, [one.extent for one in corrections])
            self.found.is_possible[i] = False
        fitting = [one for one in corrections if one.extent == found]
        if fitting:
            self._write(i, fitting[0].extent)
            _report(walk, self.subsegments, self.extents, i, fitting[0])
        elif found is not None and (is_proved or not self.found.is_possible[i]):
            self._write(i, found)
            self.found.is_guess[i] = True
            _report_search(walk, self.subsegments, i, found, is_proved=is_proved)
        elif self.found.is_possible[i]:
            at = int(self.subsegments.start[i])
            size, texts = self.subsegments.struct.size, ("blocks that fill it", "others")
            walk.report(
                DamagedBytes("lfh_subsegment", at, size, *texts),
                f"{walk.name}: the members of the header of the LFH subsegment at {at:#x} disagree",
            )

    def correct_size(self, i: int, search: tuple[FoundExtent | None, bool], *, is_header_damaged: bool) -> None:
        """Writes and reports the extent of subsegment `i`, a guess.

        `is_header_damaged`: the header or the bitmap rather than the ends of the blocks.
        """
        found, is_proved = search
        self.found.is_guess[i] = True
        if found is not None and is_proved:
            self._write(i, found)
            _report_search(self.walk, self.subsegments, i, found, is_proved=True)
            return
        at = int(self.subsegments.start[i])
        message = (
            f"{self.walk.name}: counts of unused bytes in blocks of the LFH subsegment at {at:#x} do not fit their size"
        )
        if is_header_damaged:
            place = at + self.subsegments.struct.offset("BlockOffsets")
            end = at + _bitmap_end(self.subsegments, int(self.extents.count[i]))
            found_text = f"others in blocks of {int(self.extents.block_bytes[i])} bytes"
            expected = "counts that fit, where the bitmap says that there are some"
            self.walk.report(DamagedBytes("lfh_subsegment", place, end - place, expected, found_text), message)
        self.walk.add_gap(f"{message}: which blocks it has is in doubt")

    def _write(self, i: int, extent: FoundExtent) -> None:
        self.found.block_bytes[i], self.found.first_offset[i] = extent.block_bytes, extent.first_offset
        self.found.count[i] = extent.count
        self.found.is_possible[i] = True


def _copied(extents: BlockExtents) -> BlockExtents:
    """The same extents, to be written to."""
    return BlockExtents(*(getattr(extents, column.name).copy() for column in fields(extents)))


def _corrections(subsegments: LfhSubsegments, extents: BlockExtents, i: int) -> Iterator[_Correction]:
    """Corrections of the header of subsegment `i` under which all members but one agree, the likeliest first."""
    assert subsegments.commit_state_offset is not None
    size, first, count = (int(v[i]) for v in (extents.block_bytes, extents.first_offset, extents.count))
    total, states = int(subsegments.size[i]), int(subsegments.commit_state_offset[i])
    has_size = size > 0 and size % subsegments.walk.granule == 0
    most = (total - first) // size if has_size else 0
    for fits in (most, most - 1):  # one more block may need one more word of the bitmap
        if 0 < fits <= MOST_BLOCKS and _bitmap_end(subsegments, fits) == states and _is_full(
            subsegments, i, size, first, fits
        ):  # fmt: skip
            yield _Correction("BlockCount", size, first, fits)
    if not 0 < count <= MOST_BLOCKS:
        return
    if _bitmap_end(subsegments, count) == states and int(subsegments.commit_units[i]) == total // PAGE:
        offset_of = _sizes_that_fill(subsegments, i, count)
        if size not in offset_of and len(offset_of) == 1:
            size = next(iter(offset_of))
        if size in offset_of:
            yield _Correction("BlockOffsets", size, offset_of[size], count)
    elif has_size and _bitmap_end(subsegments, count) <= first and 0 <= total - first - size * count < size:
        yield _Correction("CommitStateOffset", size, first, count)


def _sizes_that_fill(subsegments: LfhSubsegments, i: int, count: int) -> dict[int, int]:
    """Block sizes of which `count` blocks fill subsegment `i` → offset of the first block; bytes."""
    granule, which, number = subsegments.walk.granule, slice(i, i + 1), np.array([count])
    sizes = np.arange(granule, min(int(subsegments.size[i]) // count, 0xFFFF) + 1, granule)
    found: dict[int, int] = {}
    for offset in subsegments.first_offsets(sizes, which):  # the aligned one, which is the second, is likelier
        offset = np.broadcast_to(offset, sizes.shape)
        full = subsegments.are_full(sizes, offset, number, which)
        found |= dict(zip(sizes[full].tolist(), offset[full].tolist(), strict=True))
    return found


def _is_full(subsegments: LfhSubsegments, i: int, size: int, first: int, count: int) -> bool:
    one = (np.array([size]), np.array([first]), np.array([count]))
    return bool(subsegments.are_full(*one, slice(i, i + 1))[0])


def _bitmap_end(subsegments: LfhSubsegments, count: int) -> int:
    return int(subsegments.bitmap_end(np.array([count]))[0])


_MEMBER_BYTES = {"BlockOffsets": 4, "BlockCount": 2, "CommitStateOffset": 2}


def _report(walk: SegmentWalk, subsegments: LfhSubsegments, extents: BlockExtents, i: int, right: _Correction) -> None:
    """A finding on the damaged member; BlockCount with WitheldBlockCount, of which the number of blocks is the sum."""
    at, struct = int(subsegments.start[i]), subsegments.struct
    first = at + struct.offset(right.member)
    end = first + _MEMBER_BYTES[right.member]
    if right.member == "BlockCount" and "WitheldBlockCount" in struct:
        end = at + struct.offset("WitheldBlockCount") + 1
    expected = f"{right.count} blocks of {right.block_bytes} bytes from {right.first_offset:#x} on"
    found = f"{int(extents.count[i])} blocks of {int(extents.block_bytes[i])} bytes from {int(extents.first_offset[i]):#x} on"
    walk.report(
        DamagedBytes("lfh_subsegment", first, end - first, expected, found),
        f"{walk.name}: the header of the LFH subsegment at {at:#x} is damaged ({right.member})",
    )


def _report_search(
    walk: SegmentWalk, subsegments: LfhSubsegments, i: int, found: FoundExtent, *, is_proved: bool
) -> None:
    """A finding on a destroyed header; its blocks are known from the bitmap and the blocks themselves."""
    at = int(subsegments.start[i])
    expected = f"{found.count} blocks of {found.block_bytes} bytes from {found.first_offset:#x} on"
    damaged = DamagedBytes("lfh_subsegment", at, subsegments.struct.offset("BlockBitmap"), expected, "others")
    message = f"{walk.name}: the header of the LFH subsegment at {at:#x} is damaged"
    walk.report(damaged, message, gap=None if is_proved else f"{message}; the size of its blocks is a guess")
