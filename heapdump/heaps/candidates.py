"""The scan of reservations for heaps that no heap list names.

The scan is made where the heap list could not be read to its end (small dumps, Wine), and under page heap, whose
handles are on no list of the PEB (seen on XP, and with verifier.dll on 19041). An address found by the scan is "not
listed", so a claim on it needs more evidence.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from heapdump.memory.regions import Kind, State
from heapdump.process.model import Process, View

_HPA = 0x02000000
_VERIFIER = 0x100


def has_every_heap_listed(process: Process, view: View) -> bool:
    """True when the heap list of the view was read to its end and page heap is not in use."""
    has_verifier = any(module.name.lower() == "verifier.dll" for module in process.modules)
    return view.heap_list_complete and not (view.global_flag or 0) & (_HPA | _VERIFIER) and not has_verifier


def reservations_with(
    process: Process, view: View, words: Collection[int], *, is_shared: bool = False
) -> Iterator[int]:
    """Starts of private reservations, ascending, whose 32-bit word at +8 (x86) or +0x10 (x64) is one of `words`.

    Without a memory map these are the memory ranges that begin on a 64 KiB boundary. Yields nothing where every heap is
    listed.

    `is_shared`: several heaps may lie in one reservation, each with committed memory of its own.
    """
    if has_every_heap_listed(process, view):
        return
    regions = process.regions
    rows = (row for row, _ in regions.allocation_rows())
    for first in np.flatnonzero(regions.state == State.MEM_COMMIT).tolist() if is_shared else rows:
        start, kind = int(regions.start[first]), int(regions.type[first])
        if start % 0x10000 or kind not in (Kind.MEM_PRIVATE, Kind.UNKNOWN):
            continue
        if view.space.try_integer(start + 2 * view.pointer_bytes, 4) in words:
            yield start
