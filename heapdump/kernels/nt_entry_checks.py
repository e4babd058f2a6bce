"""Checks of the entries of an NT heap that `nt_chain` does not make: segment byte, unused bytes, fill patterns.

Memory, stride, key and runs are those of `nt_chain`. Rules: docs/reference/heap-structures.md §2.3 and §2.9.

`rows` are rows of the block table, ascending by entry. Rows of other heaps, and rows whose entry lies outside the runs,
are skipped. Each broken rule is one record of `out`, (m, 4): row, rule, offset of the first wrong byte from the entry,
number of wrong bytes. Writing stops when `out` is full.
"""

from __future__ import annotations

from heapdump.kernels.arrays import ArrayColumn, Grid, OutputGrid
from heapdump.kernels.nt_chain import HeaderCoding
from heapdump.kernels.row import BUSY, EXTRA, FILL, INTERNAL, KIND_MASK, UNIT, RowReader

SEGMENT, UNUSED, TAIL, FREE = range(1, 5)
"""The broken rule: SEGMENT the segment byte; UNUSED UnusedBytes that contradict the busy flag or the size; TAIL the
fill pattern behind the requested bytes; FREE the fill pattern of a free entry."""

_TAIL_BYTE = 0xAB
_FREE_EVEN, _FREE_ODD = 0xEE, 0xFE
_FREE_WORD = -0x0111011201110112
"""EE FE EE FE EE FE EE FE as a signed little-endian word."""

_CRT_GUARD = 0xFDFDFDFD
_UNUSED_BITS = 0x3F
_PAGE = 0x1000
MOST_SPAN = 4096
"""Number of bytes, from the first wrong byte of an entry on, that are compared."""


def check_headers(
    words: ArrayColumn, runs: Grid, segments: Grid, rows: RowReader, heap: int, without: int, is_pre_vista: int,
    coding: HeaderCoding, out: OutputGrid,
) -> tuple[int, int, int]:  # fmt: skip
    """Checks the segment byte and UnusedBytes of each header.

    Args:
        words: the memory.
        runs: (n, 4), see `nt_chain.chain_modern`.
        segments: (n, 2) for each run. Vista and later: address of its segment; 1 for the heap's own segment, where the
            segment byte must be 0, else 0. Before Vista: the expected segment byte, -1 where it is not known; 0.
        rows: see the module.
        heap: index of the heap.
        without: kind of rows that are skipped: LFH blocks, whose header words have another format.
        is_pre_vista: 1 for XP and Server 2003, else 0.
        coding: of the headers.
        out: (m, 4), see the module.

    Returns:
        (records written, number of rows with a fill pattern, number of rows that may be blocks of the debug CRT because
        a guard stands where the CRT's header ends).
    """
    entries, size8, unused_bytes, header8, heaps, tags = rows
    stride, word_index, key, _ = coding
    count, room, granule, filled, guarded, k = 0, len(out), UNIT * stride, 0, 0, 0
    segment_byte, unused_byte = UNIT * word_index + 6 + is_pre_vista, UNIT * word_index + 7 - is_pre_vista
    for row in range(len(entries)):
        if heaps[row] != heap or count + 2 > room:
            continue
        entry, tag = entries[row], tags[row]
        while k + 1 < len(runs) and entry >= runs[k + 1, 3] + runs[k + 1, 0] * granule:
            k += 1
        base = runs[k, 3]
        if not runs[k, 0] * granule <= entry - base < runs[k, 1] * granule:
            continue
        at, busy, internal = (entry - base) >> 3, tag & BUSY, tag & INTERNAL
        place = at + header8[row] + (5 if stride == 2 else 3)
        if busy and not internal and place < len(words) and words[place] >> 32 & 0xFFFFFFFF == _CRT_GUARD:
            guarded += 1
        if tag & KIND_MASK == without:
            continue
        filled += tag & FILL != 0
        word = words[at + word_index] ^ key
        segment, code = word >> 48 & 0xFF, word >> 56 & 0xFF
        if is_pre_vista:
            segment, code = code, segment
        number = segments[k, 0]
        if not is_pre_vista:
            # SegmentOffset: steps of 64 KiB from the segment to the entry, counted from 1; 0 in the heap's own segment
            number = 0 if segments[k, 1] else ((entry & ~0xFFFF) + 0x10000 - number) >> 16 & 0xFF
        if number >= 0 and segment != number:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, SEGMENT, segment_byte, 1
            count += 1
        wrong = busy and (
            unused_bytes[row] > size8[row] * UNIT or unused_bytes[row] < UNIT * (header8[row] - word_index)
        )
        if (wrong or (not is_pre_vista and (code & _UNUSED_BITS != 0) != (busy != 0))) and not internal:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, UNUSED, unused_byte, 1
            count += 1
    return count, filled, guarded


def check_fills(
    words: ArrayColumn, runs: Grid, rows: RowReader, heap: int, without: int, stride: int, out: OutputGrid
) -> int:
    """Checks the fill pattern of each entry whose flags announce one; arguments as of `check_headers`.

    In a free entry a page that begins with a zero word is decommitted and is not compared.

    Returns:
        The number of records written.
    """
    entries, size8, unused_bytes, header8, heaps, tags = rows
    count, room, granule, k = 0, len(out), UNIT * stride, 0
    for row in range(len(entries)):
        tag, size, entry = tags[row], size8[row] * UNIT, entries[row]
        if heaps[row] != heap or count == room or not tag & FILL or tag & INTERNAL or tag & KIND_MASK == without:
            continue
        while k + 1 < len(runs) and entry >= runs[k + 1, 3] + runs[k + 1, 0] * granule:
            k += 1
        base = runs[k, 3]
        if not runs[k, 0] * granule <= entry - base < runs[k, 1] * granule:
            continue
        low, high, what = 2 * granule, size - (4 if tag & EXTRA else 0), FREE
        if tag & BUSY:  # the user data of an x64 entry reach 8 bytes into the next header
            low, what = size - unused_bytes[row] + header8[row] * UNIT, TAIL
            high = min(low + granule, size + UNIT * (stride - 1))
        at, first, last, place = (entry - base) >> 3, -1, -1, low
        while place < high and (first < 0 or place - first < MOST_SPAN):
            value = words[at + (place >> 3)]
            if what == FREE and value == 0 and (entry + place) & (_PAGE - 1) == 0:
                place += _PAGE
                continue
            if what == FREE and place & 7 == 0 and place + 8 <= high and value == _FREE_WORD:
                place += 8
                continue
            expected = _TAIL_BYTE if what == TAIL else _FREE_ODD if place & 1 else _FREE_EVEN
            if value >> (place & 7) * 8 & 0xFF != expected:
                first, last = place if first < 0 else first, place
            place += 1
        if first >= 0:
            out[count, 0], out[count, 1], out[count, 2], out[count, 3] = row, what, first, last - first + 1
            count += 1
    return count
