"""Addresses that are offered to allocators: the heap lists, and what allocators look for themselves.

Allocators of Windows scan the reservations where a list could not be read to its end (small dumps, Wine), and under page
heap, whose handles are on no list of the PEB (seen on XP and with verifier.dll on 19041). An address found by a scan
counts as "not listed": a claim on it needs other evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from heapdump.memory.regions import Kind
from heapdump.process.model import Process, View

_HPA = 0x02000000
_VERIFIER = 0x100


def has_every_heap_listed(process: Process, view: View) -> bool:
    """True when the heap list of the view was read to its end and no page heap is in use."""
    has_verifier = any(module.name.lower() == "verifier.dll" for module in process.modules)
    return view.heap_list_complete and not (view.global_flag or 0) & (_HPA | _VERIFIER) and not has_verifier


def reservations_with(process: Process, view: View, words: Collection[int]) -> Iterator[int]:
    """Starts of private reservations whose 32-bit word at +8 (x86) or +0x10 (x64) is one of these, ascending.

    Without a memory map: of memory ranges on a 64 KiB boundary. Yields nothing where every heap is listed.
    """
    if has_every_heap_listed(process, view):
        return
    regions = process.regions
    for first, _ in regions.allocation_rows():
        start, kind = int(regions.start[first]), int(regions.type[first])
        if start % 0x10000 or kind not in (Kind.MEM_PRIVATE, Kind.UNKNOWN):
            continue
        if view.space.try_integer(start + 2 * view.pointer_bytes, 4) in words:
            yield start
