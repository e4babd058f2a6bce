"""Finds the blocks of an LFH subsegment whose header is destroyed, by its bitmap and the blocks themselves.

A block size determines how many blocks fill the range, and so the length of the bitmap. Under the right size the bitmap
has no impossible bit, and every count of unused bytes is possible (docs/reference/heap-structures.md §6.5). Where
several sizes fit, a size that another subsegment of the heap has is preferred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.allocator import PAGE
from heapdump.heaps.segment.end_counts import most_unused_of_lfh
from heapdump.heaps.segment.lfh_bitmap import block_bits
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments

_MOST_SIZES = 1 << 12
"""The most block sizes that are tried for one subsegment."""

_MOST_RANGE_BYTES = 1 << 20
_PROOF_COUNTS = 3
"""Number of possible counts of unused bytes that prove a block size which no other subsegment has."""

_MOST_COMMIT_STATES = 255
_ONE_BYTE, _CLEAR_BITS, _COUNT_BITS, _EXTRA_BIT = 0x8000, 0x7F00, 0x3FFF, 0x4000


@dataclass(frozen=True, slots=True)
class FoundExtent:
    """Where the blocks of one subsegment lie.

    Attributes:
        block_bytes: bytes of a block.
        first_offset: bytes from the subsegment to the first block.
        count: number of blocks.
    """

    block_bytes: int
    first_offset: int
    count: int


class _ExtentCandidate(NamedTuple):
    extent: FoundExtent
    counts: int
    """Number of blocks with a possible count of unused bytes; none has an impossible one."""


def find_extent(subsegments: LfhSubsegments, i: int, likely: NDArray[np.int64]) -> tuple[FoundExtent | None, bool]:
    """(extent of the blocks of subsegment `i`, True where their counts prove it).

    The extent is None where no block size, or more than one, is possible. The header is not read. `likely`: block sizes
    of other subsegments of the heap.
    """
    data = _bytes(subsegments, i)
    if data is None:
        return None, False
    found = list(_candidates(subsegments, data))
    most = max((one.counts for one in found), default=0)
    best = [one.extent for one in found if one.counts == most]
    if most >= _PROOF_COUNTS and len(best) == 1:
        return best[0], True
    known = [extent for extent in best if extent.block_bytes in set(likely.tolist())]
    return (known[0] if len(known) == 1 else None), False


def best_extent(subsegments: LfhSubsegments, i: int, extents: Sequence[FoundExtent]) -> FoundExtent | None:
    """The only one of these extents that is possible by the bitmap and the blocks of subsegment `i`; or None."""
    data = _bytes(subsegments, i)
    found = [] if data is None else [(_possible_counts(subsegments, data, extent), extent) for extent in extents]
    possible = [(counts, extent) for counts, extent in found if counts is not None]
    most = max((counts for counts, _ in possible), default=0)
    best = [extent for counts, extent in possible if counts == most]
    return best[0] if len(best) == 1 else None


def _bytes(subsegments: LfhSubsegments, i: int) -> bytes | None:
    """The bytes of the range of subsegment `i`; None where one is not in the dump, and for very large ranges."""
    start, size = int(subsegments.start[i]), int(subsegments.size[i])
    return subsegments.walk.view.space.try_read(start, size) if size <= _MOST_RANGE_BYTES else None


def _candidates(subsegments: LfhSubsegments, data: bytes) -> Iterator[_ExtentCandidate]:
    for extent in _full_extents(subsegments, len(data)):
        counts = _possible_counts(subsegments, data, extent)
        if counts is not None:
            yield _ExtentCandidate(extent, counts)


def _full_extents(subsegments: LfhSubsegments, total: int) -> Iterator[FoundExtent]:
    """For every block size, the extent with the most blocks that fit into a range of `total` bytes."""
    granule, bitmap = subsegments.walk.granule, subsegments.struct.offset("BlockBitmap")
    states = 2 * min(total // PAGE, _MOST_COMMIT_STATES)
    sizes = np.arange(granule, min(total - bitmap, 0xFFFF) + 1, granule)[:_MOST_SIZES]
    count = (total - bitmap - states) // sizes
    for size, most in zip(sizes.tolist(), count.tolist(), strict=True):
        is_power = subsegments.has_freed_list and size & (size - 1) == 0
        for step in {granule, size if is_power else granule}:
            number = most
            while number > 0:
                end = int(subsegments.bitmap_end(np.array([number]))[0]) + states
                first = -(-end // step) * step
                if first + number * size <= total:
                    yield FoundExtent(size, first, number)
                    break
                number = min(number - 1, (total - first) // size)


def _possible_counts(subsegments: LfhSubsegments, data: bytes, extent: FoundExtent) -> int | None:
    """The number of blocks with a possible count of unused bytes; None where a bit or a count is impossible."""
    bitmap = subsegments.struct.offset("BlockBitmap")
    end = int(subsegments.bitmap_end(np.array([extent.count]))[0])
    if extent.first_offset + extent.count * extent.block_bytes > len(data):
        return None
    is_busy, has_count = block_bits(subsegments, data[bitmap:end])
    count, has_groups = extent.count, subsegments.group_bits > 0
    tail_fits = bool(is_busy[count:].all()) and bool((has_count[count:] != has_groups).all())
    if not tail_fits or (has_count[:count] & ~is_busy[:count]).any() or not is_busy[:count].any():
        return None
    blocks = np.frombuffer(data, np.uint8, extent.count * extent.block_bytes, extent.first_offset)
    last = blocks.reshape(extent.count, extent.block_bytes)[:, -2:].copy().view("<u2")[:, 0]
    value = last[has_count[:count]].astype(np.int64)
    unused = np.where(value & _ONE_BYTE, 1, value & _COUNT_BITS)
    most = most_unused_of_lfh(extent.block_bytes, subsegments.walk.granule, (value & _EXTRA_BIT) > 0)
    possible = (unused > 0) & (unused <= np.minimum(most, extent.block_bytes))
    possible &= (value & _ONE_BYTE == 0) | (value & _CLEAR_BITS == 0)
    return int(possible.sum()) if possible.all() else None
