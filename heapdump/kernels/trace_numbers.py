"""Reads the front prefix of every entry of a window of an NT heap: the record of the stack that allocated it.

`words`, `limits` and the columns of the block table are those of `kernels.checks`. The prefix takes two granules behind
the header; the granule before the user data is a second header whose last two bytes are 05 02 (heap-structures.md §4.1).
"""

from __future__ import annotations

from typing import Any

_STUB = 0x0502


def read_prefixes(
    words: Any, limits: Any, entries: Any, leads: Any, tags: Any, heaps: Any, heap: int, stride: int, out: Any
) -> int:
    """Writes the record's address of each busy row with a prefix to `out`, 0 to the others.

    Returns:
        how many have one.
    """
    count, granule, k = 0, 8 * stride, 0
    for row in range(len(entries)):
        out[row] = 0
        if heaps[row] != heap or not tags[row] >> 4 & 1 or leads[row] != 3 * stride:
            continue
        entry = entries[row]
        while k + 1 < len(limits) and entry >= limits[k + 1, 3] + limits[k + 1, 0] * granule:
            k += 1
        base = limits[k, 3]
        user = ((entry - base) >> 3) + leads[row]
        if not limits[k, 0] * granule <= entry - base < limits[k, 1] * granule or user > len(words):
            continue
        if words[user - 1] >> 48 & 0xFFFF == _STUB:
            out[row] = words[user - 4] if stride == 2 else words[user - 2] & 0xFFFFFFFF
            count += 1
    return count
