"""Corrects headers of LFH subsegments with a damaged member: the other members determine where the blocks lie.

In every recorded heap (subsegments of up to 32 KiB) the commit states begin directly behind the bitmap, the blocks
begin directly behind the commit states, and one more block does not fit. So each of block size, number of blocks and
end of the bitmap follows from the other two.
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
"""The most damaged headers of one batch that are corrected; further subsegments are left out."""

FEW_COUNTS = 2
"""Up to this many impossible counts of unused bytes are taken for damage to the ends of blocks, not to the header."""

_MOST_SEARCHES = 64
"""The most destroyed headers of one batch for which bitmap and blocks are searched (`lfh_search`)."""


@dataclass(frozen=True, slots=True)
class _Correction:
    """A possible extent of a subsegment's blocks under which only one member of the header is wrong.

    Attributes:
        member: the wrong member.
        block_bytes: bytes of a block.
        first_offset: bytes from the subsegment to the first block.
        count: number of blocks.
    """

    member: Literal["BlockOffsets", "BlockCount", "CommitStateOffset"]
    block_bytes: int
    first_offset: int
    count: int

    @property
    def extent(self) -> FoundExtent:
        """The extent of the blocks."""
        return FoundExtent(self.block_bytes, self.first_offset, self.count)


def corrected(walk: SegmentWalk, subsegments: LfhSubsegments, extents: BlockExtents) -> BlockExtents:
    """The extents, with those of damaged headers corrected; adds a finding for each damaged header.

    The bitmap and the counts in the blocks determine the extent, else the other members of the header. Where both leave
    a choice, the extent becomes impossible.
    """
    has_rules = subsegments.commit_state_offset is not None and walk.keys.lfh_subsegments_are_full
    if not has_rules:
        extents = replace(extents, is_consistent=extents.is_possible)
    rows = np.flatnonzero(subsegments.is_present & ~extents.is_consistent)
    if not len(rows) or not extents.is_possible.any():
        return extents  # no header holds, so the coding is not known
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
    """The extents, corrected for subsegments whose blocks contradict the block size in a consistent header.

    These become guesses. They get the size that the blocks prove; where they prove none, the size is kept.
    `contradicted`: index of the subsegment, ascending → number of impossible counts of unused bytes.
    """
    found, likely = _copied(extents), np.unique(extents.block_bytes[extents.is_consistent])
    recovery = _Recovery(walk, subsegments, extents, found)
    for number, (i, wrong) in enumerate(contradicted.items()):
        search = find_extent(subsegments, i, likely) if number < _MOST_SEARCHES else (None, False)
        recovery.correct_size(i, search, is_header_damaged=wrong > FEW_COUNTS)
    return found


@dataclass(frozen=True, slots=True)
class _Recovery:
    """The recovery of damaged headers.

    Attributes:
        walk: the walk of the heap.
        subsegments: the headers.
        extents: the extents by the headers.
        found: gets the corrected extents.
    """

    walk: SegmentWalk
    subsegments: LfhSubsegments
    extents: BlockExtents
    found: BlockExtents

    def correct(self, i: int, corrections: list[_Correction], search: tuple[FoundExtent | None, bool]) -> None:
        """Writes and reports the extent of subsegment `i`. `search`: the result of `find_extent`."""
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
        """Writes and reports the extent of subsegment `i`, as a guess.

        `search`: the result of `find_extent`. `is_header_damaged`: True where the header or the bitmap is damaged,
        False where the ends of the blocks are.
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
    """A copy of the extents, whose arrays may be changed."""
    return BlockExtents(*(getattr(extents, column.name).copy() for column in fields(extents)))


def _corrections(subsegments: LfhSubsegments, extents: BlockExtents, i: int) -> Iterator[_Correction]:
    """Extents of subsegment `i` under which all members of the header but one agree, the likeliest first."""
    assert subsegments.commit_state_offset is not None
    size, first, count = (int(v[i]) for v in (extents.block_bytes, extents.first_offset, extents.count))
    total, states = int(subsegments.size[i]), int(subsegments.commit_state_offset[i])
    has_size = size > 0 and size % subsegments.walk.granule == 0
    most = (total - first) // size if has_size else 0
    for fits in (most, most - 1):  # one more block may need one more word in the bitmap
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
    """Block size under which `count` blocks fill subsegment `i` → offset of the first block; both in bytes."""
    granule, which, number = subsegments.walk.granule, slice(i, i + 1), np.array([count])
    sizes = np.arange(granule, min(int(subsegments.size[i]) // count, 0xFFFF) + 1, granule)
    found: dict[int, int] = {}
    for offset in subsegments.first_offsets(
        sizes, which
    ):  # the second, aligned one is likelier, and replaces the first
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
    """Adds a finding about the damaged member. The number of blocks is BlockCount + WitheldBlockCount."""
    at, struct = int(subsegments.start[i]), subsegments.struct
    first = at + struct.offset(right.member)
    end = first + _MEMBER_BYTES[right.member]
    if right.member == "BlockCount" and "WitheldBlockCount" in struct:
        end = at + struct.offset("WitheldBlockCount") + 1
    expected = f"{right.count} blocks of {right.block_bytes} bytes from {right.first_offset:#x} on"
    count, size, offset = int(extents.count[i]), int(extents.block_bytes[i]), int(extents.first_offset[i])
    found = f"{count} blocks of {size} bytes from {offset:#x} on"
    walk.report(
        DamagedBytes("lfh_subsegment", first, end - first, expected, found),
        f"{walk.name}: the header of the LFH subsegment at {at:#x} is damaged ({right.member})",
    )


def _report_search(
    walk: SegmentWalk, subsegments: LfhSubsegments, i: int, found: FoundExtent, *, is_proved: bool
) -> None:
    """Adds a finding about a destroyed header whose blocks were found by the bitmap and the blocks themselves."""
    at = int(subsegments.start[i])
    expected = f"{found.count} blocks of {found.block_bytes} bytes from {found.first_offset:#x} on"
    damaged = DamagedBytes("lfh_subsegment", at, subsegments.struct.offset("BlockBitmap"), expected, "others")
    message = f"{walk.name}: the header of the LFH subsegment at {at:#x} is damaged"
    walk.report(damaged, message, gap=None if is_proved else f"{message}; the size of its blocks is a guess")
