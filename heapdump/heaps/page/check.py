"""Checks the blocks of a page heap: stamps and fills (docs/reference/heap-structures.md §5.2)."""

from __future__ import annotations

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.page.damage import LIGHT_SUFFIX, byte_damage
from heapdump.heaps.page.light import hosts_of
from heapdump.layouts import Struct, load
from heapdump.wording import plural

_SHOWN_BYTES = 64
"""The most damaged bytes that a finding shows."""


def check_page_heap(job: CheckJob) -> None:
    """Adds a finding for each damaged stamp, member or fill. Takes some 20 µs for each block."""
    table, heap = job.table, job.heap
    rows = np.flatnonzero((table.heap == heap.index) & np.isin(table.kind, [BlockKind.PAGE, BlockKind.LIGHT]))
    for block in table.blocks(rows):
        for damage in byte_damage(job.view, heap, block):
            place = f"the {damage.what} of the {block.state} block at {block.address:#x}"
            least = f": {damage.at_least}{plural(len(damage.found), 'byte')}" if damage.is_cut else ""
            message = f"page heap {heap.address:#x}: {place} is changed{least}"
            expected, found = damage.expected[:_SHOWN_BYTES].hex(" "), damage.found[:_SHOWN_BYTES].hex(" ")
            length = len(damage.found)
            job.findings.append(
                Finding(
                    damage.kind, "error", heap.address, damage.address, length, message, expected, found, damage.is_cut
                )
            )
    if heap.layout is not None:
        _check_hosts(job, load(heap.layout)["_DPH_BLOCK_INFORMATION"])


def _check_hosts(job: CheckJob, information: Struct) -> None:
    """Adds a finding for each block of the ordinary heap that ends like a light block, but has no block information.

    Under light page heap every busy block of the ordinary heap holds a light block (recorded dumps of XP and 19041). So
    its block information was overwritten.
    """
    table = job.table
    behind = [h.index for h in job.heaps if h.address == job.heap.normal_heap and h.view == job.heap.view]
    if not behind or not ((table.heap == job.heap.index) & (table.kind == BlockKind.LIGHT)).any():
        return
    granule, heap, length = job.view.granularity, job.heap.address, information.size
    for host in table.blocks(hosts_of(table, behind[0])):
        suffix = job.view.space.try_read(host.address + host.size - granule, granule)
        if suffix != bytes([LIGHT_SUFFIX]) * granule or host.size < length + granule:
            continue
        found = (job.view.space.try_read(host.address, length) or b"").hex(" ")
        user, size = host.address + length, host.size - length - granule
        message = f"page heap {heap:#x}: the block information before {user:#x} ({size:,} bytes) is overwritten"
        job.findings.append(
            Finding("page_header", "error", heap, host.address, length, message, "stamps of page heap", found)
        )
