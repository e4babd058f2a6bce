"""Checks the records around the user data of a block: the padding header in front, the heap's own extra behind.

In every recorded heap of a build that writes padding headers, the first word of the padding in front of a VS chunk's or
LFH block's user data is the size of the padding. With allocation stacks, all blocks have an extra,
`_SEGMENT_HEAP_EXTRA`, whose bytes 2 and 3 are equal in all blocks except for four flag bits
(docs/reference/heap-structures.md §4.1, §6.8). These values are the *marks*. A block without its mark was overrun, or
the count at its end, which leads to the extra, is damaged, or ntdll was just allocating it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import FindingKind
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, lower_trust
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.padding import writes_padding_header
from heapdump.heaps.segment.traces import extra_addresses
from heapdump.kernels.row import EXTRA, TRUST_GUESS, TRUST_MASK, UNIT
from heapdump.trust import Trust

_ENOUGH = 8
"""Number of blocks that define a mark."""

_MARK_BITS, _INDEX_BITS = np.uint64(0xFF0F0000), np.uint64(0x000F0000)
_ONE_BYTE, _EXTRA_BIT, _COUNT_BITS = 0x8000, 0x4000, 0x1FFF


def check_marks(walk: SegmentWalk, first: int, padding: int) -> None:
    """Adds a finding for each busy row from `first` on without its marks. The row becomes a guess without a stack.

    A block for which only the bit is wrong that says that it has an extra, gets its size from the extra.
    """
    table = walk.columns.since(first)
    rows = np.flatnonzero(table.is_busy & ~table.is_internal & (table.tags & np.uint16(TRUST_MASK) < TRUST_GUESS))
    if padding and writes_padding_header(walk.layout):
        _check_padding(walk, table, rows, padding)
    with_extra = rows[(table.tags[rows] & np.uint16(EXTRA)) > 0]
    if walk.heap.stack_traces and len(with_extra) >= _ENOUGH:
        mark = _check_extras(walk, table, with_extra, padding)
        if mark is not None and 2 * len(with_extra) > len(rows):
            _recover_extras(walk, table, np.setdiff1d(rows, with_extra), padding, mark)


def _check_padding(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64], padding: int) -> None:
    """Checks padding headers of VS chunks and LFH blocks; blocks of whole pages may name another size."""
    kind = table.kind[rows]
    rows = rows[(kind == BlockKind.VS) | (kind == BlockKind.LFH)]
    place = table.addresses(rows) - np.uint64(padding)
    word, is_present = walk.mapped.gather(place, walk.pointer_bytes)
    bad = is_present & (word != np.uint64(padding)) & (table.header8[rows].astype(np.int64) * UNIT >= padding)
    bad[bad] = ~_in_work(walk, table, rows[bad])
    if len(rows) < _ENOUGH or 2 * int(bad.sum()) > len(rows):
        return
    for i in np.flatnonzero(bad)[: walk.most_reports].tolist():
        message = f"{walk.name}: the padding at {int(place[i]):#x} in front of a block is damaged"
        _report(walk, "front_padding", int(place[i]), walk.pointer_bytes, (padding, int(word[i])), message)
    lower_trust(table.tags, rows[bad], Trust.GUESS)


def _check_extras(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64], padding: int) -> int | None:
    """Checks the extras; returns the mark that most of them have, None where they do not agree."""
    place = extra_addresses(walk.view, walk.heap, walk.layout, table, rows, padding)
    word, is_present = walk.mapped.gather(place, 4)
    values, counts = np.unique(word[is_present] & _MARK_BITS, return_counts=True)
    if not len(values) or 2 * int(counts.max()) <= int(counts.sum()) or not int(values[counts.argmax()] & _INDEX_BITS):
        return None
    mark = int(values[counts.argmax()])
    bad = is_present & (word & _MARK_BITS != np.uint64(mark))
    bad[bad] = ~_in_work(walk, table, rows[bad])
    for i in np.flatnonzero(bad)[: walk.most_reports].tolist():
        at = int(place[i])
        message = f"{walk.name}: the data at {at:#x} behind a block, which leads to its allocation stack, is damaged"
        _report(walk, "tail_fill", at + 2, 2, (mark >> 16, int(word[i]) >> 16), message)
    lower_trust(table.tags, rows[bad], Trust.GUESS)
    table.tags[rows[bad]] &= np.uint16(0xFFFF & ~EXTRA)
    return mark


def _recover_extras(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64], padding: int, mark: int) -> None:
    """Gives an extra to rows without one whose last two bytes are a count that leads to an extra with the mark."""
    kind = table.kind[rows]
    rows = rows[(kind == BlockKind.VS) | (kind == BlockKind.LFH)]
    size = table.entry_sizes(rows)
    count_at = table.entry[rows] + size - np.uint64(2)
    value, is_present = walk.mapped.gather(count_at, 2)
    count = value.astype(np.int64)
    unused = (count & _COUNT_BITS) + table.header8[rows].astype(np.int64) * UNIT
    fits = is_present & (count & (_ONE_BYTE | _EXTRA_BIT) == _EXTRA_BIT) & (unused < size.astype(np.int64))
    rows, unused, count_at = rows[fits], unused[fits], count_at[fits]
    was = table.unused[rows]
    table.unused[rows] = unused
    place = extra_addresses(walk.view, walk.heap, walk.layout, table, rows, padding)
    word, is_present = walk.mapped.gather(place, 4)
    good = is_present & (word & _MARK_BITS == np.uint64(mark))
    table.unused[rows[~good]] = was[~good]
    table.tags[rows[good]] |= np.uint16(EXTRA)
    for at in count_at[good][: walk.most_reports].tolist():
        message = f"{walk.name}: the block that ends at {at + 2:#x} lost the bit that says it has an allocation stack"
        damaged_kind = "lfh_subsegment" if int(table.kind[rows[good][0]]) == BlockKind.LFH else "vs_chunk"
        walk.report(DamagedBytes(damaged_kind, at, 2, "a count of unused bytes", "none"), message)
    lower_trust(table.tags, rows[good], Trust.GUESS)


def _in_work(walk: SegmentWalk, table: BlockTable, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """(n,) True for blocks to which a register of a thread in ntdll points: their marks may not be written yet.

    A thread that raised the exception of the dump does not count: it stopped at damage.
    """
    process, in_work = walk.process, np.zeros(len(rows), bool)
    ntdll = [module.span for module in process.modules if module.name.lower() == "ntdll.dll"]
    raised = process.exception.thread_id if process.exception is not None else None
    for thread in process.threads:
        registers = (thread.registers32 if walk.pointer_bytes == 4 else None) or thread.registers
        if registers is None or thread.id == raised or not any(registers.ip in span for span in ntdll):
            continue
        for value in registers.values.values():
            in_work |= (table.entry[rows] <= np.uint64(value)) & (
                np.uint64(value) - table.entry[rows] < table.entry_sizes(rows)
            )
    return in_work


def _report(
    walk: SegmentWalk, kind: FindingKind, place: int, length: int, values: tuple[int, int], message: str
) -> None:
    """Adds a finding about a little-endian number of `length` bytes. `values`: (right value, value in the dump)."""
    expected, found = (value.to_bytes(length, "little").hex(" ") for value in values)
    walk.report(DamagedBytes(kind, place, length, expected, found), message)
