"""A throw-away kind of heap, as a package would bring it: an arena in private memory, found by its own scan.

The arena is {magic: 8 bytes, blocks: 8 bytes}; each block is {requested bytes: u32, is busy: u32, owner of the list link: 8
bytes} followed by its body, rounded up to 16 bytes. Nothing of heapdump knows it but a line in ALLOCATORS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Extent, ExtentKind, Heap, Segment, WindowsCounters
from heapdump.blocks.kind import BlockKind, HeapKind, Place
from heapdump.blocks.table import tag
from heapdump.blocks.walk import Check, CheckKind, HeapCount, Walk
from heapdump.heaps.allocator import DiscoveryContext, Evidence, HeapClaim, Weight
from heapdump.heaps.jobs import AllocatorJob, CheckJob, HeapJob, TraceReader
from heapdump.process.model import Process, View

MAGIC, HEADER = 0x59544F5459544F54, 16
TOY = BlockKind.define(12, "toy", Place.SEGMENT)


class ToyAllocator:
    kind = HeapKind("toy")
    block_kinds = (TOY,)

    def claim(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        if view.space.try_integer(address, 8) != MAGIC:
            return None
        return HeapClaim(address, (Evidence("magic word", Weight.SIGNATURE),), is_layout_exact=True)

    def candidates(self, process: Process, view: View) -> Iterable[int]:
        starts = (int(process.regions.start[first]) for first, _ in process.regions.allocation_rows())
        return (start for start in starts if view.space.try_integer(start, 8) == MAGIC)

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        span = context.process.regions.allocation(claim.address)
        assert span is not None
        return Heap(
            address=claim.address, index=index, kind=self.kind, role="private", view=context.view.arch, flags=None,
            segments=(Segment(claim.address, span, (), 0, has_all_ranges=True),), large_blocks=None,
            extents=(Extent(span, ExtentKind.SEGMENT, 0),), reserved_bytes=span.size, committed_bytes=span.size,
            counters=WindowsCounters(), front_end=None, lookaside_bytes=0, stack_traces=False, trust=claim.trust,
            layout=None, findings=(), notes=(), is_fully_walked=True,
        )  # fmt: skip

    def walk(self, job: AllocatorJob) -> None:
        for one in job.each():
            self._walk(one)

    def _walk(self, job: HeapJob) -> None:
        for entry, size, is_busy in _blocks(job.view, job.heap):
            bytes_ = HEADER + -(-size // 16) * 16
            tags = np.array([tag(TOY, busy=is_busy)])
            job.columns.append(
                job.heap.index, np.array([entry]), np.array([bytes_ // 8]), np.array([bytes_ - size]),
                np.array([HEADER // 8]), tags,
            )  # fmt: skip
            job.log.headers += 1
            job.log.good_headers += 1

    def self_checks(self, process: Process, heap: Heap, count: HeapCount) -> Iterable[Check]:
        view = next(view for view in process.views if view.arch == heap.view)
        yield Check(
            CheckKind.BLOCKS, view.space.try_integer(heap.address + 8, 8), count.busy_blocks + count.free_blocks
        )

    def trace_reader(self, view: View, heap: Heap, walk: Walk) -> TraceReader | None:
        return None

    def check(self, job: CheckJob) -> bool:
        for entry, size, is_busy in _blocks(job.view, job.heap):
            if not is_busy and job.view.space.try_read(entry + HEADER, size) != bytes([0xDD]) * size:
                message = f"heap {job.heap.address:#x}: the free block at {entry + HEADER:#x} was written to"
                job.findings.append(
                    Finding("free_fill", "error", job.heap.address, entry + HEADER, size, message, "dd", "?")
                )
        return True


def _blocks(view: View, heap: Heap) -> Iterator[tuple[int, int, bool]]:
    count, at = view.space.try_integer(heap.address + 8, 8) or 0, heap.address + 16
    for _ in range(min(count, 1000)):
        size, state = view.space.try_integer(at, 4) or 0, view.space.try_integer(at + 4, 4) or 0
        yield at, size, state == 1
        at += HEADER + -(-size // 16) * 16


def arena(blocks: list[tuple[bytes, bool]]) -> bytes:
    """The bytes of an arena; the body of a free block is filled with DD."""
    out = MAGIC.to_bytes(8, "little") + len(blocks).to_bytes(8, "little")
    for body, is_busy in blocks:
        out += len(body).to_bytes(4, "little") + int(is_busy).to_bytes(4, "little") + bytes(8)
        out += (body if is_busy else bytes([0xDD]) * len(body)) + bytes(-len(body) % 16)
    return out


ALLOCATOR = ToyAllocator()
