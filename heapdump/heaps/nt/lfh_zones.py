"""Zones of the LFH before Vista: busy back-end blocks that hold its subsegments. No flag marks them.

A zone begins with its list entry, the address of the next free place in it, and its end, which is the end of the block.
Subsegments follow; the first member of each points into the _LFH_HEAP (recorded 2600.5512).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_damage import is_in_heap
from heapdump.kernels.row import BUSY, KIND_MASK

_FRONT_END_BYTES = 0x4000
"""Bytes; an _LFH_HEAP before Vista is smaller."""


def zones(context: HeapContext, rows: BlockTable) -> set[int]:
    """User addresses of those of these rows that are zones; empty from Vista on."""
    if not context.entry_format.is_pre_vista:
        return set()
    chosen = np.flatnonzero(rows.tags & np.uint16(BUSY | KIND_MASK) == np.uint16(BUSY | BlockKind.BACKEND))
    user = rows.addresses(chosen)
    end = rows.entry[chosen] + rows.entry_size[chosen]
    pointer = context.view.pointer_bytes
    limit, has_limit = _pointers(context, user, 3)
    free, _ = _pointers(context, user, 2)
    bucket, has_bucket = _pointers(context, user, 4)
    fits = has_limit & has_bucket & (limit == end) & (user + np.uint64(4 * pointer) < free) & (free <= limit)
    return {int(user[i]) for i in np.flatnonzero(fits) if _is_front_end(context, int(bucket[i]))}


def _pointers(
    context: HeapContext, user: NDArray[np.uint64], number: int
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """((n,) the pointer number `number`, from 0, at each user address; (n,) True where the dump has it)."""
    pointer = context.view.pointer_bytes
    return context.space.mapped.gather(user + np.uint64(number * pointer), pointer)


def _is_front_end(context: HeapContext, bucket: int) -> bool:
    """True for an address in the _LFH_HEAP; where its place is not known, for any address in the heap."""
    front_end = context.heap_pointer("FrontEndHeap") if context.heap.front_end == "lfh" else 0
    if front_end:
        return front_end < bucket < front_end + _FRONT_END_BYTES
    return context.heap.front_end is None and is_in_heap(context, bucket)
