"""The lock of an NT heap, an RTL_CRITICAL_SECTION at _HEAP.LockVariable (docs/reference/heap-structures.md §2.1)."""

from __future__ import annotations

from heapdump.blocks.heap import Heap
from heapdump.process.model import Process, View


def lock_words(process: Process, view: View, heap: Heap) -> str:
    """The living thread that has the heap's lock, in words; "" when none has, or the dump lacks the lock.

    A thread that raised the exception of the dump is none: it stopped at damage.

    RTL_CRITICAL_SECTION = {DebugInfo: pointer, LockCount: i32, RecursionCount: i32, OwningThread: pointer, …}.
    """
    layout = next((layout for layout in view.layouts if layout.name == heap.layout), None)
    if layout is None or "_HEAP" not in layout or "LockVariable" not in layout["_HEAP"]:
        return ""
    lock = view.space.try_pointer(heap.address + layout["_HEAP"].offset("LockVariable"))
    owner = view.space.try_pointer(lock + view.pointer_bytes + 8) if lock else None
    raised = process.exception.thread_id if process.exception else None
    if not owner or owner == raised or owner not in {thread.id for thread in process.threads}:
        return ""
    return f"its lock is held by thread {owner:#x}, which may be changing it"
