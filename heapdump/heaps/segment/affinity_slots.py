"""The affinity slots of a VS context, in 26100 (docs/reference/heap-structures.md §6.4)."""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.layouts import Layout
from heapdump.process.model import View

_SLOT_REF_SHIFT = 6
"""A reference to an affinity slot is its distance from the VS context in units of 1 << 6 = 64 bytes."""

_MOST_AFFINITY_SLOTS = 256


def affinity_slots(view: View, layout: Layout, context: int) -> Iterator[int]:
    """Addresses of the affinity slots of the VS context at an address; none under a layout without them."""
    fields = view.struct("_HEAP_VS_CONTEXT", context, layout)
    if fields is None or "SlotMapRef" not in fields or "_HEAP_VS_AFFINITY_SLOT" not in layout:
        return
    slot_map = context + (fields["SlotMapRef"] << _SLOT_REF_SHIFT)
    for i in range(min(fields["AffinityMask"] + 1, _MOST_AFFINITY_SLOTS)):
        slot_ref = view.space.try_integer(slot_map + 4 * i, 2)
        if slot_ref:
            yield context + (slot_ref << _SLOT_REF_SHIFT)
