"""Decodes encoded structures of heaps of any kind."""

from __future__ import annotations

from heapdump.blocks.decoded import Decoded
from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.blocks.walk import HeapFacts
from heapdump.process.model import View

_HEADERS = ("_HEAP_ENTRY", "_HEAP_FREE_ENTRY")


def decoded(view: View, heap: Heap, facts: HeapFacts, name: str, address: int, data: bytes) -> Decoded | None:
    """A decoded structure of a heap; None for one that is not encoded, or whose key is not known.

    `facts`: `Walk.facts` of the heap; `name`: of the structure in the layouts; `data`: its bytes, from `address` on.
    """
    if heap.layout is None:
        return None
    if heap.kind == HeapKind.SEGMENT:
        from heapdump.heaps.segment.decoded import decode

        return decode(view, heap, facts, name, address, data)
    if heap.kind == HeapKind.NT and name in _HEADERS:
        from heapdump.heaps.nt.decoded import decode_header

        return decode_header(view, heap, data)
    return None
