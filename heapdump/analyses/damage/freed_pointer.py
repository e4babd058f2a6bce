"""The pointer whose free failed: what it is, and so the bug.

ntdll reports `block_not_busy` for a block that was freed before, for a pointer into the middle of a block, and for a
pointer to no block at all. The pointer decides, not the number in the record.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from heapdump.analyses.damage.report_context import ReportContext
from heapdump.blocks.findings import BugKind
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.table import Block
from heapdump.memory.regions import State
from heapdump.process.reports.failure_record import FailureRecord

_FREE_FAILURES = (
    "entry_corruption", "multiple_entries_corruption", "block_not_busy", "invalid_argument", "cross_heap_operation",
    "segment_lfh_double_free", "segment_lfh_bitmap_corruption", "generic", "unknown",
)  # fmt: skip
"""Failures that a pointer which must not be freed leads to."""


@dataclass(frozen=True, slots=True)
class FreedPointer:
    """A free that failed.

    Attributes:
        pointer: address that the program passed.
        bug: double free, bad free, mismatch ….
        block: block that it points into; None for no block.
        sentence: the bug, for a person.
    """

    pointer: int
    bug: BugKind
    block: Block | None
    sentence: str


def judge_free(context: ReportContext, record: FailureRecord) -> FreedPointer | None:
    """The judgement on the free that failed; None where a header is damaged, and for other failures."""
    if not record.block or not any(name in _FREE_FAILURES for name in record.names):
        return None
    heap = context.heap_at(record.heap)
    pointer = _pointer(context, record, heap)
    located = context.locate(pointer)
    block = located.block if located.block is not None and not located.block.is_internal else None
    if block is None:
        return _no_block(context, record, heap, pointer)
    if block.state == "free":
        return _twice(context, pointer, block)
    if pointer != block.address:
        return _inside(context, pointer, block)
    own = context.heaps[block.heap]
    if heap is not None and own.address != heap.address:
        return _other_heap(context, record, pointer, block, heap)
    return None


def _pointer(context: ReportContext, record: FailureRecord, heap: Heap | None) -> int:
    """The pointer that the program passed: behind the header of an NT heap's entry; segment heaps name the block."""
    if heap is not None and heap.kind == HeapKind.SEGMENT:
        located = context.locate(record.block)
        return (
            located.block.address if located.block is not None and record.block == located.block.entry else record.block
        )
    return record.block + 2 * record.pointer_bytes


def _twice(context: ReportContext, pointer: int, block: Block) -> FreedPointer:
    heap = context.heaps[block.heap].address
    place = "" if pointer == block.address else f", which has been merged into the free block at {block.address:#x}"
    words = f"the block at {pointer:#x} of heap {heap:#x} is free already{place}: freed twice"
    return FreedPointer(pointer, BugKind.DOUBLE_FREE, block, words)


def _inside(context: ReportContext, pointer: int, block: Block) -> FreedPointer:
    offset = pointer - block.address
    words = f"{pointer:#x} lies {offset:+#x} in the busy {block.size:,}-byte block at {block.address:#x}"
    crt = context.find_crt(np.array([block.row], np.int64))
    if len(crt.row) and int(crt.user[0]) == pointer:
        words += f": the user pointer of debug-CRT block #{int(crt.request[0])}, freed by another CRT"
    else:
        words += ": not a pointer that an allocation returned"
    return FreedPointer(pointer, BugKind.BAD_FREE, block, words)


def _other_heap(context: ReportContext, record: FailureRecord, pointer: int, block: Block, heap: Heap) -> FreedPointer:
    own = context.heaps[block.heap]
    words = f"the block at {pointer:#x} belongs to heap {own.address:#x} and was freed to heap {heap.address:#x}"
    if context.is_checked_by(record.block, own, heap):
        words += "; proof: the checksum of its header was made with the key of that heap"
    return FreedPointer(pointer, BugKind.MISMATCH, block, words)


def _no_block(context: ReportContext, record: FailureRecord, heap: Heap | None, pointer: int) -> FreedPointer | None:
    place = _place(context, pointer)
    is_named = "block_not_busy" in record.names or "invalid_argument" in record.names
    if not place and not is_named:
        return None
    asked = f" of heap {heap.address:#x}" if heap is not None else ""
    where = place or "where no heap has a block"
    return FreedPointer(pointer, BugKind.BAD_FREE, None, f"{pointer:#x} was freed as a block{asked}: it lies {where}")


def _place(context: ReportContext, pointer: int) -> str:
    """The stack, image or memory outside of all heaps that holds a pointer; "" inside heaps and where not known."""
    process = context.process
    for thread in process.threads:
        if any((stack.reserved or stack.limit) <= pointer < stack.base for stack in thread.stacks):
            return f"on the stack of thread {thread.id:#x}"
    if process.module_map.at(pointer) is not None:
        return f"in an image, {process.where(pointer)}"
    row = process.regions.index_at(pointer)
    if row is None:
        return ""
    span, _, state, *_ = process.regions.row(row)
    if state is State.MEM_FREE:
        return "where no memory is allocated"
    extents = (extent.span for heap in context.heaps for extent in heap.extents)
    is_of_heap = any(extent.start < span.end and span.start < extent.end for extent in extents)
    return "" if is_of_heap else f"in memory of no heap, the region at {span.start:#x}"
