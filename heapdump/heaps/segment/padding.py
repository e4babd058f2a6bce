"""Whether this process' segment heaps put some bytes in front of what the program gets (heap-structures.md §6.8).

Where application compatibility asks for it, every block begins with a header {its size, nothing}: 16 bytes on x64, 8 on
x86, more at very large blocks. Recorded dumps of 17763 and 19041 have it everywhere, those of 22000 and 26100 nowhere.

Folklore: 14393 leaves the header's bytes as they were, and only the address and the size tell of it (recorded). There no
block is smaller than the padding, and the bytes in front hold nothing but zeros and what the allocator itself left: links
between free chunks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.heap import Heap
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.layouts import Layout

_SAMPLE = 4096
_ENOUGH = 24
_FEW, _MOST, _NEARLY_ALL = 0.02, 0.5, 0.9


def padding_of(job: SegmentHeapJob, layout: Layout, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> int:
    """Bytes in front of user data, 0 for none. `address`, `size`: of some busy blocks, read without padding.

    What a heap with enough blocks shows holds for the process.
    """
    known = job.keys
    if known.padding is not None:
        return known.padding
    step = max(1, len(address) // _SAMPLE)
    found = _padding(job, layout, address[::step], size[::step])
    if len(address) >= _ENOUGH:
        known.padding = found
    return found


def _padding(job: SegmentHeapJob, layout: Layout, address: NDArray[np.uint64], size: NDArray[np.uint64]) -> int:
    granule, pointer = job.view.granularity, job.view.pointer_bytes
    if not len(address):
        return 0
    first, there = job.view.space.mapped.gather(address, pointer)
    if (first[there] == granule).mean() > _MOST if there.any() else False:
        return granule
    if writes_header(layout) or not there.any() or (size < granule).mean() > _FEW:
        return 0
    second, _ = job.view.space.mapped.gather(address + np.uint64(pointer), pointer)
    left = _is_left_over(job.heap, first, granule) & _is_left_over(job.heap, second, granule)
    return granule if left[there].mean() > _NEARLY_ALL else 0


def writes_header(layout: Layout) -> bool:
    """True for builds whose padding begins with its size."""
    return "_RTLP_HP_PADDING_HEADER" in layout or "ReservedRegionEnd" in layout["_SEGMENT_HEAP"]


def _is_left_over(heap: Heap, words: NDArray[np.uint64], granule: int) -> NDArray[np.bool_]:
    """Zero, or a link to the node of a free chunk: half a granule behind its start, in a segment of this heap."""
    links = np.zeros(len(words), bool)
    for segment in heap.segments:
        links |= (words >= np.uint64(segment.span.start)) & (words < np.uint64(segment.span.end))
    half = np.uint64(granule // 2)
    left: NDArray[np.bool_] = (words <= 1) | (links & (words & half == half))
    return left
