"""Findings about members of _HEAP that cannot be: signatures, own address, key of the headers, flags, lock, front end.

What the heap holds is found without them; each has a second witness (docs/reference/heap-structures.md §2.1).
"""

from __future__ import annotations

from dataclasses import replace

from heapdump.blocks.findings import Finding
from heapdump.heaps.allocator import HEAP_SIGNATURE, PAGE, SEGMENT_SIGNATURE, is_partly_missing
from heapdump.heaps.nt.discovery import FRONT_ENDS, HeapReader
from heapdump.heaps.nt.header_key import ENCODED_BITS, header_key, stated_key

_LOOKASIDE, _LFH = 1, 2
"""FrontEndHeapType."""

_FORCED = 0x6001007D
"""Bits of Flags that RtlCreateHeap copies to ForceFlags, which has no others."""

_FREE_CHECKING = 0x40
"""The one of them that Flags may lose later: in every recorded heap with tail checking and stack traces."""

_NO_SERIALIZE, _LOCK_OF_CALLER = 0x1, 0x80000000


def report_header(reader: HeapReader) -> None:
    """Adds the findings about the header of a heap of Vista and later."""
    pointer = reader.view.pointer_bytes
    _report(reader, "SegmentSignature", 4, SEGMENT_SIGNATURE)
    _report(reader, "Signature", 4, HEAP_SIGNATURE)
    _report(reader, "Heap", pointer, reader.address)
    _report_key(reader)
    _report_flags(reader)
    _report_lock(reader)
    _report_blocks_index(reader)
    _report_front_end(reader)


def report_pre_vista_header(reader: HeapReader) -> None:
    """Adds the findings about the header of a heap of XP or Server 2003."""
    _report(reader, "Signature", 4, HEAP_SIGNATURE)
    _report_flags(reader)
    _report_lock(reader)


def report_pre_vista_front_end(reader: HeapReader, lists: int) -> None:
    """Adds the findings about FrontEndHeap and FrontEndHeapType; `lists`: see `lookaside_lists.lists_at`."""
    kind, front_end = reader.fields.get("FrontEndHeapType"), reader.fields.get("FrontEndHeap")
    if not lists and kind != _LOOKASIDE:
        _report_front_end(reader)
        return
    if kind not in (None, _LOOKASIDE):
        _add(reader, "FrontEndHeapType", 1, f"{_LOOKASIDE}", f"{kind}")
    if front_end not in (None, lists) or front_end == 0:
        _add(reader, "FrontEndHeap", reader.view.pointer_bytes, "its lookaside lists", f"{front_end:#x}")


def _report_flags(reader: HeapReader) -> None:
    """Adds a warning where Flags and ForceFlags, its neighbour, contradict each other: one of them is another one."""
    flags, forced = reader.fields.get("Flags"), reader.fields.get("ForceFlags")
    if flags is None or forced is None:
        return
    if (flags ^ forced) & _FORCED & ~_FREE_CHECKING or forced & ~_FORCED:
        expected = f"ForceFlags {flags & _FORCED:#x} for Flags {flags:#x}"
        _warn(reader, "Flags", 8, expected, f"{forced:#x}")


def _report_lock(reader: HeapReader) -> None:
    """Adds findings about LockVariable.

    An error where it leads out of the heap's first page; a warning where it contradicts HEAP_NO_SERIALIZE.
    Every recorded heap has its lock behind its header, and one without lock has that flag.
    """
    lock, flags = reader.fields.get("LockVariable"), reader.fields.get("Flags", 0)
    if lock is None or flags & _LOCK_OF_CALLER:
        return
    pointer, is_serialised = reader.view.pointer_bytes, not flags & _NO_SERIALIZE
    if lock and not reader.address < lock < reader.address + PAGE:
        _add(reader, "LockVariable", pointer, "a lock behind the heap's header", f"{lock:#x}")
    elif bool(lock) != is_serialised and flags & _NO_SERIALIZE == reader.fields.get("ForceFlags", 0) & _NO_SERIALIZE:
        expected = "a lock" if is_serialised else "0, with HEAP_NO_SERIALIZE"
        _warn(reader, "LockVariable", pointer, expected, f"{lock:#x}")


def _report_blocks_index(reader: HeapReader) -> None:
    """Adds an error where BlocksIndex leads to no lookup of this heap's free list, which lies behind the header."""
    index, layout, heap = reader.fields.get("BlocksIndex"), reader.layout, reader.address
    if index is None:
        return
    head = reader.view.space.try_pointer(index + layout["_HEAP_LIST_LOOKUP"].offset("ListHead"))
    is_inside = heap < index < heap + PAGE
    if not is_inside or head not in (None, heap + layout["_HEAP"].offset("FreeLists")):
        _add(reader, "BlocksIndex", reader.view.pointer_bytes, "the lookup of its free list", f"{index:#x}")


def _report_front_end(reader: HeapReader) -> None:
    """Adds the findings about FrontEndHeapType, and about FrontEndHeap where it leads to no LFH of this heap."""
    kind, front_end = reader.fields.get("FrontEndHeapType"), reader.fields.get("FrontEndHeap")
    if kind is None or front_end is None:
        return
    if kind not in FRONT_ENDS:
        _add(reader, "FrontEndHeapType", 1, "0, 1 or 2", f"{kind}")
    place = front_end + reader.layout["_LFH_HEAP"].offset("Heap")
    owner = reader.view.space.try_pointer(place)
    is_lost = owner is None and is_partly_missing(reader.process, place, reader.view.pointer_bytes)
    if kind != _LFH or owner == reader.address or is_lost:
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


def _warn(reader: HeapReader, member: str, length: int, expected: str, found: str) -> None:
    """Adds a warning about a member that contradicts another one."""
    _add(reader, member, length, expected, found)
    reader.findings[-1] = replace(reader.findings[-1], severity="warning")


def _add(reader: HeapReader, member: str, length: int, expected: str, found: str, offset: int = 0) -> None:
    place = reader.address + reader.layout["_HEAP"].offset(member) + offset
    message = f"{member} of heap {reader.address:#x} is damaged"
    reader.findings.append(Finding("segment", "error", reader.address, place, length, message, expected, found))
