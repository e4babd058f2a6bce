"""The padding that segment heaps of a process put in front of user data (docs/reference/heap-structures.md §6.8).

In: addresses of busy blocks. Out: 0, or the size of the padding header, one granule. Folklore: 14393 leaves the bytes of the
header as they were, so only addresses and sizes tell. No block is smaller than a granule there, and the granule in front of
user data holds nothing but zeros and links of the free chunk that lay there before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.layouts import Layout

_SAMPLE = 4096
_ENOUGH_BLOCKS = 24
_FEW, _MOST, _NEARLY_ALL = 0.02, 0.5, 0.9
"""Shares of the blocks."""


def padding_of(walk: SegmentWalk, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> int:
    """The padding bytes of a heap. `address`, `size`: of some busy blocks, as they are without padding; (n,), bytes.

    What a heap with 24 blocks or more shows holds for the later heaps of the view.
    """
    keys = walk.keys
    if keys.padding_bytes is not None:
        return keys.padding_bytes
    step = max(1, len(address) // _SAMPLE)
    found = walk.granule if _is_padded(walk, address[::step], size[::step]) else 0
    if len(address) >= _ENOUGH_BLOCKS:
        keys.padding_bytes = found
    return found


def writes_padding_header(layout: Layout) -> bool:
    """True for builds that write the padding's size into its first word, 16299 and later."""
    return "_RTLP_HP_PADDING_HEADER" in layout or "ReservedRegionEnd" in layout["_SEGMENT_HEAP"]


def _is_padded(walk: SegmentWalk, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> bool:
    """True where most blocks begin with the padding's size, or, where builds do not write it, with left-over bytes."""
    if not len(address):
        return False
    pointer = walk.pointer_bytes
    first, is_present = walk.mapped.gather(address, pointer)
    if not is_present.any():
        return False
    if (first[is_present] == walk.granule).mean() > _MOST:
        return True
    if writes_padding_header(walk.layout) or (size < walk.granule).mean() > _FEW:
        return False
    second, _ = walk.mapped.gather(address + np.uint64(pointer), pointer)
    left_over = _is_left_over(walk, first) & _is_left_over(walk, second)
    return bool(left_over[is_present].mean() > _NEARLY_ALL)


def _is_left_over(walk: SegmentWalk, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """True for 0, 1 and links to the node of a free chunk: half a granule behind its start, in a segment of the heap.

    A segment that damage took from the heap is still memory of the dump.
    """
    is_inside = walk.mapped.gather(words & ~np.uint64(walk.pointer_bytes - 1), walk.pointer_bytes)[1]
    for segment in walk.heap.segments:
        is_inside |= (words >= np.uint64(segment.span.start)) & (words < np.uint64(segment.span.end))
    half = np.uint64(walk.granule // 2)
    left_over: NDArray[np.bool_] = (words <= 1) | (is_inside & (words & half == half))
    return left_over
