"""Checks the page offset in the headers of busy VS chunks, a second witness beside the sizes word.

    EncodedSegmentPageOffset = (page offset ^ key ^ chunk) & 0xFF

`chunk` is the address of the chunk, `page offset` the number of pages from its subsegment to it, `key` that of the
sizes word. It holds for every busy chunk of all recorded heaps (14393 to 26100, x64 and x86). Free chunks hold a link
of their tree in that place. So the check finds a free chunk whose busy bits were set, and a write in front of user data
that did not reach the sizes word.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.vs_subsegments import VsSubsegments
from heapdump.trust import Trust

_PAGE_SHIFT = np.uint64(12)
_BYTE = np.uint64(0xFF)
_USED_BITS = np.uint64(10)
"""Number of bits of the second word that have a meaning. The other bits of its first four bytes are 0 (recordings)."""

_ENOUGH_CHUNKS = 8
"""Number of busy chunks that decide whether a build writes page offsets."""


def report_page_offsets(
    walk: SegmentWalk, first: int, subsegments: VsSubsegments, damaged_headers: Sequence[int]
) -> None:
    """Adds a finding for each busy chunk in the rows from `first` on whose page offset is wrong.

    Its row becomes a guess. Does nothing where no byte of a key holds for most chunks.
    `damaged_headers`: addresses of headers whose damage was reported.
    """
    table = walk.columns.since(first)
    rows = np.flatnonzero((table.kind == BlockKind.VS) & table.is_busy & ~table.is_internal)
    chunk = table.entry[rows]
    found, is_present = walk.mapped.gather(chunk + np.uint64(walk.pointer_bytes), 4)
    start = subsegments.start[np.searchsorted(subsegments.start, chunk.astype(np.int64), side="right") - 1]
    plain = page_offset_byte(chunk, start.astype(np.uint64), 0)
    key = _key_byte(walk, ((found ^ plain) & _BYTE)[is_present])
    if key is None:
        return
    expected = plain ^ np.uint64(key)
    wrong = is_present & ((found & _BYTE != expected) | (found >> _USED_BITS > 0))
    if 2 * int(wrong.sum()) > max(len(rows), 2):
        return
    wrong &= ~np.isin(chunk, np.array(damaged_headers, np.uint64))
    is_wrong = np.zeros(len(table), bool)
    is_wrong[rows[wrong]] = True
    lower_trust(table.tags, is_wrong, Trust.GUESS)
    for i in np.flatnonzero(wrong)[: walk.most_reports].tolist():
        at = int(chunk[i])
        where = f"{walk.name}: the chunk header at {at:#x}"
        message = f"{where} is damaged: it is busy, and the page that it names is another one"
        walk.report(_damage(at + walk.pointer_bytes, int(expected[i]), int(found[i])), message)
    walk.count_headers(0, -int(wrong.sum()))


def _key_byte(walk: SegmentWalk, bytes_of_key: NDArray[np.uint64]) -> int | None:
    """Bits 0-7 of the key by most chunks; None where they do not agree. `bytes_of_key`: the value by each chunk.

    A key that was solved from chunks (`vs_key_solver`) lacks these bits, because the chunks' unknown memory cost is
    XORed with them. A heap with enough chunks decides for later heaps.
    """
    counts = np.bincount(bytes_of_key.astype(np.int64), minlength=1)
    most = int(counts.argmax())
    if 2 * int(counts[most]) > len(bytes_of_key) >= _ENOUGH_CHUNKS:
        walk.keys.vs_page_offset_key = most
    return walk.keys.vs_page_offset_key


def _damage(address: int, expected: int, found: int) -> DamagedBytes:
    """The wrong bytes among the four at `address`: byte 0 is `expected`, byte 1 has two flags, bytes 2 and 3 are 0."""
    old, new = found.to_bytes(4, "little"), bytes([expected, found >> 8 & 3, 0, 0])
    wrong = [i for i in range(4) if old[i] != new[i]]
    first, end = wrong[0], wrong[-1] + 1
    return DamagedBytes("vs_chunk", address + first, end - first, new[first:end].hex(" "), old[first:end].hex(" "))


def page_offset_byte(chunk: NDArray[np.uint64], subsegment: NDArray[np.uint64], key: int) -> NDArray[np.uint64]:
    """(n,) the byte in the headers of busy chunks at these addresses; `subsegment`: any address in its first page."""
    page = (chunk >> _PAGE_SHIFT) - (subsegment >> _PAGE_SHIFT)
    return (page ^ np.uint64(key & 0xFF) ^ chunk) & _BYTE
