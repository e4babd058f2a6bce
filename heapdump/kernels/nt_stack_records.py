"""Reads the front prefix of every entry of an NT heap: the address of the record of the stack that allocated it.

Memory, runs and rows are those of `nt_entry_checks`. The prefix takes two granules behind the header. The granule
before the user data is a second header: its byte 6 is 2, its byte 7 is 5 (docs/reference/heap-structures.md §4.1). With
`user` the index of the first 64-bit word of the user data:

    last two bytes of the second header = bits 48-63 of words[user - 1]
    address of the record on x64        = words[user - 4]
    address of the record on x86        = bits 0-31 of words[user - 2]
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Grid, Output
from heapdump.kernels.row import BUSY, UNIT, RowReader

_SECOND_HEADER = 0x0502
_PREFIXED = 3
"""Granules from an entry with a front prefix to its user data."""


def read_records(words: ArrayColumn, runs: Grid, rows: RowReader, heap: int, stride: int, out: Output) -> None:
    """Writes to `out`, (rows,), the address of the record of each busy row of the heap with a prefix; 0 for others."""
    entries, header8, heaps, tags = rows.entry, rows.header8, rows.heap, rows.tags
    granule, k = UNIT * stride, 0
    for row in range(len(entries)):
        out[row] = 0
        if heaps[row] != heap or not tags[row] & BUSY or header8[row] != _PREFIXED * stride:
            continue
        entry = entries[row]
        while k + 1 < len(runs) and entry >= runs[k + 1, 3] + runs[k + 1, 0] * granule:
            k += 1
        base = runs[k, 3]
        user = ((entry - base) >> 3) + header8[row]
        if not runs[k, 0] * granule <= entry - base < runs[k, 1] * granule or user > len(words):
            continue
        if words[user - 1] >> 48 & 0xFFFF == _SECOND_HEADER:
            out[row] = words[user - 4] if stride == 2 else words[user - 2] & 0xFFFFFFFF
