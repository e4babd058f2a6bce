"""Makes the memory ranges of a dump sorted, disjoint, and lie inside the file."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.wording import plural

_U64 = np.uint64
_TOP = (1 << 64) - 1


def disjoint(
    ranges: NDArray[np.void], file_bytes: int, gaps: list[str], remarks: list[str]
) -> tuple[NDArray[np.void], int]:
    """Sorts ranges, cuts them at the end of the file, cuts overlaps off, and leaves out those that wrap around 2**64.

    Args:
        ranges: (n,) with fields start, size (bytes) and offset (in the file), in any order.
        file_bytes: size of the file.
        gaps: gets a sentence for each reason why memory is missing, with the number of ranges or bytes.
        remarks: gets a sentence where ranges overlap, which loses nothing.

    Returns:
        (the ranges, ascending by start; bytes of all ranges that would lie behind the end of the file).
    """
    ranges = ranges[ranges["size"] > 0]
    start, size = ranges["start"].astype(_U64), ranges["size"].astype(_U64)
    wraps = size > _U64(_TOP) - start
    if wraps.any():
        gaps.append(f"{plural(int(wraps.sum()), 'memory range')} past the top of the address space left out")
        ranges = ranges[~wraps]
    ranges, missing = _inside_file(ranges, file_bytes, gaps)
    ranges = ranges[np.argsort(ranges["start"], kind="stable")]
    return _without_overlaps(ranges, remarks), missing


def _inside_file(ranges: NDArray[np.void], file_bytes: int, gaps: list[str]) -> tuple[NDArray[np.void], int]:
    """(the ranges, cut at the end of the file; bytes that would lie behind it)."""
    offset, size = ranges["offset"].astype(_U64), ranges["size"].astype(_U64)
    room = _U64(file_bytes) - np.minimum(offset, _U64(file_bytes))
    cut = size > room
    if not cut.any():
        return ranges, 0
    missing = sum(int(v) for v in (size - room)[cut].tolist())
    where = f"{int(cut.sum()):,} of {plural(len(ranges), 'range')}"
    gaps.append(f"the file ends before its memory does: {plural(missing, 'byte')} in {where} missing")
    ranges = ranges.copy()
    ranges["size"] = np.minimum(size, room)
    return ranges[ranges["size"] > 0], missing


def _without_overlaps(ranges: NDArray[np.void], remarks: list[str]) -> NDArray[np.void]:
    """The ranges, ascending by start; the front of a range is cut off where an earlier one covers it."""
    if len(ranges) < 2:
        return ranges
    start = ranges["start"].astype(_U64)
    end = start + ranges["size"].astype(_U64)
    floor = np.concatenate([np.zeros(1, _U64), np.maximum.accumulate(end)[:-1]])
    late = floor > start
    if not late.any():
        return ranges
    # Wine and Breakpad put the same stack pages into several lists: a remark in `info`, not a warning.
    remarks.append(f"overlapping memory ranges ({int(late.sum()):,}): the common part is taken from the first")
    moved = np.where(late, floor, start)
    ranges = ranges.copy()
    ranges["offset"] += np.minimum(moved, end) - start
    ranges["start"] = moved
    ranges["size"] = np.where(moved < end, end - np.minimum(moved, end), _U64(0))
    return ranges[ranges["size"] > 0]
