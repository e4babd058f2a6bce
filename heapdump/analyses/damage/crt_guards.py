"""Findings in the CRT's debug heap: guards of its blocks that were written to (semantics.md §2.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.crt_blocks import CrtBlocks
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap
from heapdump.blocks.table import BlockTable
from heapdump.memory.space import AddressSpace

_GUARD, _GUARD_BYTES = 0xFD, 4

FindCrtBlocks = Callable[[NDArray[np.int64]], CrtBlocks]
"""The CRT debug blocks among rows of the block table; rows are (n,) int64."""


def changed_guards(
    space: AddressSpace, heaps: Sequence[Heap], table: BlockTable, guarded: Sequence[int], find: FindCrtBlocks
) -> Iterator[Finding]:
    """A finding for each changed guard of 4 bytes. `guarded`: indices of the heaps whose blocks are read."""
    is_guarded = np.isin(table.heap, np.array(guarded, np.uint16)) if guarded else np.zeros(0, bool)
    blocks = find(np.flatnonzero(is_guarded))
    for i in np.flatnonzero(blocks.guards).tolist():
        user, size, guards = int(blocks.user[i]), int(blocks.size[i]), int(blocks.guards[i])
        heap = heaps[int(table.heap[blocks.row[i]])].address
        for bit, place, side in ((1, user - _GUARD_BYTES, "before"), (2, user + size, "after")):
            found = space.try_read(place, _GUARD_BYTES) or b""
            changed = [k for k, byte in enumerate(found) if byte != _GUARD]
            if guards & bit and changed:
                damaged = found[changed[0] : changed[-1] + 1]
                block = f"block #{int(blocks.request[i])} at {user:#x}"
                message = f"heap {heap:#x}: the CRT's guard {side} {block} is changed"
                expected, start = " ".join(["fd"] * len(damaged)), place + changed[0]
                yield Finding("crt_guard", "error", heap, start, len(damaged), message, expected, damaged.hex(" "))
