"""Reads the headers of VS subsegments, which say where their chunks lie (docs/reference/heap-structures.md §6.4)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.page_ranges import Ranges
from heapdump.layouts import Struct
from heapdump.memory.mapped import MappedMemory
from heapdump.spans import Span

_STRUCT = "_HEAP_VS_SUBSEGMENT"
_SIZE_XOR = 0x2BED
_SIZE_BITS = 0x7FFF
_SAMPLE = 32


@dataclass(frozen=True, slots=True)
class VsSubsegments:
    """Where the chunks of n VS subsegments lie.

    Attributes:
        start: (n,) int64 address of the first chunk.
        end: (n,) int64 address behind the last chunk.
    """

    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def sample(self) -> list[Span]:
        """The spans of the chunks of about 32 subsegments, evenly spread over all."""
        step = max(1, len(self.start) // _SAMPLE)
        return [Span(a, b) for a, b in zip(self.start[::step].tolist(), self.end[::step].tolist(), strict=True)]


def read_vs_subsegments(walk: SegmentWalk, ranges: Ranges) -> VsSubsegments:
    """The subsegments in ranges of kind VS; adds findings for damaged headers, gaps for missing ones.

    The version of the structure is used under which most headers hold; of equal ones the likelier. Where a header does
    not hold, its chunks are taken up to the end of the used bytes of the range; the headers of chunks verify each
    other.
    """
    if not len(ranges.start):
        return VsSubsegments(ranges.start, ranges.start)
    tried: list[_VsHeaders] = []
    for struct in walk.structs(_STRUCT):
        tried.append(_VsHeaders(walk, ranges, struct))
        if tried[-1].is_sound.all():
            break
    best = max(tried, key=lambda headers: int(headers.is_sound.sum()))
    best.report(walk)
    possible = best.end > best.start
    return VsSubsegments(best.start[possible], best.end[possible])


def are_vs_subsegments(walk: SegmentWalk, ranges: Ranges, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True for ranges that begin with a sound header whose chunks end at the end of the used bytes of the range.

    That end is the one that the descriptor names, or one unit before the end of the range (every recorded heap).
    """
    chosen = ranges.of(rows)
    tried = [_VsHeaders(walk, chosen, struct) for struct in walk.structs(_STRUCT)]
    end = chosen.start + chosen.size
    fits = [(headers.end == end - chosen.unused) | (headers.end == end - chosen.unit) for headers in tried]
    holds: NDArray[np.bool_] = np.any([one.is_sound & fit for one, fit in zip(tried, fits, strict=True)], axis=0)
    return holds


def vs_ends(
    mapped: MappedMemory, granule: int, structs: Sequence[Struct], start: NDArray[np.uint64]
) -> Iterator[NDArray[np.int64]]:
    """(n,) int64 ends of the chunks of subsegments at these addresses, 0 for none; an array for each header version."""
    for struct in structs:
        size, signature, is_present = _size_and_signature(mapped, start, struct)
        holds = is_present & (size > 0) & _agrees(size, signature)
        end = start.astype(np.int64) + -(-struct.size // granule) * granule + size.astype(np.int64) * granule
        yield np.where(holds, end, 0)


def _size_and_signature(
    mapped: MappedMemory, address: NDArray[np.uint64], struct: Struct
) -> tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.bool_]]:
    """(Size, Signature, whether they are in the dump) of the headers at these addresses; (n,) each."""
    size, has_size = mapped.gather(address + np.uint64(struct.offset("Size")), 2)
    signature, has_signature = mapped.gather(address + np.uint64(struct.offset("Signature")), 2)
    return size, signature, has_size & has_signature


def _agrees(size: NDArray[np.uint64], signature: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(Size ^ 0x2BED) & 0x7FFF == Signature & 0x7FFF."""
    agrees: NDArray[np.bool_] = (size ^ np.uint64(_SIZE_XOR) ^ signature) & np.uint64(_SIZE_BITS) == 0
    return agrees


class _VsHeaders:
    """The headers at the start of some ranges, under one version of the structure; (n,) each.

    Attributes:
        start: address of the first chunk.
        end: address behind the last chunk; where the header does not hold, end of the used bytes of the range.
        is_sound: True where (Size ^ 0x2BED) & 0x7FFF == Signature & 0x7FFF, and the chunks end inside the range.
    """

    def __init__(self, walk: SegmentWalk, ranges: Ranges, struct: Struct) -> None:
        self._address, self._struct = ranges.start, struct
        size, signature, self._is_present = _size_and_signature(walk.mapped, self._address.astype(np.uint64), struct)
        self.start = self._address + -(-struct.size // walk.granule) * walk.granule
        end = self.start + size.astype(np.int64) * walk.granule
        self.is_sound = self._is_present & _agrees(size, signature) & (size > 0) & (end <= self._address + ranges.size)
        guard = np.where(ranges.unused == 0, ranges.unit, ranges.unused)
        used_end = self.start + (ranges.start + ranges.size - guard - self.start) // walk.granule * walk.granule
        self.end = np.where(self.is_sound, end, used_end)

    def report(self, walk: SegmentWalk) -> None:
        """Counts the headers; adds a finding for each damaged one, a gap for each that is not in the dump."""
        walk.count_headers(len(self._address), int(self.is_sound.sum()))
        for i in np.flatnonzero(~self.is_sound).tolist():
            address = int(self._address[i])
            if not self._is_present[i]:
                walk.add_gap(f"{walk.name}: the header of the VS subsegment at {address:#x} is not in the dump")
                continue
            message = f"the VS subsegment at {address:#x} of {walk.name} has a damaged header"
            damaged = DamagedBytes("vs_chunk", address, self._struct.size, "a size that fits its signature", "another")
            walk.report(damaged, message)
