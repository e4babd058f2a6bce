"""The page heap (DPH, `gflags +hpa`, Application Verifier): recognised, named, its own reservation counted.

The handle's page is filled with EE bytes; the root lies in the next page (heap-structures.md §5.3 and §11).
"""

from __future__ import annotations

from heapdump.blocks.records import Heap, HeapKind
from heapdump.heaps.base import PAGE, Claim, Context
from heapdump.heaps.whole import own_reservation
from heapdump.process.model import View

FILL = 0xEEEEEEEE
ROOT_SIGNATURE = 0xFFEEDDCC


class PageHeapWalker:
    """Page heaps; their blocks are not walked."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> Claim | None:
        """Needs both the filled page of the handle and the root's signature behind it."""
        if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != FILL:
            return None
        if view.space.try_integer(address + PAGE, 4) != ROOT_SIGNATURE:
            return None
        return Claim(address, ("handle page filled with EE", "root signature FFEEDDCC"), is_layout_exact=True)

    def describe(self, context: Context, claim: Claim, index: int) -> Heap:
        """The reservation of handle and root; the blocks' reservations are counted as <unknown> memory."""
        note = (
            f"heap {claim.address:#x} is a page heap: only its own reservation is counted as PageHeap, "
            "its blocks are not walked"
        )
        return own_reservation(context, claim, index, HeapKind.PAGE, "page heap", note)


WALKER = PageHeapWalker()
