"""Stamps and fills around every block of a page heap."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.page.damage import LIGHT_SUFFIX, byte_damage
from heapdump.heaps.page.light import carriers_of
from heapdump.layouts import Struct, load

_SHOWN = 64


def check_page_heap(job: CheckJob) -> None:
    """A finding for each damaged place; some 20 µs a block."""
    table, heap = job.table, job.heap
    rows = np.flatnonzero((table.heap == heap.index) & np.isin(table.kind, [BlockKind.PAGE, BlockKind.LIGHT]))
    for block in table.blocks(rows):
        for damage in byte_damage(job.view, heap, block):
            message = f"page heap {heap.address:#x}: the {damage.what} of the {block.state} block at {block.address:#x} is changed"
            expected, found = damage.expected[:_SHOWN].hex(" "), damage.found[:_SHOWN].hex(" ")
            job.findings.append(
                Finding(damage.kind, "error", heap.address, damage.address, len(damage.found), message, expected, found)
            )
    if heap.layout is not None:
        _without_information(job, load(heap.layout)["_DPH_BLOCK_INFORMATION"])


def _without_information(job: CheckJob, struct: Struct) -> None:
    """Busy blocks of the ordinary heap that end as light blocks do, but whose block information is all overwritten.

    Under light page heap every busy block of the ordinary heap is one (recorded dumps of XP and 19041).
    """
    table = job.table
    behind = [h.index for h in job.heaps if h.address == job.heap.normal_heap and h.view == job.heap.view]
    if not behind or not ((table.heap == job.heap.index) & (table.kind == BlockKind.LIGHT)).any():
        return
    granule, heap = job.view.granularity, job.heap.address
    for block in table.blocks(carriers_of(table, behind[0])):
        suffix = job.view.space.try_read(block.address + block.size - granule, granule)
        if suffix != bytes([LIGHT_SUFFIX]) * granule or block.size < struct.size + granule:
            continue
        found = (job.view.space.try_read(block.address, struct.size) or b"").hex(" ")
        size = block.size - struct.size - granule
        message = f"page heap {heap:#x}: the block information before {block.address + struct.size:#x} ({size:,} bytes) is overwritten"
        job.findings.append(
            Finding("page_header", "error", heap, block.address, struct.size, message, "stamps of page heap", found)
        )
