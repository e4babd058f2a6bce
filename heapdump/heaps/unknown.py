"""What the process calls a heap and no walker can verify: Wine's heaps, phantoms, heaps outside the dump."""

from __future__ import annotations

from heapdump.blocks.heap import Heap, HeapKind
from heapdump.heaps.allocator import SEGMENT_SIGNATURE, DiscoveryContext, HeapClaim
from heapdump.heaps.unwalked import own_reservation
from heapdump.process.model import View


class UnknownHeapWalker:
    """Claims every address, with no witness at all."""

    def claims(self, view: View, address: int, *, is_listed: bool) -> HeapClaim | None:
        """Always, and always the weakest claim."""
        return HeapClaim(address, (), (_reason(view, address),))

    def describe(self, context: DiscoveryContext, claim: HeapClaim, index: int) -> Heap:
        """The address and the reason; none of its memory is called Heap."""
        note = f"heap {claim.address:#x} is not verified: {claim.doubts[0]}"
        return own_reservation(context, claim, index, HeapKind.UNKNOWN, "", note)


def _reason(view: View, address: int) -> str:
    word = view.space.try_integer(address + 2 * view.pointer_bytes, 4)
    if word is None:
        return "its header is not in the dump"
    if word == SEGMENT_SIGNATURE:
        # Wine: the segment signature in Windows' place, nothing else of an NT heap
        return "it has FFEEFFEE in the place of an NT heap's segment signature, but no EEFFEEFF (Wine, or damaged)"
    return f"no heap signature: {word:#x} where an NT, segment or page heap has its own"


WALKER = UnknownHeapWalker()
