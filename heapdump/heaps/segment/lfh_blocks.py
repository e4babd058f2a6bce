"""Adds rows for the blocks of LFH subsegments.

Blocks have no headers; the bitmap of the subsegment says which are busy. Formulas: docs/reference/heap-structures.md
§6.5. The loop over blocks is `kernels.lfh_blocks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust, tag
from heapdump.heaps.allocator import PAGE
from heapdump.heaps.in_operation import changing_words
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.end_counts import (
    impossible_counts,
    lacks_count,
    most_unused_of_lfh,
    report_counts,
)
from heapdump.heaps.segment.lfh_bitmap import has_recorded_tail, missing_bits
from heapdump.heaps.segment.lfh_recovery import FEW_COUNTS, corrected, corrected_by_blocks
from heapdump.heaps.segment.lfh_states import DoubtfulStates
from heapdump.heaps.segment.lfh_subsegments import BlockExtents, LfhSubsegments
from heapdump.heaps.segment.locks import who_changes
from heapdump.heaps.segment.missing_rows import doubt_missing
from heapdump.kernels import lfh_blocks, run
from heapdump.kernels.row import UNIT
from heapdump.memory.mapped import WordBatch
from heapdump.spans import Span
from heapdump.trust import Trust

_BATCH_ROWS = 1 << 18
"""The most rows of one call of the kernel."""

_MANY = 8
"""From this many bitmaps on, the majority defines how the build writes unused bits."""


class LfhBlocks:
    """The blocks of some subsegments of one heap."""

    def __init__(self, walk: SegmentWalk, subsegments: LfhSubsegments, extents: BlockExtents, padding: int) -> None:
        """Corrects the extents of damaged headers and reports these. Adds no rows.

        `padding`: bytes from the start of a block to its user data.
        """
        self._walk, self._subsegments, self._padding = walk, subsegments, padding
        self._extents = corrected(walk, subsegments, extents)
        self._contradicted: dict[int, int] = {}
        self._is_last_turn, self._are_counts_reported = False, False
        self._states = DoubtfulStates(walk, subsegments, padding, partial(_changing_words, walk))
        self._report_headers()

    def add_rows(self) -> None:
        """Adds a row for each block, and findings about bitmaps that contradict themselves or the header's counts.

        Subsegments whose blocks contradict the block size in the header are added last, with the size that the blocks
        prove.
        """
        self._add_some(np.flatnonzero(self._extents.is_possible))
        again, self._is_last_turn = dict(sorted(self._contradicted.items())), True
        if again:
            self._extents = corrected_by_blocks(self._walk, self._subsegments, self._extents, again)
            few = [i for i, wrong in again.items() if wrong <= FEW_COUNTS]
            self._add_some(np.array(few, np.int64))
            self._are_counts_reported = True
            self._add_some(np.array([i for i in again if i not in few], np.int64))

    def _add_some(self, possible: NDArray[np.int64]) -> None:
        """Adds the blocks of the subsegments with these indices, whose extents are possible."""
        extents, start = self._extents, self._subsegments.start
        end = start + extents.first_offset + extents.block_bytes * extents.count
        for batch in self._walk.mapped.batches(start[possible], end[possible]):
            rows = possible[batch.rows]
            cuts = np.flatnonzero(np.diff(np.cumsum(extents.count[rows]) // _BATCH_ROWS)) + 1
            bases = np.split(batch.base, cuts)
            for call_rows, base in zip(np.split(rows, cuts), bases, strict=True):
                self._add(batch, call_rows, base)

    def _add(self, batch: WordBatch, rows: NDArray[np.int64], base: NDArray[np.int64]) -> None:
        """Adds the blocks of the subsegments `rows`. `base`: address of byte 0 of the batch's words, for each."""
        walk, count = self._walk, self._extents.count[rows]
        added = int(count.sum())
        result = self._run_kernel(batch, rows, base, added)
        walk.columns.add(added, walk.heap.index)
        if not (result & lfh_blocks.COUNTS_POSSIBLE).all():
            wrong = self._impossible_counts(count, added, batch.missing)
            if wrong.any():
                walk.columns.drop(len(walk.columns) - added)
                self._contradicted |= zip(rows[wrong > 0].tolist(), wrong[wrong > 0].tolist(), strict=True)
                if not wrong.all():
                    self._add(batch, rows[wrong == 0], base[wrong == 0])
                return
            report_counts(walk, len(walk.columns) - added, batch.missing, are_reported=self._are_counts_reported)
        if batch.missing:
            doubt_missing(walk, len(walk.columns) - added, batch.missing)
            lacks_bits = self._doubt_missing_bits(int(rows[0]), added, batch.missing)
            lacks_links = self._subsegments.has_freed_list and not result[0] & lfh_blocks.COUNTS_AGREE
            if lacks_links:
                self._doubt_freed_list(int(rows[0]), added)
            if lacks_bits or lacks_links:
                return
        is_recorded = ((result & lfh_blocks.FREE_BITS_CLEAR) > 0) & has_recorded_tail(self._subsegments, rows, count)
        sound = ((result & lfh_blocks.COUNTS_AGREE) > 0) & self._as_build_writes(is_recorded)
        walk.count_headers(len(rows), int(sound.sum()))
        is_exact = sound & self._extents.is_consistent[rows] & ~self._extents.is_guess[rows]
        if not is_exact.all():
            lower_trust(self._last_rows(added), np.repeat(~is_exact, count), Trust.DERIVED)
            lower_trust(self._last_rows(added), np.repeat(self._extents.is_guess[rows], count), Trust.GUESS)
        for place in np.flatnonzero(~sound).tolist():
            end = len(walk.columns) - added + int(count[: place + 1].sum())
            blocks = walk.columns.since(end - int(count[place])).part(0, int(count[place]))
            self._states.report(int(rows[place]), blocks)

    def _impossible_counts(self, count: NDArray[np.int64], added: int, missing: Sequence[Span]) -> NDArray[np.int64]:
        """(n,) number of impossible counts of unused bytes in each subsegment, if they are at least half of its counts.

        0 for other subsegments, in the last pass, and for all where most subsegments have such counts: then the build
        has other sizes. `count`: (n,) blocks of each subsegment, whose rows are the last `added` rows.
        """
        table = self._walk.columns.since(len(self._walk.columns) - added)
        bad = impossible_counts(self._walk, table) & ~lacks_count(table, missing)
        if self._is_last_turn or not bad.any():
            return np.zeros(len(count), np.int64)
        has_count = bad | (table.is_busy & (table.unused > table.header8.astype(np.uint32) * np.uint32(UNIT)))
        first = np.cumsum(count) - count
        counts, wrong = (np.add.reduceat(each.astype(np.int64), first) for each in (has_count, bad))
        is_wrong = (wrong > 0) & (2 * wrong >= counts)
        if len(count) >= _MANY and 2 * int(is_wrong.sum()) > int((counts > 0).sum()):
            is_wrong[:] = False
        found: NDArray[np.int64] = wrong * is_wrong
        return found

    def _run_kernel(
        self, batch: WordBatch, rows: NDArray[np.int64], base: NDArray[np.int64], added: int
    ) -> NDArray[np.uint8]:
        """Writes `added` rows behind the last row. Returns the kernel's `soundness` of each subsegment, (n,) uint8."""
        subsegments, extents = self._subsegments, self._extents
        start, has_header = subsegments.start[rows] - base, ~extents.is_guess[rows] | extents.is_consistent[rows]
        most, most_with_extra = (
            most_unused_of_lfh(extents.block_bytes[rows], self._walk.granule, np.full(len(rows), has_extra))
            for has_extra in (False, True)
        )
        members = (
            base, start, start + subsegments.struct.offset("BlockBitmap"), extents.first_offset[rows],
            extents.block_bytes[rows], extents.count[rows], np.where(has_header, subsegments.free_count[rows], -1),
            subsegments.first_freed[rows] * has_header, subsegments.freed_count[rows] * has_header,
            most, most_with_extra,
        )  # fmt: skip
        table, result = np.ascontiguousarray(np.stack(members, axis=1)), np.zeros(len(rows), np.uint8)
        walk = self._walk
        walk.workload.add(added, int((extents.block_bytes[rows] * extents.count[rows]).sum()))
        run(
            lfh_blocks.read_blocks, walk.workload.expected(added), batch.words, table, subsegments.group_bits,
            self._padding, tag(BlockKind.LFH), walk.columns.tail(added), result,
        )  # fmt: skip
        return result

    def _as_build_writes(self, is_recorded: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """True for bitmaps whose unused bits are right. Where most differ from recorded builds, all are right; (n,)."""
        keys = self._walk.keys
        keys.lfh_has_other_unused_bits |= len(is_recorded) >= _MANY and 2 * int(is_recorded.sum()) < len(is_recorded)
        return is_recorded | keys.lfh_has_other_unused_bits

    def _last_rows(self, count: int) -> NDArray[np.uint16]:
        """The tags of the last `count` rows; no copy."""
        columns = self._walk.columns
        return columns.since(len(columns) - count).tags

    def _doubt_missing_bits(self, i: int, added: int, missing: Sequence[Span]) -> bool:
        """Makes those of the last `added` rows guesses whose bits are not in the dump; True where there are any.

        These are the rows of subsegment `i`.
        """
        is_missing = missing_bits(self._subsegments, i, added, missing)
        if not is_missing.any():
            return False
        lower_trust(self._last_rows(added), is_missing, Trust.GUESS)
        at = int(self._subsegments.start[i])
        self._walk.add_gap(
            f"{self._walk.name}: a part of the bitmap of the LFH subsegment at {at:#x} is not in the dump: "
            f"whether {int(is_missing.sum()):,} of its blocks are busy is not known, they count as free"
        )
        return True

    def _doubt_freed_list(self, i: int, added: int) -> None:
        """Makes the busy rows among the last `added` guesses: the list of freed blocks of `i` is partly missing."""
        columns, at = self._walk.columns, int(self._subsegments.start[i])
        lower_trust(self._last_rows(added), columns.since(len(columns) - added).is_busy, Trust.GUESS)
        self._walk.add_gap(
            f"{self._walk.name}: a part of the list of freed blocks in the LFH subsegment at {at:#x} is not in the "
            "dump: some of them count as busy"
        )

    def _report_headers(self) -> None:
        """Counts the headers; adds a finding and a gap for each whose blocks could not be placed."""
        walk, subsegments, extents = self._walk, self._subsegments, self._extents
        walk.count_headers(len(subsegments), int((extents.is_possible & extents.is_consistent).sum()))
        for i in np.flatnonzero(~extents.is_possible).tolist():
            at = int(subsegments.start[i])
            if not subsegments.is_present[i]:
                walk.add_gap(f"{walk.name}: the LFH subsegment at {at:#x} is not in the dump")
                continue
            message = f"the LFH subsegment at {at:#x} of {walk.name} cannot be decoded"
            if walk.view.space.try_read(at, min(int(subsegments.size[i]), PAGE)) is None:
                walk.add_gap(f"{message}: it is not whole in the dump, and its blocks are missing")
                continue
            found = f"blocks of {int(extents.block_bytes[i])} bytes from {int(extents.first_offset[i]):#x} on"
            damaged = DamagedBytes("lfh_subsegment", at, subsegments.struct.size, "blocks that fill it", found)
            walk.report(damaged, message, gap=f"{message}: its blocks are missing")


def _changing_words(walk: SegmentWalk) -> str:
    """Words that name the thread or lock which shows that the heap is being changed; "" for none."""
    from heapdump.process.stacks.heap_calls import inside_heap_functions

    def changing() -> str:
        """Words that name threads inside ntdll's heap functions; "" for none."""
        return changing_words(walk.heap.address, inside_heap_functions(walk.process, walk.view))

    return who_changes(walk.process, walk.view, walk.layout, walk.heap.address, changing)
