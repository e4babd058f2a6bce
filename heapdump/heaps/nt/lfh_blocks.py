"""Adds rows for LFH blocks, those of many subsegments at a time (docs/reference/heap-structures.md §3.3)."""

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
from heapdump.heaps.nt.lfh_encoding import INDEX_SHIFT, block_coding
from heapdump.heaps.nt.lfh_states import BlockPlace, HeaderStates, busy_blocks
from heapdump.heaps.nt.unused_bytes import FRONT_PREFIX, Entries, second_header_prefix, unused_bytes
from heapdump.heaps.nt.unused_check import unused_finding
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import BUSY
from heapdump.trust import Trust

_BUSY_BITS, _PREFIX = 0x3F, 0x40
"""Bits of UnusedBytes, Vista and later: not 0 for a busy block; set where the block has a front prefix."""


@dataclass(frozen=True, slots=True)
class LfhSubsegment:
    """One subsegment whose blocks are to be added.

    Attributes:
        base: address of granule 0 of the words of the window.
        place: where its blocks lie.
        constant: of its block headers (`lfh_encoding`); None where it is not known and headers are not checked.
        trust: of blocks whose header is good.
        is_by_headers: True where only blocks with a good header are known; a bad header is no damage then.
    """

    base: int
    place: BlockPlace
    constant: int | None
    trust: Trust
    is_by_headers: bool = False

    @property
    def count(self) -> int:
        """The number of blocks, busy and free."""
        return self.place.geometry.blocks


@dataclass(frozen=True, slots=True)
class _Blocks:
    """All blocks of some subsegments, subsegment by subsegment; (n,) int64 each unless said otherwise.

    Attributes:
        subsegment: index of the subsegment.
        number: number of the block in its subsegment, from 0.
        granules: granule of the header in the words of the window.
        size: granules of the block.
        entry: address of the header.
        word: header word as it lies in memory.
        is_good: (n,) bool, True where the header word has the encoding of its subsegment.
    """

    subsegment: NDArray[np.int64]
    number: NDArray[np.int64]
    granules: NDArray[np.int64]
    size: NDArray[np.int64]
    entry: NDArray[np.int64]
    word: NDArray[np.int64]
    is_good: NDArray[np.bool_]


def add_lfh_blocks(context: WalkContext, window: Window, subsegments: Sequence[LfhSubsegment]) -> None:
    """Adds a row for each block. A bad header is a finding, and its row a guess: only its place is known."""
    entry_format, log = context.entry_format, context.log
    blocks = _blocks_of(entry_format, window, subsegments)
    is_busy, is_certain = _states(context, subsegments, blocks)
    code = blocks.word >> entry_format.bits.unused & 0xFF
    is_sure = blocks.is_good & is_certain
    has_prefix = ~is_sure & is_busy & second_header_prefix(entry_format, window.words, blocks.granules)
    code[has_prefix] = FRONT_PREFIX
    entries = Entries(blocks.granules, blocks.size, code, is_busy & (is_sure | has_prefix))
    unused = unused_bytes(entry_format, window.words, entries)
    if not entry_format.is_pre_vista:
        unused.unused[(code & (_BUSY_BITS | _PREFIX)) == 0] = entry_format.granule
    trusts = np.array([tag(BlockKind.LFH, trust=one.trust) for one in subsegments], np.int64)
    tags = np.where(is_sure & ~unused.is_guess, trusts[blocks.subsegment], tag(BlockKind.LFH, trust=Trust.GUESS))
    tags[is_busy] |= BUSY
    is_missing = window.lacks(blocks.entry + entry_format.word_offset)
    known = ~is_missing | _are_known(context, subsegments)[blocks.subsegment]
    unproved = np.array([one.is_by_headers for one in subsegments])[blocks.subsegment] & ~blocks.is_good
    known &= ~unproved
    stride = entry_format.stride
    columns = (blocks.entry, blocks.size * stride, unused.unused, unused.header * stride, tags)
    context.columns.append(context.heap.index, *(column[known] for column in columns))
    log.headers += int((~is_missing & ~unproved).sum())
    log.good_headers += int(blocks.is_good.sum())
    for row in np.flatnonzero(is_sure & unused.is_guess).tolist():
        size = int(blocks.size[row]) * entry_format.granule
        finding = unused_finding(context, int(blocks.entry[row]), size, int(code[row]))
        if finding is not None:
            log.add_finding(finding)
    for entry in blocks.entry[~blocks.is_good & ~is_missing & ~unproved].tolist():
        _report_bad_header(context, entry)


