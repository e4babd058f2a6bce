"""Findings about members of _HEAP that cannot be: signatures, own address, key of the headers, front end.

What the heap holds is found without them; each has a second witness (docs/reference/heap-structures.md §2.1).
"""

from __future__ import annotations

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import HEAP_SIGNATURE, SEGMENT_SIGNATURE, is_missing
from heapdump.heaps.nt.discovery import FRONT_ENDS, HeapReader
from heapdump.heaps.nt.header_key import ENCODED_BITS, header_key, stated_key

_LFH = 2


def report_header(reader: HeapReader) -> None:
    """Adds the findings of a heap of Vista and later."""
    pointer = reader.view.pointer_bytes
    _report(reader, "SegmentSignature", 4, SEGMENT_SIGNATURE)
    _report(reader, "Signature", 4, HEAP_SIGNATURE)
    _report(reader, "Heap", pointer, reader.address)
    _report_key(reader)
    _report_front_end(reader)


def report_pre_vista_header(reader: HeapReader) -> None:
    """Adds the findings of a heap of XP or Server 2003."""
    _report(reader, "Signature", 4, HEAP_SIGNATURE)
    _report_front_end(reader)


def _report_front_end(reader: HeapReader) -> None:
    """Adds the findings about FrontEndHeapType, and about FrontEndHeap where it leads to no LFH of this heap."""
    kind, front_end = reader.fields.get("FrontEndHeapType"), reader.fields.get("FrontEndHeap")
    if kind is None or front_end is None:
        return
    if kind not in FRONT_ENDS:
        _add(reader, "FrontEndHeapType", 1, "0, 1 or 2", f"{kind}")
    owner = reader.view.space.try_pointer(front_end + reader.layout["_LFH_HEAP"].offset("Heap"))
    if kind != _LFH or owner == reader.address or (owner is None and is_missing(reader.process, front_end)):
        return
    _add(reader, "FrontEndHeap", reader.view.pointer_bytes, "an _LFH_HEAP of this heap", f"{front_end:#x}")


def _report_key(reader: HeapReader) -> None:
    space, word_offset = reader.view.space, 2 * reader.view.pointer_bytes - 8
    stated = stated_key(space, reader.address, reader.layout)
    solved = header_key(space, reader.address, reader.layout)
    if stated == solved:
        return
    if stated.mask != solved.mask:
        _add(reader, "EncodeFlagMask", 4, f"{solved.mask:#x}", f"{stated.mask:#x}")
    place = reader.address + reader.layout["_HEAP"].offset("Encoding") + word_offset
    found = (space.try_integer(place, 8) or 0) & ENCODED_BITS
    if solved.mask and found != solved.key:
        _add(reader, "Encoding", 8, f"{solved.key:012x}", f"{found:012x}", word_offset)


def _report(reader: HeapReader, member: str, length: int, expected: int) -> None:
    found = reader.fields.get(member)
    if found is not None and found != expected:
        _add(reader, member, length, f"{expected:#x}", f"{found:#x}")


def _add(reader: HeapReader, member: str, length: int, expected: str, found: str, offset: int = 0) -> None:
    place = reader.address + reader.layout["_HEAP"].offset(member) + offset
    message = f"{member} of heap {reader.address:#x} is damaged"
    reader.findings.append(Finding("segment", "error", reader.address, place, length, message, expected, found))
