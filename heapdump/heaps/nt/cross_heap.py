"""Recognises the trace of a free to the wrong heap: a header word whose checksum was made with another heap's key.

RtlFreeHeap decodes the header with the key of the heap that it was passed, finds it damaged, and encodes it again with
that key and a new checksum. So every byte but the checksum is as the block's own heap wrote it, and the checksum holds
only under the key of the other heap (recorded frees of 7601 to 26100).
"""

from __future__ import annotations

from heapdump.blocks.heap import Heap
from heapdump.blocks.kind import HeapKind
from heapdump.heaps.nt.entry_format import entry_format_of
from heapdump.process.model import View


def is_checked_by(view: View, entry: int, own: Heap, other: Heap) -> bool:
    """True where the checksum of the header at `entry` holds under the key of `other`, but not under that of `own`.

    False for heaps without keys, and where the header is not in the dump.
    """
    if any(heap.kind != HeapKind.NT or heap.layout is None for heap in (own, other)):
        return False
    formats = [entry_format_of(view, heap) for heap in (own, other)]
    word = view.space.try_integer(entry + formats[0].word_offset, 8)
    if word is None or not all(one.mask for one in formats):
        return False
    holds = [_holds(word ^ one.unsigned_key) for one in formats]
    return holds == [False, True]


def _holds(plain: int) -> bool:
    return (plain ^ plain >> 8 ^ plain >> 16 ^ plain >> 24) & 0xFF == 0
