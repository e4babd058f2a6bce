"""Walks VS chunks: every chunk of every VS subsegment becomes a row (docs/reference/heap-structures.md §6.4).

Each header names the size of the chunk before it, which verifies the chain. At a damaged header the walk makes one
finding and goes on where headers hold again. Later chunks of that subsegment are `derived`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import lower_trust, tag
from heapdump.heaps.integers import signed64
from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.damaged_bytes import DamagedBytes
from heapdump.heaps.segment.end_counts import report_counts
from heapdump.heaps.segment.missing_rows import doubt_missing
from heapdump.heaps.segment.overrun import correct_overrun_row
from heapdump.heaps.segment.vs_chunks import VsChunks
from heapdump.heaps.segment.vs_free_tree import is_unlinked
from heapdump.heaps.segment.vs_page_offsets import report_page_offsets
from heapdump.heaps.segment.vs_subsegments import VsSubsegments
from heapdump.kernels import run, vs_chain
from heapdump.kernels.row import UNIT
from heapdump.memory.mapped import WordBatch
from heapdump.spans import Span
from heapdump.trust import Trust

_FIRST_ROOM = 1 << 12
_MOST_ROOM = 1 << 18
"""Room for rows in the first call of the kernel, and at most in later calls."""

_MOST_RESYNCS = 512
"""The most damaged places of a heap behind which sound headers are searched."""

_U32 = (1 << 32) - 1
_UNKNOWN = -1
"""Stands for an unknown size of the chunk before."""


class VsWalk:
    """The walk of the VS subsegments of one heap. Places and sizes are in granules."""

    def __init__(self, walk: SegmentWalk, key: int, padding: int) -> None:
        """`key`: `keys.Keys.vs_key`; `padding`: bytes between a chunk's header and its user data."""
        self._walk = walk
        signed_key = signed64(key) if walk.pointer_bytes == 8 else key & _U32
        self._coding = vs_chain.ChunkCoding(walk.granule // UNIT, signed_key, padding)
        self._resyncs = 0
        self._damaged: list[int] = []

    def add_rows(self, subsegments: VsSubsegments) -> None:
        """Adds a row for each chunk."""
        for batch in self._walk.mapped.batches(subsegments.start, subsegments.end):
            start, end = (
                (side[batch.rows] - batch.base) // self._walk.granule for side in (subsegments.start, subsegments.end)
            )
            first = len(self._walk.columns)
            self._damaged = []
            self._follow(batch, np.ascontiguousarray(np.stack([start, end, batch.base], axis=1)))
            report_counts(self._walk, first, batch.missing, self._damaged)
            report_page_offsets(self._walk, first, subsegments, self._damaged)
            if batch.missing:
                doubt_missing(self._walk, first, batch.missing)

    def _follow(self, batch: WordBatch, chains: NDArray[np.int64]) -> None:
        """Adds the rows of one batch. `chains`: (n, 3), as `kernels.vs_chain` takes them."""
        chain, at, previous, is_sound = 0, int(chains[0, 0]), 0, True
        room = _FIRST_ROOM
        while True:
            stopped, at, reason, previous = self._run_kernel(batch, chains, (chain, at, previous), room, is_sound)
            is_sound = is_sound and stopped == chain
            chain = stopped
            if reason == vs_chain.END:
                return
            if reason == vs_chain.FULL:
                room = min(2 * room, _MOST_ROOM)
                continue
            chunks = VsChunks(batch.words, int(chains[chain, 2]), int(chains[chain, 1]), self._coding)
            at, previous, is_sound = self._pass_damage(batch, chunks, at, previous)

    def _run_kernel(
        self, batch: WordBatch, chains: NDArray[np.int64], place: tuple[int, int, int], room: int, is_sound: bool
    ) -> tuple[int, int, int, int]:
        """Follows chains from `place` on, which is (chain, granule, size of the chunk before).

        `room`: for rows; `is_sound`: False behind damage, where only the rest of this chain is followed, as derived.

        Returns:
            Where it stopped: (chain, granule, reason, size of the last chunk).
        """
        chain, at, previous = place
        followed = chains if is_sound else chains[: chain + 1]
        walk, trust = self._walk, Trust.EXACT if is_sound else Trust.DERIVED
        found = run(
            vs_chain.follow_chunks, walk.workload.expected(room), batch.words, followed, chain, at, previous,
            self._coding, tag(BlockKind.VS, trust=trust), walk.columns.tail(room),
        )  # fmt: skip
        count, chain, at, reason, previous = (int(value) for value in found)
        walk.columns.add(count, walk.heap.index)
        walk.workload.add(count, int(walk.columns.since(len(walk.columns) - count).entry_size.sum()))
        walk.count_headers(count, count)
        if not is_sound and reason == vs_chain.END and chain + 1 < len(chains):
            return chain + 1, int(chains[chain + 1, 0]), vs_chain.FULL, 0
        return chain, at, reason, previous

    def _pass_damage(self, batch: WordBatch, chunks: VsChunks, at: int, previous: int) -> tuple[int, int, bool]:
        """Adds a finding about the header at granule `at`.

        `previous`: size of the chunk before; where above 0, that chunk is the last row.

        Returns:
            (granule to go on with, size of the chunk before it, True where no later chunk is in doubt).
        """
        walk, address = self._walk, chunks.address(at)
        if self._lacks_header(batch, address) and not self._is_uncommitted(address):
            return self._pass_hole(batch, chunks, at, address)
        before = at - max(previous, 0)
        sound = self._sound_headers(chunks, before + 1, (before, at))
        if self._lacks_header(batch, chunks.address(before)) and not (sound and sound[0][0] - sound[0][1] == before):
            return self._pass_hole(batch, chunks, at, chunks.address(before))
        behind = next((header for header in sound if header[0] > at), None)
        walk.count_headers(1, 0)
        self._damaged += [address, chunks.address(before)]
        sound = [one for one in sound if not self._is_stale(batch, chunks, one, (before, at), behind)]
        if previous > 0 and sound and sound[0][0] - sound[0][1] == before:
            # the size of the chunk before is wrong: the header that really follows names the right one
            named = self._likeliest(chunks, sound, before)
            is_cut = self._lacks_header(batch, chunks.address(before))
            self._add_wrong_size(chunks, before, named[1], is_cut=is_cut)
            return *named, True
        if behind is None and chunks.header(at).size == chunks.end - at:
            behind = chunks.end, chunks.end - at
        if behind is not None and behind[0] - behind[1] == at:
            behind = self._likeliest(chunks, [*sound, behind], at)
            self._add_damaged_chunk(chunks, at, behind[1], previous)
            return *behind, False
        self._report_gap(chunks, at, previous, behind)
        return (behind or (chunks.end, _UNKNOWN))[0], _UNKNOWN, False

    def _pass_hole(self, batch: WordBatch, chunks: VsChunks, at: int, first: int) -> tuple[int, int, bool]:
        """As `_pass_damage`, where the dump lacks the header at granule `at`; `first`: address of the first such."""
        self._walk.add_gap(f"{self._walk.name}: chunks from {first:#x} on are not in the dump")

        def is_missing(place: int) -> bool:
            """True where the dump lacks the header at a granule."""
            return self._lacks_header(batch, chunks.address(place))

        def are_unlinked(places: Sequence[int]) -> bool:
            """True where the tree of free chunks lacks one of the chunks at these granules."""
            addresses = np.array([chunks.address(place) for place in places], np.uint64)
            return bool(is_unlinked(self._walk, addresses).any())

        behind = chunks.living_from(at + 1, is_missing, are_unlinked)
        return chunks.end if behind is None else behind[0], _UNKNOWN, False

    def _likeliest(self, chunks: VsChunks, sound: list[tuple[int, int]], start: int) -> tuple[int, int]:
        """The header, among those whose previous size leads to `start`, from which the longest chain begins.

        At least one of `sound` must lead there. Several may: all but one are stale headers inside a chunk. Then a gap
        says that the choice is in doubt.
        """
        named = sorted({header for header in sound if header[0] > start and header[0] - header[1] == start})
        best = max(named, key=lambda header: chunks.chain_length(header[0]))
        if len(named) > 1:
            places = " or ".join(f"{chunks.address(place):#x}" for place, _ in named)
            address = chunks.address(start)
            self._walk.add_gap(f"{self._walk.name}: whether the chunk at {address:#x} ends at {places} is in doubt")
        return best

    def _is_stale(
        self, batch: WordBatch, chunks: VsChunks, one: tuple[int, int], places: tuple[int, int],
        behind: tuple[int, int] | None,
    ) -> bool:  # fmt: skip
        """True where a sound header before a damaged one is stale, though it names the chunk before that as its own.

        The damaged header and the next sound one name the same size for the chunk of the damaged header. So a chunk
        begins there, and no living chunk reaches over it. False without a sound header `behind`.

        `one`, `behind`: (granule of a sound header, granules of the chunk before it). `places`: (granule of the chunk
        before the damaged header, granule of the damaged header).
        """
        before, at = places
        if one[0] >= at or one[0] - one[1] != before:
            return False
        if behind is None or not behind[0] - at == behind[1] == chunks.header(at).size:
            return False
        return chunks.passes_over(one[0], at, lambda place: self._lacks_header(batch, chunks.address(place)))

    def _lacks_header(self, batch: WordBatch, address: int) -> bool:
        """True where a byte of the first word of the header at an address is not in the dump."""
        header = Span(address, address + self._walk.pointer_bytes)
        return any(span.start < header.end and header.start < span.end for span in batch.missing)

    def _add_wrong_size(self, chunks: VsChunks, at: int, size: int, *, is_cut: bool) -> None:
        """Corrects the last row, the chunk at `at`, whose header names a wrong size.

        `size`: the right one; `is_cut`: True where a part of the header is not in the dump, which is no damage.
        """
        walk = self._walk
        row = walk.columns.since(len(walk.columns) - 1)
        found = int(row.entry_size[0])
        previous = chunks.header(at).previous_size
        chunks.write_row(row.writer(), at, size, previous)
        lower_trust(row.tags, slice(None), Trust.DERIVED)
        where = f"{walk.name}: the chunk at {chunks.address(at):#x}"
        if is_cut:
            walk.add_gap(f"{where} lacks a part of its header in the dump; its size is that which the next one names")
            return
        message = f"{where} says {found:,} bytes, the next one {size * walk.granule:,}"
        walk.report(chunks.damage(at, size, previous), message)

    def _add_damaged_chunk(self, chunks: VsChunks, at: int, size: int, previous: int) -> None:
        """Adds the row of a chunk with a damaged header. `size`: by the next, sound header."""
        walk, address = self._walk, chunks.address(at)
        message = f"{walk.name}: the chunk header at {address:#x} is damaged"
        walk.report(chunks.damage(at, size, previous), message)
        if previous > 0 and chunks.header(at).size != size:
            correct_overrun_row(walk, address)
        if chunks.write_row(walk.columns.tail(1), at, size, previous) is Trust.GUESS:
            walk.add_gap(f"{message}; the state of its {size * walk.granule:,} bytes is not known, they count as busy")
        walk.columns.add(1, walk.heap.index)

    def _report_gap(self, chunks: VsChunks, at: int, previous: int, behind: tuple[int, int] | None) -> None:
        """Reports a damaged header whose chunk has an unknown size: chunks up to the next sound header are missing.

        `behind`: (granule of that header, size of the chunk before it); None where there is none.
        """
        walk, address = self._walk, chunks.address(at)
        until = chunks.address(behind[0] if behind else chunks.end)
        message = f"{walk.name}: the chunk header at {address:#x} is damaged"
        expected = f"{previous} granules before it" if previous >= 0 else "sizes that fit"
        found = (walk.view.space.try_read(address, 8) or b"").hex(" ") or "no memory"
        damaged = DamagedBytes("vs_chunk", address, walk.granule, expected, found)
        walk.report(damaged, message, gap=f"{message}: chunks between it and {until:#x} are missing")
        if previous > 0:
            correct_overrun_row(walk, address)

    def _is_uncommitted(self, address: int) -> bool:
        regions = self._walk.process.regions
        return regions.is_complete_map and not regions.committed_bytes(Span(address, address + 1))

    def _sound_headers(self, chunks: VsChunks, first: int, starts: tuple[int, ...]) -> list[tuple[int, int]]:
        """`VsChunks.sound_from`; [] once a heap has more than _MOST_RESYNCS damaged places."""
        self._resyncs += 1
        if self._resyncs > _MOST_RESYNCS:
            self._walk.add_gap(f"{self._walk.name}: damaged all over, some chunks behind damage are missing")
            return []
        return chunks.sound_from(first, starts)
