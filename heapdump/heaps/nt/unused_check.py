"""Findings about numbers of unused bytes that are impossible: in the second header, or at the end of the entry.

The walk makes such a row a guess (`unused_bytes`). Both places are next to the requested bytes of the block: the second
header directly before them, the last word behind them (docs/reference/heap-structures.md §2.3, §4.1). Where UnusedBytes
names a front prefix that does not fit in the entry, that byte of the header itself is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.heaps.jobs import CheckJob
from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.header_word import decode_headers
from heapdump.kernels.row import BUSY, CLASS_MASK, TRUST_GUESS, TRUST_MASK
from heapdump.memory import limits

_PREFIX, _COUNT_BITS = 0x40, 0x3F
_WORD_BYTES = 8


def check_unused_bytes(job: CheckJob, context: HeapContext) -> Iterator[Finding]:
    """A finding for each busy back-end block with a good header and an impossible number of unused bytes."""
    table, mask = job.table, np.uint16(CLASS_MASK | TRUST_MASK)
    wanted = np.uint16(BUSY | int(BlockKind.BACKEND) | TRUST_GUESS)
    rows = np.flatnonzero((table.tags & mask == wanted) & (table.heap == np.uint16(job.heap.index)))
    place = table.entry[rows] + np.uint64(context.entry_format.word_offset)
    words, is_present = context.space.mapped.gather(place, _WORD_BYTES)
    headers, size = decode_headers(context.entry_format, words.view(np.int64)), table.entry_sizes(rows).astype(np.int64)
    is_good = is_present & headers.holds & (headers.size.astype(np.int64) * context.entry_format.granule == size)
    found = (
        unused_finding(context, int(table.entry[rows[i]]), int(size[i]), int(headers.unused_code[i]))
        for i in np.flatnonzero(is_good).tolist()
    )
    yield from islice(filter(None, found), limits.MAX_FINDINGS + 1)


def unused_finding(context: HeapContext, entry: int, size: int, code: int) -> Finding | None:
    """The finding for one such entry; None where the dump lacks the number.

    `size`: occupied bytes; `code`: UnusedBytes.
    """
    entry_format, space = context.entry_format, context.space
    prefix = code & _COUNT_BITS
    has_prefix = code & _PREFIX and not entry_format.is_pre_vista
    if has_prefix and prefix * entry_format.granule >= size:
        place, length = entry + entry_format.word_offset + _WORD_BYTES - 1, 1
        found = space.try_read(place, length)
        message = f"{context.name}: the entry header at {entry:#x} is damaged (unused bytes)"
        kind, expected = "entry_header", "a front prefix that fits in its entry, or none"
    elif has_prefix:
        place, length = entry + prefix * entry_format.granule + entry_format.word_offset, _WORD_BYTES
        found = space.try_read(place, length)
        user = place + length
        message = f"{context.name}: the second header of the block at {user:#x}, directly before it, is damaged"
        kind, expected = "front_prefix", f"?? ?? ?? ?? ?? ?? {prefix:02x} 05"
    else:
        length = context.view.pointer_bytes
        place = entry + size - (length if entry_format.is_pre_vista or length == 4 else 0)
        found = space.try_read(place, length)
        message = f"{context.name}: the count of unused bytes behind the block at {entry:#x} is damaged"
        kind, expected = "entry_header", "a count that fits its size"
    if found is None or space.try_read(place & ~7, _WORD_BYTES) is None:
        return None  # the walk treats words that are only partly in the dump as missing
    return Finding(kind, "error", context.address, place, length, message, expected, found.hex(" "))
