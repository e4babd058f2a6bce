"""Checks the header cookies of XP (from SP2 on) and of Server 2003.

    SmallTagIndex == ((entry >> 3) ^ cookie of the heap) & 0xFF

Source: docs/reference/heap-structures.md §2.3. In the recordings every busy back-end block and every block on a
lookaside list has this byte. For a large block `entry` is its list entry. Free entries keep a stale byte. The cookie is
the one that most blocks in segments agree on; a heap without such a majority has no cookies. Large blocks do not count
for the majority: their list entries lie on boundaries of 64 KiB, so equal bytes in them prove nothing.

x64 was never recorded. There the shift may be 3 or 4 (the granule); the blocks decide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.context import HeapContext
from heapdump.kernels.row import BUSY, CLASS_MASK, TRUST_GUESS, TRUST_MASK
from heapdump.memory import limits

_LEAST_BLOCKS = 8
_COOKIE_BYTE = 4
"""Offset of SmallTagIndex in the header word, in bytes."""


def check_cookies(job: CheckJob, context: HeapContext) -> Iterator[Finding]:
    """A finding for each header with a wrong SmallTagIndex; none from Vista on, and in heaps without cookies."""
    if not context.entry_format.is_pre_vista:
        return
    rows = _rows(job)
    entry = job.table.entry[rows]
    place = entry + np.uint64(context.entry_format.word_offset + _COOKIE_BYTE)
    found, is_present = context.space.mapped.gather(place, 1)
    offset = np.uint64(context.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock"))
    is_large = job.table.tags[rows] & np.uint16(CLASS_MASK) == np.uint16(BUSY | int(BlockKind.VIRTUAL))
    start = np.where(is_large, entry - offset, entry)
    rule = _rule(start, found, is_present & ~is_large, context.view.granularity)
    if rule is None:
        return
    shift, cookie = rule
    expected = start >> np.uint64(shift) & np.uint64(0xFF) ^ np.uint64(cookie)
    for i in np.flatnonzero(is_present & (found != expected))[: limits.MAX_FINDINGS + 1].tolist():
        message = f"{context.name}: the entry header at {int(entry[i]):#x} is damaged (cookie)"
        wanted, there = f"{int(expected[i]):02x}", f"{int(found[i]):02x}"
        yield Finding("entry_header", "error", context.address, int(place[i]), 1, message, wanted, there)


def _rows(job: CheckJob) -> NDArray[np.intp]:
    """Rows of the heap whose header has a cookie: busy ones, without guesses, whose damage is reported already."""
    tags = job.table.tags
    classes = tags & np.uint16(CLASS_MASK)
    has_cookie = np.isin(
        classes,
        np.array([BUSY | int(BlockKind.BACKEND), BUSY | int(BlockKind.VIRTUAL), int(BlockKind.LOOKASIDE)], np.uint16),
    )
    is_sure = tags & np.uint16(TRUST_MASK) < np.uint16(TRUST_GUESS)
    return np.flatnonzero(has_cookie & is_sure & (job.table.heap == np.uint16(job.heap.index)))


def _rule(
    start: NDArray[np.uint64], found: NDArray[np.uint64], has_say: NDArray[np.bool_], granularity: int
) -> tuple[int, int] | None:
    """(shift, cookie) with found == (start >> shift ^ cookie) & 0xFF in most of the blocks `has_say`; or None."""
    for shift in sorted({3, granularity.bit_length() - 1}):
        cookie = _most_frequent((found ^ start >> np.uint64(shift) & np.uint64(0xFF))[has_say])
        if cookie is not None:
            return shift, cookie
    return None


def _most_frequent(cookies: NDArray[np.uint64]) -> int | None:
    """The cookie of at least three quarters of the blocks; None where there is none, or there are too few blocks."""
    if len(cookies) < _LEAST_BLOCKS:
        return None
    counts = np.bincount(cookies.astype(np.int64), minlength=1)
    best = int(counts.argmax())
    return best if 4 * int(counts[best]) >= 3 * len(cookies) else None
