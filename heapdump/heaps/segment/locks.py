"""The locks of a segment heap. A held lock shows that a thread was changing the heap.

They are SRW locks, which do not name their owner. Bit 0 is set while a lock is held (recorded on 19041, 22000 and 26100
in the middle of operations; 0 in every heap at rest). In a crashed process a held lock explains nothing: the thread
stopped at damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from heapdump.heaps.segment.affinity_slots import affinity_slots
from heapdump.layouts import Layout
from heapdump.process.model import Process, View
from heapdump.process.reports.failure_record import HEAP_CORRUPTION

_HELD = 1
_HEAP_LOCKS = {"LargeMetadataLock": "large blocks", "SegmentAllocatorLock": "segments"}


def who_changes(process: Process, view: View, layout: Layout | None, heap: int, changing: Callable[[], str]) -> str:
    """Words that name a held lock, or a thread, which shows that the heap is being changed.

    "" for none, and where ntdll itself found a damaged heap. `changing`: see `jobs.CheckJob`.
    """
    if process.exception is not None and process.exception.code == HEAP_CORRUPTION:
        return ""
    return ("" if layout is None else lock_words(process, view, layout, heap)) or changing()


def lock_words(process: Process, view: View, layout: Layout, heap: int) -> str:
    """Words that name a held lock of the heap; "" for none, and in a crashed process."""
    if process.exception is not None or not process.threads:
        return ""
    held = [what for what, place in _locks(view, layout, heap) if (view.space.try_pointer(place) or 0) & _HELD]
    return f"the lock of its {held[0]} is held by a thread, which may be changing it" if held else ""


def _locks(view: View, layout: Layout, heap: int) -> Iterator[tuple[str, int]]:
    """(what the lock protects, its address)."""
    struct = layout["_SEGMENT_HEAP"]
    for member, what in _HEAP_LOCKS.items():
        if member in struct:
            yield what, heap + struct.offset(member)
    if "SegContexts" in struct and "SegmentLock" in layout["_HEAP_SEG_CONTEXT"]:
        context = layout["_HEAP_SEG_CONTEXT"]
        for i in range(struct.fields["SegContexts"].count):
            yield "segments", heap + struct.offset("SegContexts") + i * context.size + context.offset("SegmentLock")
    if "VsContext" not in struct or "_HEAP_VS_CONTEXT" not in layout:
        return
    at = heap + struct.offset("VsContext")
    if "Lock" in layout["_HEAP_VS_CONTEXT"]:
        yield "VS chunks", at + layout["_HEAP_VS_CONTEXT"].offset("Lock")
    if "_HEAP_VS_AFFINITY_SLOT" in layout and "Lock" in layout["_HEAP_VS_AFFINITY_SLOT"]:
        for slot in affinity_slots(view, layout, at):
            yield "VS chunks", slot + layout["_HEAP_VS_AFFINITY_SLOT"].offset("Lock")
