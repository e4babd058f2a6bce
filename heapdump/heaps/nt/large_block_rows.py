"""Adds rows for large blocks, by their headers: BusyBlock (docs/reference/heap-structures.md §2.6).

    requested bytes = CommitSize - Size
    user address    = BusyBlock + granule * (1 + SegmentOffset)

Size of this header is in bytes: the unused bytes of the block, counted from the list entry on. SegmentOffset is the
number of granules of the front prefix: 2 with allocation stacks, else 0. The row begins at BusyBlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import LargeBlock
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.header_word import BUSY_FLAG
from heapdump.kernels.row import FLAGS_SHIFT, TRUST_GUESS

_LARGE_CODE = 4
"""UnusedBytes of a large block, Vista and later."""

_PREFIX, _SIGNATURE = 2, 5
"""Granules of the front prefix; ExtendedBlockSignature of the second header behind it."""

_TABLE_BYTES = 8 << 32  # the column size8 has 32 bits


class _LargeBlockRow(NamedTuple):
    """One row of the block table, before it is encoded.

    Attributes:
        entry: address of BusyBlock.
        occupied: bytes from BusyBlock to the end of the committed memory.
        unused: bytes of these that were not requested, header included.
        header: bytes from BusyBlock to the user data.
        flags: Flags of the header.
        is_guess: True where the requested bytes are not certain.
    """

    entry: int
    occupied: int
    unused: int
    header: int
    flags: int
    is_guess: bool


def add_large_blocks(context: WalkContext, blocks: Sequence[LargeBlock]) -> None:
    """Adds a row for each of these large blocks whose header is in the dump; a gap for each other."""
    rows = [row for block in blocks if (row := _row(context, block)) is not None]
    if not rows:
        return
    entry, occupied, unused, header, flags, guess = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    tags = tag(BlockKind.VIRTUAL, busy=True) | guess * TRUST_GUESS | flags << FLAGS_SHIFT
    context.columns.append(context.heap.index, entry, occupied // 8, unused, header // 8, tags)


def _row(context: WalkContext, block: LargeBlock) -> _LargeBlockRow | None:
    """The row of one block; None, with a gap, where its header is not in the dump or it is too large for the table.

    A block with a damaged header gets a row whose size is a guess: the most that CommitSize has room for. It has a
    front prefix where there is a second header.
    """
    log, entry_format, node, commit = context.log, context.entry_format, block.list_entry, block.commit_bytes
    offset = context.layout["_HEAP_VIRTUAL_ALLOC_ENTRY"].offset("BusyBlock")
    entry, occupied = node + offset, commit - offset
    word = context.header_word(entry)
    log.headers += 1
    if occupied >= _TABLE_BYTES:
        log.add_gap(
            f"{context.name}: the large block at {node:#x} ({commit:,} bytes committed) is beyond the block table's "
            "32 GiB; its sizes are among the large blocks of the heap"
        )
        return None
    if word is None:
        log.add_gap(f"{context.name}: the header of the large block at {node:#x} is not in the dump")
        return None
    if _lacks_key(context):
        log.headers -= 1  # what cannot be decoded is not verified, and no damage
        header = _marked_prefix(context, entry) * entry_format.granule + entry_format.granule
        log.add_gap(
            f"{context.name}: the key of its headers is not known: the size of the block at {node:#x} is a guess"
        )
        return _LargeBlockRow(entry, occupied, header, header, BUSY_FLAG, is_guess=True)
    word = _decoded(entry_format, word)
    prefix, is_sound = _prefix(context, entry, word)
    header = (1 + prefix) * entry_format.granule
    size, flags = word & 0xFFFF, word >> entry_format.bits.flags & 0xFF
    if is_sound and offset + header <= size <= commit:
        log.good_headers += 1
        return _LargeBlockRow(entry, occupied, size - offset, header, flags, is_guess=False)
    _report(context, entry)
    return _LargeBlockRow(entry, occupied, header, header, BUSY_FLAG, is_guess=True)


def _prefix(context: WalkContext, entry: int, word: int) -> tuple[int, bool]:
    """(granules of the front prefix, 0 or 2; True where the header holds).

    The segment byte of the header and the second header are two witnesses. Where the header is damaged, the second
    header decides. In a heap with stack traces, a prefix without a second header is damage, but the header alone
    suffices for the row; a heap without stack traces has no front prefix (every recorded large block).
    """
    entry_format = context.entry_format
    mark = context.space.try_integer(_second_header(context, entry) + 6, 2)
    by_mark = _marked_prefix(context, entry)
    segment = word >> entry_format.bits.segment & 0xFF
    if not _holds(entry_format, word) or segment not in (0, by_mark, 0 if entry_format.is_pre_vista else _PREFIX):
        return by_mark, False
    if segment == by_mark or mark is None or (not segment and not context.heap.stack_traces):
        return segment, True
    if not segment or not context.heap.stack_traces:
        return by_mark, False
    _report_second_header(context, entry)
    return segment, True


def _marked_prefix(context: WalkContext, entry: int) -> int:
    """Granules of the front prefix by the mark of a second header; 0 without one."""
    mark = context.space.try_integer(_second_header(context, entry) + 6, 2)
    return _PREFIX if mark == _PREFIX | _SIGNATURE << 8 and not context.entry_format.is_pre_vista else 0


def _lacks_key(context: WalkContext) -> bool:
    """True where headers may be encoded and the dump lacks the key, which no entry told (`headless`)."""
    heap, struct = context.heap, context.layout["_HEAP"]
    if heap.segments or heap.entry_key is not None or "Encoding" not in struct:
        return False
    return context.space.try_integer(heap.address + struct.offset("Encoding"), 8) is None


def _holds(entry_format: EntryFormat, word: int) -> bool:
    """True for a decoded header word that can be a large block's (every recorded block).

    PreviousSize is 0. Vista and later: the checksum holds and UnusedBytes is 4; before Vista: UnusedBytes is 0.
    """
    bits = entry_format.bits
    if word >> bits.previous_size & 0xFFFF or not word >> bits.flags & BUSY_FLAG:
        return False
    unused = word >> bits.unused & 0xFF
    if entry_format.is_pre_vista:
        return unused == 0
    return unused == _LARGE_CODE and not (entry_format.mask and (word >> 24 ^ word >> 16 ^ word >> 8 ^ word) & 0xFF)


def _second_header(context: WalkContext, entry: int) -> int:
    """The address of the header word of the second header, if there is a front prefix."""
    return entry + _PREFIX * context.entry_format.granule + context.entry_format.word_offset


def _report_second_header(context: WalkContext, entry: int) -> None:
    """Adds an error at the second header."""
    place = _second_header(context, entry)
    found = (context.space.try_read(place, 8) or b"").hex(" ")
    message = f"{context.name}: the second header of the block at {place + 8:#x}, directly before it, is damaged"
    expected = "?? ?? ?? ?? ?? ?? 02 05"
    context.log.add_finding(Finding("front_prefix", "error", context.address, place, 8, message, expected, found))


def _report(context: WalkContext, entry: int) -> None:
    """Adds an error at the header."""
    place = entry + context.entry_format.word_offset
    found = (context.space.try_read(place, 8) or b"").hex(" ")
    message = f"{context.name}: the header of the large block at {entry:#x} is damaged; its size is a guess"
    expected = "the header of a large block"
    context.log.add_damage(
        Finding("entry_header", "error", context.address, place, 8, message, expected, found), message
    )


def _decoded(entry_format: EntryFormat, word: int) -> int:
    """The decoded header word. Only bits 0-31 are encoded; PreviousSize of a large block is a plain 0 (§2.6)."""
    return word ^ (entry_format.key & 0xFFFFFFFF if word & entry_format.mask else 0)
