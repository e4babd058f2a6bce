"""Which addresses to offer to the walkers: the heap lists, and a scan of reservations where those are not enough.

The scan looks at the first bytes of each private reservation. It runs when a list could not be read to its end
(small dumps, Wine), and under page heap, whose handles are on no list of the PEB (seen on XP and with verifier.dll on
19041). What it finds counts as "not listed": a walker needs its other witnesses there.
"""

from __future__ import annotations

from collections.abc import Iterator

from heapdump.heaps.allocator import SEGMENT_SIGNATURE
from heapdump.memory.regions import Kind
from heapdump.process.model import Process, View

_HPA = 0x02000000
_VERIFIER = 0x100
_STARTS = {0xFFEEFFEE, 0xDDEEDDEE, 0xEEFFEEFF, 0xEEEEEEEE}
"""The word at H+8 (x86) or H+0x10 (x64): NT heap, segment heap, NT heap before Vista, page heap's facade."""


def heap_addresses(process: Process, view: View) -> Iterator[tuple[int, bool]]:
    """(address, whether a heap list names it), listed ones first, each once."""
    seen = set(view.heap_addresses)
    for address in view.heap_addresses:
        yield address, True
    flags = view.global_flag or 0
    has_verifier = any(m.name.lower() == "verifier.dll" for m in process.modules)
    if view.heap_list_complete and not flags & (_HPA | _VERIFIER) and not has_verifier:
        return
    for address in _reservations(process):
        if address not in seen and view.space.try_integer(address + 2 * view.pointer_bytes, 4) in _STARTS:
            if _is_other_segment(view, address):
                continue
            seen.add(address)
            yield address, False


def _reservations(process: Process) -> Iterator[int]:
    """Start of each private reservation; of each memory range on a 64 KiB boundary where there is no map."""
    regions = process.regions
    for first, _ in regions.runs():
        start = int(regions.start[first])
        kind = int(regions.type[first])
        if start % 0x10000 == 0 and kind in (Kind.MEM_PRIVATE, Kind.UNKNOWN):
            yield start


def _is_other_segment(view: View, address: int) -> bool:
    """True for a later segment of an NT heap: FFEEFFEE, but its `Heap` member names another address."""
    struct = view.layout["_HEAP_SEGMENT"]
    if view.space.try_integer(address + 2 * view.pointer_bytes, 4) != SEGMENT_SIGNATURE:
        return False
    return view.space.try_pointer(address + struct.offset("Heap")) != address