def _are_known(context: WalkContext, subsegments: Sequence[LfhSubsegment]) -> NDArray[np.bool_]:
    """True for each subsegment whose blocks are known where their headers are not in the dump.

    That needs the bitmap, and a heap without allocation stacks: with them, only the header says whether a front prefix
    lies before the user data.
    """
    is_plain = context.heap.stack_traces is False
    return np.array([is_plain and one.place.bitmap is not None for one in subsegments], bool)


def _blocks_of(entry_format: EntryFormat, window: Window, subsegments: Sequence[LfhSubsegment]) -> _Blocks:
    granule = entry_format.granule
    counts = np.array([one.count for one in subsegments], np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    size = np.array([one.place.geometry.stride // granule for one in subsegments], np.int64)[owner]
    base = np.array([one.base for one in subsegments], np.int64)[owner]
    first = np.array([one.place.entry(0) for one in subsegments], np.int64)[owner]
    entry = first + number * size * granule
    granules = (entry - base) // granule
    word = window.words[granules * entry_format.stride + entry_format.word_index]
    is_good = _are_good(entry_format, subsegments, owner, number, word, entry)
    return _Blocks(owner, number, granules, size, entry, word, is_good)


def _are_good(
    entry_format: EntryFormat,
    subsegments: Sequence[LfhSubsegment],
    owner: NDArray[np.int64],
    number: NDArray[np.int64],
    word: NDArray[np.int64],
    entry: NDArray[np.int64],
) -> NDArray[np.bool_]:
    """True where a header word has the constant of its subsegment, the mark of the LFH and the number of its block.

    Where the constant is not known, the mark and the number decide.
    """
    coding = block_coding(entry_format)
    known = np.array([one.constant is not None for one in subsegments])[owner]
    expected = np.array([signed64(one.constant or 0) for one in subsegments], np.int64)[owner]
    user_blocks = np.array([one.place.user_blocks for one in subsegments], np.int64)[owner]
    good: NDArray[np.bool_] = coding.are_lfh(word) & (~known | (coding.constants(word, entry, user_blocks) == expected))
    if coding.has_index:
        good &= word >> INDEX_SHIFT & 0xFFFF == number
    return good


def _states(
    context: WalkContext, subsegments: Sequence[LfhSubsegment], blocks: _Blocks
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """((n,) True for busy blocks; (n,) True where the state is certain)."""
    by_header = block_coding(context.entry_format).are_busy(blocks.word)
    is_busy, in_doubt, start = by_header.copy(), np.zeros(len(by_header), bool), 0
    for one in subsegments:
        rows = slice(start, start + one.count)
        headers = HeaderStates(blocks.is_good[rows], by_header[rows])
        is_busy[rows], in_doubt[rows] = busy_blocks(context, one.place, headers)
        start += one.count
    return is_busy, ~in_doubt & (is_busy == by_header)


def _report_bad_header(context: WalkContext, entry: int) -> None:
    message = f"{context.name}: the LFH block header at {entry:#x} is damaged"
    expected, found = "an LFH header", "a header that does not lead to its subsegment"
    granule = context.entry_format.granule
    context.log.add_finding(
        Finding("lfh_subsegment", "error", context.address, entry, granule, message, expected, found)
    )
