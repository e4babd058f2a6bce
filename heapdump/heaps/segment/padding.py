"""Finds the padding in front of user data in the segment heaps of a process (docs/reference/heap-structures.md §6.8).

The padding is 0 bytes or one granule. 16299 and later write its size into its first word. Earlier builds (14393 to
15063) leave the bytes of the padding as they were. There it is recognised by two facts: no block is smaller than a
granule, and the granule in front of user data holds only zeros and links of the free chunk that lay there before.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.layouts import Layout

_SAMPLE = 4096
_ENOUGH_BLOCKS = 24
_FEW, _MOST, _NEARLY_ALL = 0.02, 0.5, 0.9
"""Shares of the examined blocks."""


def padding_of(walk: SegmentWalk, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> int:
    """The padding bytes of a heap.

    The result of a heap with 24 blocks or more is used for later heaps of the view as well.

    Args:
        walk: the walk of the heap.
        address: (n,) user addresses of some busy blocks, if there were no padding.
        size: (n,) requested bytes of these blocks, if there were no padding.
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
    """True for builds that write the size of the padding into its first word: 16299 and later."""
    return "_RTLP_HP_PADDING_HEADER" in layout or "ReservedRegionEnd" in layout["_SEGMENT_HEAP"]


def _is_padded(walk: SegmentWalk, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> bool:
    """True where most blocks begin with the size of the padding; in earlier builds, with left-over bytes."""
    if not len(address):
        return False
    pointer = walk.pointer_bytes
    first, is_present = walk.mapped.gather(address, pointer)
    if not is_present.any():
        return False
    if np.isin(first[is_present], (walk.granule, 4 * walk.granule)).mean() > _MOST:
        return True
    if writes_padding_header(walk.layout) or (size < walk.granule).mean() > _FEW:
        return False
    second, _ = walk.mapped.gather(address + np.uint64(pointer), pointer)
    left_over = _is_left_over(walk, first) & _is_left_over(walk, second)
    return bool(left_over[is_present].mean() > _NEARLY_ALL)


def _is_left_over(walk: SegmentWalk, words: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) True for words that a free chunk can have left: 0, 1, and links to nodes of free chunks.

    A node lies half a granule behind the start of its chunk, in a segment of the heap; where damage has hidden a
    segment, in any memory of the dump.
    """
    is_inside = walk.mapped.gather(words & ~np.uint64(walk.pointer_bytes - 1), walk.pointer_bytes)[1]
    for segment in walk.heap.segments:
        is_inside |= (words >= np.uint64(segment.span.start)) & (words < np.uint64(segment.span.end))
    half = np.uint64(walk.granule // 2)
    left_over: NDArray[np.bool_] = (words <= 1) | (is_inside & (words & half == half))
    return left_over
