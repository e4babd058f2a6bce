"""Freed chunks of a segment heap that wait to be freed together: their headers still say busy.

17763.379 and later keep them on a list in the VS context, 26100 on one in each of its affinity slots (heap-structures.md
§6.4). No recorded heap had one waiting: a node is believed only where it is the user data of a busy chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.kinds import BlockKind
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.kernels.row import BUSY, FLAGS_MASK, UNIT
from heapdump.layouts import Layout
from heapdump.memory import limits

_SLOT_SHIFT = 6
_MOST_SLOTS = 256


def delayed_chunks(job: SegmentHeapJob, layout: Layout) -> NDArray[np.uint64]:
    """User addresses of the chunks on all lists of a heap; (n,) uint64, ascending.

    A list that is not as long as its head says is a finding, and none of it is believed.
    """
    found: dict[int, None] = {}
    for head in _heads(job, layout):
        depth, nodes = _depth(job, head), dict[int, None]()
        node: int | None = _first(job, head)
        while node and node not in nodes and node not in found and len(nodes) <= min(depth, limits.MAX_LIST_NODES):
            nodes[node] = None
            node = job.view.space.try_pointer(node)
        if node is None or (len(nodes) == depth and not node):
            found |= nodes  # the rest is not in the dump, or there is none
            continue
        heap, size = job.heap.address, 2 * job.view.pointer_bytes
        message = f"heap {heap:#x}: the list at {head:#x} of chunks that wait to be freed does not have the {depth:,} nodes that it counts"
        job.walked.headers += 1
        job.walked.find(Finding("vs_chunk", "error", heap, head, size, message, f"{depth:,} nodes", "others"))
    return np.array(sorted(found), np.uint64)


def _depth(job: SegmentHeapJob, head: int) -> int:
    """The number of nodes in an SLIST_HEADER: its first 16 bits on x64, behind the pointer on x86."""
    return job.view.space.try_integer(head if job.view.pointer_bytes == 8 else head + 4, 2) or 0


def _heads(job: SegmentHeapJob, layout: Layout) -> Iterator[int]:
    struct, heap = layout["_SEGMENT_HEAP"], job.heap.address
    if "VsContext" not in struct or "_HEAP_VS_CONTEXT" not in layout:
        return
    at, context = heap + struct.offset("VsContext"), layout["_HEAP_VS_CONTEXT"]
    if "DelayFreeContext" in context:
        yield at + context.offset("DelayFreeContext")
    fields = job.view.struct("_HEAP_VS_CONTEXT", at, layout)
    if fields is None or "SlotMapRef" not in fields or "_HEAP_VS_AFFINITY_SLOT" not in layout:
        return
    slots = at + (fields["SlotMapRef"] << _SLOT_SHIFT)
    for i in range(min(fields["AffinityMask"] + 1, _MOST_SLOTS)):
        slot = job.view.space.try_integer(slots + 4 * i, 2)
        if slot:
            yield at + (slot << _SLOT_SHIFT) + layout["_HEAP_VS_AFFINITY_SLOT"].offset("DelayFreeContext")


def _first(job: SegmentHeapJob, head: int) -> int:
    """The first node of an SLIST_HEADER: on x64 the upper 60 bits of its second word are the address / 16."""
    if job.view.pointer_bytes == 4:
        return job.view.space.try_integer(head, 4) or 0
    return (job.view.space.try_integer(head + 8, 8) or 0) & ~0xF


def mark_delayed(job: SegmentHeapJob, first: int, delayed: NDArray[np.uint64]) -> None:
    """Calls the chunks among the rows from `first` on whose user data is on a list free."""
    if not len(delayed):
        return
    table = job.columns.since(first)
    granule = np.uint64(job.view.granularity)
    waiting = (table.kind == BlockKind.VS) & table.is_busy & np.isin(table.entry + granule, delayed)
    table.tags[waiting] &= np.uint16(0xFFFF & ~(BUSY | FLAGS_MASK))
    table.unused[waiting], table.header8[waiting] = granule, granule // np.uint64(UNIT)
