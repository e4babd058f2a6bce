"""The blocks of page heaps as rows.

A full block's row begins with its block information, as a header, and ends with the accessible page; one whose guard page
lies before it (`gflags /backwards`) has no header. A freed block's memory is inaccessible: what is known of it is in its
node. A light block's row begins with its block information inside a block of the ordinary heap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.page_nodes import PageNodes
from heapdump.blocks.table import PAGE_DECOMMITTED, PAGE_LIGHT, tag
from heapdump.blocks.walk import KindCount
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.jobs import Job
from heapdump.heaps.page.light import LightBlocks, carriers_of, light_blocks
from heapdump.heaps.page.nodes import NodeSet, read_nodes
from heapdump.kernels.row import FLAGS_SHIFT, UNIT
from heapdump.layouts import load
from heapdump.memory.regions import State
from heapdump.process.model import Process, View

_TABLE_UNITS = 1 << 32


def walk_page_heap(job: Job) -> None:
    """Adds the blocks with pages of their own, then the light ones."""
    if job.heap.layout is None:
        return
    layout = load(job.heap.layout)
    found = read_nodes(job.view, layout, job.heap.address + PAGE, job.process.space.total_bytes)
    _judge(job, found)
    information = layout["_DPH_BLOCK_INFORMATION"].size
    _add_full(job, found.nodes, information)
    light = light_blocks(job.view, layout, job.heap.address, job.table, _carriers(job))
    _add_light(job, light, information)
    job.advance(sum(extent.span.size for extent in job.heap.extents))


def _judge(job: Job, found: NodeSet) -> None:
    """Findings and gaps: what of the tree and the lists does not hold."""
    job.walked.headers += len(found.nodes) + len(found.odd)
    job.walked.good_headers += len(found.nodes)
    for gap in found.gaps:
        job.walked.gap(gap)
    for node in found.odd.tolist():
        message = f"the block node at {node:#x} of page heap {job.heap.address:#x} is damaged: its members do not fit together"
        job.walked.find(
            Finding("page_header", "error", job.heap.address, node, job.view.pointer_bytes, message, "", "")
        )
    stated = _stated(job.view, job.heap)
    if stated is not None and not found.gaps and stated != found.busy_nodes:
        job.walked.gap(
            f"page heap {job.heap.address:#x}: {found.busy_nodes:,} busy blocks were found, Windows counted {stated:,}"
        )


def _stated(view: View, heap: Heap) -> int | None:
    """What the root counts as busy blocks with pages of their own."""
    fields = view.struct("_DPH_HEAP_ROOT", heap.address + PAGE, load(heap.layout)) if heap.layout else None
    return None if fields is None else fields["nBusyAllocations"]


def _add_full(job: Job, nodes: PageNodes, information: int) -> None:
    if not len(nodes):
        return
    is_backward = nodes.data == nodes.user
    entry = np.where(is_backward, nodes.user, nodes.user - np.uint64(information))
    occupied = (nodes.data_end - entry).astype(np.int64)
    units = np.minimum(-(-occupied // UNIT), _TABLE_UNITS - 1)
    spare = units * UNIT - nodes.size.astype(np.int64)
    flags = np.where(nodes.is_busy | _is_committed(job.process, nodes.data), 0, PAGE_DECOMMITTED)
    tags = np.where(nodes.is_busy, tag(BlockKind.PAGE, busy=True), tag(BlockKind.PAGE)) | flags << FLAGS_SHIFT
    lead = np.where(is_backward, 0, information // UNIT)
    job.columns.append(job.heap.index, entry, units, spare, lead, tags)


def _is_committed(process: Process, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Whether the memory map calls these addresses committed; True where it does not say."""
    regions = process.regions
    if not regions.is_complete_map:
        return np.ones(len(address), bool)
    at = np.searchsorted(regions.start, address, side="right") - 1
    committed: NDArray[np.bool_] = (at >= 0) & (regions.state[np.maximum(at, 0)] == State.MEM_COMMIT)
    return committed


def _add_light(job: Job, light: LightBlocks, information: int) -> None:
    if not len(light):
        return
    units = light.room // UNIT
    tags = np.where(light.is_busy, tag(BlockKind.LIGHT, busy=True), tag(BlockKind.LIGHT)) | PAGE_LIGHT << FLAGS_SHIFT
    lead = np.full(len(light), information // UNIT)
    job.columns.append(job.heap.index, light.start, units, units * UNIT - light.size, lead, tags)
    job.walked.headers += len(light)
    job.walked.good_headers += int(light.is_sound.sum())
    job.owned.append(job.table.entry[light.rows])
    _host(job, light)


def _host(job: Job, light: LightBlocks) -> None:
    """Tells the ordinary heap what of it is counted as light blocks: in its segments, and in its large blocks."""
    if not len(light):
        return
    heap, is_large = int(job.table.heap[light.rows[0]]), job.table.kind[light.rows] == BlockKind.VIRTUAL
    for kind, mine in ((BlockKind.BACKEND, ~is_large), (BlockKind.VIRTUAL, is_large)):
        busy, free = mine & light.is_busy, mine & ~light.is_busy
        if mine.any():
            sums = (int(busy.sum()), int(light.size[busy].sum()), int(light.room[busy].sum()))
            job.host(heap, KindCount(kind, *sums, int(free.sum()), int(light.room[free].sum())))


def _carriers(job: Job) -> NDArray[np.int64]:
    """Rows of the ordinary heap behind this page heap that may hold light blocks."""
    behind = [h.index for h in job.heaps if h.address == job.heap.normal_heap and h.view == job.heap.view]
    return carriers_of(job.table, behind[0]) if behind else np.empty(0, np.int64)
