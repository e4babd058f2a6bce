"""LFH blocks as rows: the equal blocks of many subsegments at a time (docs/reference/heap-structures.md §3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.entry_format import EntryFormat
from heapdump.heaps.nt.lfh_encoding import BlockEncoding
from heapdump.heaps.nt.unused_bytes import Entries, unused_bytes
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import BUSY
from heapdump.trust import Trust

_LFH = 0x80
"""UnusedBytes, Vista and later: the LFH owns the block."""

_BUSY_BITS, _PREFIX = 0x3F, 0x40
"""UnusedBytes, Vista and later: not 0 for a busy block; the block has a front prefix."""

_PRE_VISTA_LFH = 0xFF
"""SegmentIndex before Vista: the LFH owns the block."""


@dataclass(frozen=True, slots=True)
class LfhSubsegment:
    """One subsegment, and where its blocks lie in the words of a window.

    Attributes:
        first_granule: granule of the header of block 0.
        base: address of granule 0 of the words.
        block_granules: granules of each block; block i begins at granule first_granule + i * block_granules.
        block_count: blocks, busy and free.
        encoding: the rule for their header words.
        bitmap: BusyBitmap; bit i, counted from the lowest bit of the first byte, is 1 when block i is busy. It wins
            over the header. None before 8, and where the dump lacks it.
    """

    first_granule: int
    base: int
    block_granules: int
    block_count: int
    encoding: BlockEncoding
    bitmap: bytes | None


@dataclass(frozen=True, slots=True)
class _Blocks:
    """All blocks of some subsegments, subsegment by subsegment; (n,) int64 each unless said otherwise.

    Attributes:
        subsegment: index of the subsegment.
        granules: place of the header in the words of the window.
        size: granules of the block.
        entry: address of the header.
        word: header word as it lies in memory.
        is_good: (n,) bool; the header word follows the rule of its subsegment.
        is_busy: (n,) bool.
    """

    subsegment: NDArray[np.int64]
    granules: NDArray[np.int64]
    size: NDArray[np.int64]
    entry: NDArray[np.int64]
    word: NDArray[np.int64]
    is_good: NDArray[np.bool_]
    is_busy: NDArray[np.bool_]


def add_lfh_blocks(context: WalkContext, window: Window, subsegments: Sequence[LfhSubsegment]) -> None:
    """Adds all blocks; a finding for each header that is not good, whose row is a guess: only its place is known."""
    entry_format, log = context.entry_format, context.log
    blocks = _blocks_of(entry_format, window, subsegments)
    _report_disagreements(context, subsegments, blocks)
    code = blocks.word >> entry_format.bits.unused & 0xFF
    entries = Entries(blocks.granules, blocks.size, code, blocks.is_busy & blocks.is_good)
    unused, header = unused_bytes(entry_format, window.words, entries)
    if not entry_format.is_pre_vista:
        unused[(code & (_BUSY_BITS | _PREFIX)) == 0] = entry_format.granule
    tags = np.full(len(blocks.entry), tag(BlockKind.LFH), np.int64)
    tags[~blocks.is_good] = tag(BlockKind.LFH, trust=Trust.GUESS)
    tags[blocks.is_busy] |= BUSY
    stride = entry_format.stride
    context.columns.append(context.heap.index, blocks.entry, blocks.size * stride, unused, header * stride, tags)
    log.headers += len(blocks.entry)
    log.good_headers += int(blocks.is_good.sum())
    for entry in blocks.entry[~blocks.is_good].tolist():
        _report_bad_header(context, window, entry)


def _blocks_of(entry_format: EntryFormat, window: Window, subsegments: Sequence[LfhSubsegment]) -> _Blocks:
    counts = np.array([one.block_count for one in subsegments], np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    size = np.array([one.block_granules for one in subsegments], np.int64)[owner]
    granules = np.array([one.first_granule for one in subsegments], np.int64)[owner] + number * size
    word = window.words[granules * entry_format.stride + entry_format.word_index]
    entry = np.array([one.base for one in subsegments], np.int64)[owner] + granules * entry_format.granule
    is_good = _are_good(entry_format, [one.encoding for one in subsegments], owner, word, entry)
    return _Blocks(owner, granules, size, entry, word, is_good, _are_busy(entry_format, subsegments, owner, word))


def _are_good(
    entry_format: EntryFormat,
    encodings: Sequence[BlockEncoding],
    owner: NDArray[np.int64],
    word: NDArray[np.int64],
    entry: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """True where a header word follows the rule of `BlockEncoding`, and the header says that the LFH owns the block."""

    def each(values: list[int]) -> NDArray[np.int64]:
        """A number of each subsegment, for each of its blocks."""
        return np.array([signed64(value) for value in values], np.int64)[owner]

    mask, constant = each([one.mask for one in encodings]), each([one.constant for one in encodings])
    residue = (word ^ entry >> encodings[0].shift ^ constant) & mask
    expected = np.zeros(len(owner), np.int64)
    if (distance_shift := max(one.distance_shift for one in encodings)) != 0:
        expected = (entry - each([one.user_blocks for one in encodings]) << distance_shift) & mask
    if entry_format.is_pre_vista:
        is_lfh = word >> entry_format.bits.segment & 0xFF == _PRE_VISTA_LFH
    else:
        is_lfh = word >> entry_format.bits.unused & _LFH != 0
    good: NDArray[np.bool_] = (residue == expected) & is_lfh
    return good


def _are_busy(
    entry_format: EntryFormat, subsegments: Sequence[LfhSubsegment], owner: NDArray[np.int64], word: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The state of each block: by the bitmap where there is one, else by its header."""
    busy: NDArray[np.bool_]
    if entry_format.is_pre_vista:
        busy = (word >> entry_format.bits.flags & 1) != 0
        return busy
    bits = []
    for one in subsegments:
        bitmap = one.bitmap or bytes(-(-one.block_count // 8))
        bits.append(np.unpackbits(np.frombuffer(bitmap, np.uint8), bitorder="little")[: one.block_count])
    return np.where(_have_bitmap(subsegments)[owner], np.concatenate(bits) != 0, _busy_by_header(word))


def _have_bitmap(subsegments: Sequence[LfhSubsegment]) -> NDArray[np.bool_]:
    return np.array([one.bitmap is not None for one in subsegments])


def _busy_by_header(word: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Vista and later: UnusedBytes has bit 0x80 and one of the bits 0x3F."""
    busy: NDArray[np.bool_] = (word >> 56 & _LFH != 0) & (word >> 56 & _BUSY_BITS != 0)
    return busy


def _report_disagreements(context: WalkContext, subsegments: Sequence[LfhSubsegment], blocks: _Blocks) -> None:
    """Warns of blocks that are busy by header and free by bitmap, or the other way: ntdll's lfh_bitmap_mismatch.

    No error, because a thread may have been stopped between the two changes: the LFH takes no lock.
    """
    has_bitmap = _have_bitmap(subsegments)[blocks.subsegment]
    if context.entry_format.is_pre_vista or not has_bitmap.any():
        return
    by_header = _busy_by_header(blocks.word)
    for i in np.flatnonzero(blocks.is_good & has_bitmap & (by_header != blocks.is_busy)).tolist():
        header, bitmap = ("busy", "free") if by_header[i] else ("free", "busy")
        entry = int(blocks.entry[i])
        message = f"{context.name}: the LFH block at {entry:#x} is {header} by its header, {bitmap} by its bitmap"
        place = entry + context.entry_format.word_offset + 7
        context.log.find(Finding("lfh_subsegment", "warning", context.address, place, 1, message, bitmap, header))


def _report_bad_header(context: WalkContext, window: Window, entry: int) -> None:
    if any(entry in hole for hole in window.missing):
        context.log.gap(f"{context.name}: the LFH block header at {entry:#x} is not in the dump")
        return
    message = f"{context.name}: the LFH block header at {entry:#x} is damaged"
    expected, found = "an LFH header", "a header that does not lead to its subsegment"
    granule = context.entry_format.granule
    context.log.find(Finding("lfh_subsegment", "error", context.address, entry, granule, message, expected, found))
