"""Adds rows for the blocks of page heaps (docs/reference/heap-structures.md §5.5).

The row of a full block begins with its block information, which counts as header, and ends with its accessible pages. A
block behind its guard page (`gflags /backwards`) has no header. The memory of a freed block is inaccessible, so its row
comes from its node alone. The row of a light block begins with its block information, inside a block of the ordinary
heap.
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
from heapdump.heaps.jobs import HeapJob
from heapdump.heaps.page.light import LightBlocks, hosts_of, light_blocks
from heapdump.heaps.page.nodes import NodeSet, read_nodes
from heapdump.heaps.page.structures import root_of
from heapdump.kernels.row import FLAGS_SHIFT, UNIT
from heapdump.layouts import load
from heapdump.memory.regions import State
from heapdump.process.model import Process, View

_MAX_SIZE8 = (1 << 32) - 1
"""The column size8 has 32 bits."""


def walk_page_heap(job: HeapJob) -> None:
    """Adds the full blocks, then the light blocks."""
    if job.heap.layout is None:
        return
    layout = load(job.heap.layout)
    found = read_nodes(job.view, layout, root_of(job.heap.address))
    _report(job, found)
    information = layout["_DPH_BLOCK_INFORMATION"].size
    _add_full(job, found.nodes, information)
    light = light_blocks(job.view, layout, job.heap.address, job.table, _hosts(job))
    _add_light(job, light, information)
    job.advance(sum(extent.span.size for extent in job.heap.extents))


def _report(job: HeapJob, found: NodeSet) -> None:
    """Adds findings for damaged nodes and a wrong counter of busy blocks, and gaps for missing nodes."""
    heap, log = job.heap.address, job.log
    log.headers += len(found.nodes) + len(found.damaged)
    log.good_headers += len(found.nodes)
    for gap in found.gaps:
        log.add_gap(gap)
    for node in found.damaged.tolist():
        message = f"the block node at {node:#x} of page heap {heap:#x} is damaged: its members do not fit together"
        log.add_finding(Finding("page_header", "error", heap, node, job.view.pointer_bytes, message, "", ""))
    counted = _counted_blocks(job.view, job.heap)
    if counted is not None and not found.gaps and counted != found.busy_nodes:
        log.add_gap(f"page heap {heap:#x}: {found.busy_nodes:,} busy blocks were found, Windows counted {counted:,}")


def _counted_blocks(view: View, heap: Heap) -> int | None:
    """The root's counter of busy full blocks; None where the root is not in the dump."""
    fields = view.struct("_DPH_HEAP_ROOT", root_of(heap.address), load(heap.layout)) if heap.layout else None
    return None if fields is None else fields["nBusyAllocations"]


def _add_full(job: HeapJob, nodes: PageNodes, information: int) -> None:
    """Adds a row for each node. `information`: bytes of the block information."""
    if not len(nodes):
        return
    is_backward = nodes.data == nodes.user
    entry = np.where(is_backward, nodes.user, nodes.user - np.uint64(information))
    occupied = (nodes.data_end - entry).astype(np.int64)
    size8 = np.minimum(-(-occupied // UNIT), _MAX_SIZE8)
    unused = size8 * UNIT - nodes.size.astype(np.int64)
    flags = np.where(nodes.is_busy | _is_committed(job.process, nodes.data), 0, PAGE_DECOMMITTED)
    tags = np.where(nodes.is_busy, tag(BlockKind.PAGE, busy=True), tag(BlockKind.PAGE)) | flags << FLAGS_SHIFT
    header8 = np.where(is_backward, 0, information // UNIT)
    job.columns.append(job.heap.index, entry, size8, unused, header8, tags)


def _is_committed(process: Process, address: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(n,) True for addresses that are committed by the memory map, and for all without a complete map."""
    regions = process.regions
    if not regions.is_complete_map:
        return np.ones(len(address), bool)
    i = np.searchsorted(regions.start, address, side="right") - 1
    committed: NDArray[np.bool_] = (i >= 0) & (regions.state[np.maximum(i, 0)] == State.MEM_COMMIT)
    return committed


def _add_light(job: HeapJob, light: LightBlocks, information: int) -> None:
    """Adds a row for each light block; its host becomes internal. `information`: bytes of the block information."""
    if not len(light):
        return
    size8 = light.room // UNIT
    tags = np.where(light.is_busy, tag(BlockKind.LIGHT, busy=True), tag(BlockKind.LIGHT)) | PAGE_LIGHT << FLAGS_SHIFT
    header8 = np.full(len(light), information // UNIT)
    job.columns.append(job.heap.index, light.start, size8, size8 * UNIT - light.size, header8, tags)
    job.log.headers += len(light)
    job.log.good_headers += int(light.has_both_stamps.sum())
    job.owned.append(job.table.entry[light.rows])
    _count_hosted(job, light)


def _count_hosted(job: HeapJob, light: LightBlocks) -> None:
    """Reports the light blocks to the ordinary heap: those in its segments, and those in its large blocks."""
    heap, is_large = int(job.table.heap[light.rows[0]]), job.table.kind[light.rows] == BlockKind.VIRTUAL
    for kind, chosen in ((BlockKind.BACKEND, ~is_large), (BlockKind.VIRTUAL, is_large)):
        busy, free = chosen & light.is_busy, chosen & ~light.is_busy
        if chosen.any():
            sums = (int(busy.sum()), int(light.size[busy].sum()), int(light.room[busy].sum()))
            job.host(heap, KindCount(kind, *sums, int(free.sum()), int(light.room[free].sum())))


def _hosts(job: HeapJob) -> NDArray[np.int64]:
    """Rows of the ordinary heap behind this page heap that may hold light blocks."""
    behind = [h.index for h in job.heaps if h.address == job.heap.normal_heap and h.view == job.heap.view]
    return hosts_of(job.table, behind[0]) if behind else np.empty(0, np.int64)
