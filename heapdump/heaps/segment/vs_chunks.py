"""Variable-size blocks of a segment heap: chains of chunks in VS subsegments (heap-structures.md §6.4).

A chain is verified chunk by chunk: each names the size of the one before it. At a damaged header the walk makes one
finding, goes on at the next place where three headers in a row hold, and calls what follows in the subsegment `derived`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import doubt, tag
from heapdump.heaps.integers import signed64
from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.memory_windows import Batch, batches, doubt_missing
from heapdump.heaps.segment.overrun import mend_overrun
from heapdump.heaps.segment.vs_recovery import ByteDamage, Chunks
from heapdump.heaps.segment.vs_subsegments import Chains
from heapdump.kernels import run, vs_chain
from heapdump.kernels.row import UNIT
from heapdump.spans import Span

_FIRST_ROOM = 1 << 12
_MOST_ROOM = 1 << 18
_MOST_RESYNCS = 512


class ChunkWalk:
    """Walks the chains of one heap with one key; rows go to the job's columns."""

    def __init__(self, job: SegmentHeapJob, key: int, padding: int) -> None:
        """`padding`: bytes in front of what the program got."""
        self._job, self._key, self.padding = job, key, padding
        self._wide = job.view.pointer_bytes == 8
        self._granule = job.view.granularity
        mask = -1 if self._wide else 0xFFFFFFFF
        self._signed_key = signed64(key) & mask
        self._coding = vs_chain.ChunkCoding(job.view.granularity // UNIT, self._signed_key, padding)
        self._resyncs = 0

    def walk(self, chains: Chains) -> None:
        """All chains."""
        for batch in batches(self._job.view.space, chains.start, chains.end):
            ends = [(side[batch.rows] - batch.base) // self._granule for side in (chains.start, chains.end)]
            first = len(self._job.columns)
            self._walk(batch, np.ascontiguousarray(np.stack([*ends, batch.base], axis=1)))
            if batch.missing:
                doubt_missing(self._job, first, batch.missing)

    def _walk(self, batch: Batch, places: NDArray[np.int64]) -> None:
        k, at, previous, trusted = 0, int(places[0, 0]), 0, True
        room = _FIRST_ROOM
        while True:
            stopped, at, reason, previous = self._some(batch, places, k, at, previous, room, trusted)
            trusted = trusted and stopped == k
            k = stopped
            if reason == vs_chain.END:
                return
            if reason == vs_chain.FULL:
                room = min(2 * room, _MOST_ROOM)
                continue
            chunks = Chunks(batch.words, int(places[k, 2]), int(places[k, 1]), self._signed_key, self._wide)
            at, previous, trusted = self._damaged(batch, chunks, at, previous)

    def _some(
        self, batch: Batch, places: NDArray[np.int64], k: int, at: int, previous: int, room: int, trusted: bool
    ) -> tuple[int, int, int, int]:
        # behind damage only this chain is derived: it is walked alone
        part = places if trusted else places[: k + 1]
        job, trust = self._job, Trust.EXACT if trusted else Trust.DERIVED
        tail = job.columns.tail(room)
        found = run(
            vs_chain.follow_chunks, job.workload.expected(room), batch.words, part, k, at, previous, self._coding,
            tag(BlockKind.VS, trust=trust), tail,
        )  # fmt: skip
        del tail
        count, k, at, reason, previous = (int(value) for value in found)
        job.columns.add(count, job.heap.index)
        job.workload.add(count, int(job.columns.since(len(job.columns) - count).entry_size.sum()))
        job.walked.headers += count
        job.walked.good_headers += count
        if not trusted and reason == vs_chain.END and k + 1 < len(places):
            return k + 1, int(places[k + 1, 0]), vs_chain.FULL, 0
        return k, at, reason, previous

    def _damaged(self, batch: Batch, chunks: Chunks, at: int, previous: int) -> tuple[int, int, bool]:
        """One finding; (granule to go on with, granules of the chunk before it or -1, whether nothing is in doubt).

        `previous` > 0: the last row is the chunk before, of so many granules.
        """
        job, address = self._job, chunks.address(at)
        is_missing = any(address in span for span in batch.missing) and not self._is_uncommitted(address)
        before = at - max(previous, 0)
        good = self._good(chunks, before + 1, (before, at))
        behind = next((place for place in good if place[0] > at), None)
        if is_missing:
            job.walked.gap(f"heap {job.heap.address:#x}: chunks from {address:#x} on are not in the dump")
            return (behind or (chunks.end, -1))[0], -1, False
        job.walked.headers += 1
        # the chunk before may lie about its size: the one truly behind it names it
        if previous > 0 and good and good[0][0] - good[0][1] == before:
            self._wrong_size(chunks, before, good[0][1])
            return *good[0], True
        if behind is None and int(chunks.headers(at, at + 1)[0][0]) == chunks.end - at:
            behind = chunks.end, chunks.end - at
        if behind is not None and behind[0] - behind[1] == at:
            self._one_header(chunks, at, behind[1], previous)
            return *behind, False
        self._several_headers(chunks, at, previous, behind)
        return (behind or (chunks.end, -1))[0], -1, False

    def _wrong_size(self, chunks: Chunks, at: int, size: int) -> None:
        """The chunk at this granule has another size than its header says; its row, the last one, gets the true one."""
        job = self._job
        row = job.columns.since(len(job.columns) - 1)
        found = int(row.entry_size[0])
        previous = int(chunks.headers(at, at + 1)[1][0])
        chunks.write_row(row.writer(), at, size, previous, self.padding)
        doubt(row.tags, slice(None), Trust.DERIVED)
        message = (
            f"heap {job.heap.address:#x}: the chunk at {chunks.address(at):#x} says {found:,} bytes, "
            f"the next one {size * self._granule:,}"
        )
        self._find(chunks, at, chunks.wound(at, size, previous), message)

    def _one_header(self, chunks: Chunks, at: int, size: int, previous: int) -> None:
        """A damaged header between whole ones: its chunk is known, its state where the header still tells."""
        job, address = self._job, chunks.address(at)
        message = f"heap {job.heap.address:#x}: the chunk header at {address:#x} is damaged"
        self._find(chunks, at, chunks.wound(at, size, previous), message)
        if previous > 0 and int(chunks.headers(at, at + 1)[0][0]) != size:
            mend_overrun(job, address)
        if chunks.write_row(job.columns.tail(1), at, size, previous, self.padding) is Trust.GUESS:
            job.walked.gap(
                f"{message}; the state of its {size * self._granule:,} bytes is not known, they count as busy"
            )
        job.columns.add(1, job.heap.index)

    def _several_headers(self, chunks: Chunks, at: int, previous: int, behind: tuple[int, int] | None) -> None:
        """Damage behind which no header tells where this chunk ends."""
        job, address = self._job, chunks.address(at)
        heap, until = job.heap.address, chunks.address(behind[0] if behind else chunks.end)
        message = f"heap {heap:#x}: the chunk header at {address:#x} is damaged"
        expected = f"{previous} granules before it" if previous >= 0 else "sizes that fit"
        data = job.view.space.try_read(address, 8) or b""
        job.walked.find(
            Finding("vs_chunk", "error", heap, address, self._granule, message, expected, data.hex(" ") or "no memory")
        )
        job.walked.gap(f"{message}: chunks between it and {until:#x} are missing")
        if previous > 0:
            mend_overrun(job, address)

    def _find(self, chunks: Chunks, at: int, wound: ByteDamage, message: str) -> None:
        place, heap = chunks.address(at) + wound.first, self._job.heap.address
        self._job.walked.find(
            Finding("vs_chunk", "error", heap, place, wound.length, message, wound.expected, wound.found)
        )

    def _is_uncommitted(self, address: int) -> bool:
        regions = self._job.process.regions
        return regions.is_complete_map and not regions.committed_bytes(Span(address, address + 1))

    def _good(self, chunks: Chunks, first: int, named: tuple[int, ...]) -> list[tuple[int, int]]:
        """The good headers from granule `first` on: (granule, granules of the one before)."""
        self._resyncs += 1
        if self._resyncs > _MOST_RESYNCS:
            self._job.walked.gap(
                f"heap {self._job.heap.address:#x}: damaged all over, some chunks behind damage are missing"
            )
            return []
        return chunks.good_from(first, named)
