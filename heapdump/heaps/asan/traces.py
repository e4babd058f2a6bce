"""Ids of the stacks that allocated chunks. Their frames lie in the runtime's stack depot, which is not read."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.walk import Walk
from heapdump.heaps.jobs import TraceReader
from heapdump.process.model import View

_STACK_AT = {False: 8, True: 12}
"""True for the format before LLVM 12 → offset of the stack id in a header, in bytes."""


def trace_reader(view: View, walk: Walk) -> TraceReader:
    """Reads the stack id of each row, 0 where the header is not in the dump."""

    def numbers(rows: NDArray[np.int64]) -> NDArray[np.uint64]:
        """(n,) uint64 ids."""
        if not len(rows):
            return np.zeros(0, np.uint64)
        facts = walk.facts.get(int(walk.table.heap[rows[0]]), {})
        entry = walk.table.entry[rows]
        found, _ = view.space.mapped.gather(entry + np.uint64(_STACK_AT[bool(facts.get("old_headers"))]), 4)
        return found

    return numbers
