"""Variable-size blocks of a segment heap: chains of chunks in VS subsegments (heap-structures.md §6.4).

A chain is verified chunk by chunk: each names the size of the one before it. At a damaged header the walk makes one
finding, goes on at the next place where three headers in a row hold, and calls what follows in the subsegment `derived`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Trust
from heapdump.blocks.table import BlockKind, tag
from heapdump.heaps.nt_generation import signed
from heapdump.heaps.segment_chains import Chains
from heapdump.heaps.segment_memory import Batch, batches, doubt_missing
from heapdump.heaps.segment_overrun import mend_overrun
from heapdump.heaps.walked import Job
from heapdump.kernels import run, vs_chain
from heapdump.spans import Span

_FIRST_ROOM = 1 << 12
_MOST_ROOM = 1 << 18
_PROOF = 3
"""Headers in a row that hold where the walk goes on behind damage."""

_MOST_RESYNCS = 512


class ChunkWalk:
    """Walks the chains of one heap with one key; rows go to the job's columns."""

    def __init__(self, job: Job, key: int, padding: int) -> None:
        """`padding`: bytes in front of what the program got."""
        self._job, self._key, self.padding = job, key, padding
        self._wide = job.view.pointer_bytes == 8
        self._granule = job.view.granularity
        mask = -1 if self._wide else 0xFFFFFFFF
        self._signed_key = signed(key) & mask
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
            count, stopped, at, reason, previous = self._some(batch, places, k, at, previous, room, trusted)
            trusted = trusted and stopped == k
            k = stopped
            if reason == vs_chain.END:
                return
            if reason == vs_chain.FULL:
                room = min(2 * room, _MOST_ROOM)
                continue
            at, previous, trusted = self._damaged(batch, places, k, at, previous, count)

    def _some(
        self, batch: Batch, places: NDArray[np.int64], k: int, at: int, previous: int, room: int, trusted: bool
    ) -> tuple[int, int, int, int, int]:
        # behind damage only this chain is derived: it is walked alone
        part = places if trusted else places[: k + 1]
        job, trust = self._job, Trust.EXACT if trusted else Trust.DERIVED
        tail = job.columns.tail(room)
        found = run(
            vs_chain.follow_chunks, room, batch.words, part, k, at, previous, int(self._wide), self._signed_key,
            self.padding, tag(BlockKind.VS, trust=trust), tail.entry, tail.units, tail.spare, tail.lead, tail.tags,
        )  # fmt: skip
        del tail
        count, k, at, reason, previous = (int(value) for value in found)
        job.columns.add(count, job.heap.index)
        job.walked.headers += count
        job.walked.good_headers += count
        if not trusted and reason == vs_chain.END and k + 1 < len(places):
            return count, k + 1, int(places[k + 1, 0]), vs_chain.FULL, 0
        return count, k, at, reason, previous

    def _damaged(
        self, batch: Batch, places: NDArray[np.int64], k: int, at: int, previous: int, rows: int
    ) -> tuple[int, int, bool]:
        """One finding; (granule to go on with, granules of the chunk before it or -1, whether nothing was lost)."""
        job, address = self._job, int(places[k, 2]) + at * self._granule
        heap, end = job.heap.address, int(places[k, 1])
        if any(address in span for span in batch.missing) and not self._is_uncommitted(address):
            job.walked.gap(f"heap {heap:#x}: chunks from {address:#x} on are not in the dump")
            return (self._good(batch, places, k, at + 1) or (end, -1))[0], -1, False
        job.walked.headers += 1
        if rows and previous > 0:  # the chunk before may lie about its size: the one truly behind it names it
            good = self._good(batch, places, k, at - previous + 1)
            if good is not None and good[0] - good[1] == at - previous:
                self._wrong_size(batch, places, k, at - previous, good[1])
                return good[0], good[1], True
        good = self._good(batch, places, k, at + 1)
        if good is not None and good[0] - good[1] == at:
            holds = self._one_header(batch, places, k, at, good[1], previous)
            if rows and not holds:
                mend_overrun(job, address)
            return (at, -1, False) if holds else (*good, False)
        message = f"heap {heap:#x}: the chunk header at {address:#x} is damaged"
        expected = f"{previous} granules before it" if previous >= 0 else "sizes that fit"
        data = job.view.space.try_read(address, 8) or b""
        job.walked.find(Finding("vs_chunk", "error", heap, address, self._granule, message, expected, data.hex(" ") or "no memory"))
        if rows:
            mend_overrun(job, address)
        return (good or (end, -1))[0], -1, False

    def _wrong_size(self, batch: Batch, places: NDArray[np.int64], k: int, at: int, size: int) -> None:
        """The chunk at this granule has another size than its header says; its row, the last one, gets the true one."""
        job, address = self._job, int(places[k, 2]) + at * self._granule
        row = job.columns.since(len(job.columns) - 1)
        stride = self._granule // 8
        found = int(row.units[0]) // stride
        row.units[0] = size * stride
        row.spare[0] = min(int(row.spare[0]), size * self._granule)
        message = f"heap {job.heap.address:#x}: the chunk at {address:#x} says {found * self._granule:,} bytes, the next one {size * self._granule:,}"
        self._find(batch, places, k, at, message, size, -1)

    def _one_header(self, batch: Batch, places: NDArray[np.int64], k: int, at: int, size: int, previous: int) -> bool:
        """A damaged header between whole ones; whether its own size holds, so that its chunk is known."""
        address = int(places[k, 2]) + at * self._granule
        own = int(self._headers(batch, places, k, at)[0][0])
        self._find(batch, places, k, at, f"heap {self._job.heap.address:#x}: the chunk header at {address:#x} is damaged", size, previous)
        return own == size

    def _find(
        self, batch: Batch, places: NDArray[np.int64], k: int, at: int, message: str, size: int, previous: int
    ) -> None:
        """A finding of the bytes that are not those of a header with these sizes (-1: not known)."""
        job, address = self._job, int(places[k, 2]) + at * self._granule
        count = 8 if self._wide else 4
        mask = (1 << 8 * count) - 1
        raw = int(batch.words[at * (2 if self._wide else 1)]) & mask
        code = (address ^ self._signed_key) & mask
        size_at, previous_at, bits = (16, 32, 0xFFFF) if self._wide else (1, 16, 0x7FFF)
        wanted = (raw ^ code) & ~(bits << size_at) | size << size_at
        if previous >= 0:
            wanted = wanted & ~(bits << previous_at) | previous << previous_at
        expected, found = ((word & mask).to_bytes(count, "little") for word in (wanted ^ code, raw))
        wrong = [i for i in range(count) if expected[i] != found[i]] or [0, count - 1]
        part = slice(wrong[0], wrong[-1] + 1)
        place, length = address + wrong[0], wrong[-1] + 1 - wrong[0]
        texts = expected[part].hex(" "), found[part].hex(" ")
        job.walked.find(Finding("vs_chunk", "error", job.heap.address, place, length, message, *texts))

    def _is_uncommitted(self, address: int) -> bool:
        regions = self._job.process.regions
        return regions.is_complete_map and not regions.committed_bytes(Span(address, address + 1))

    def _good(self, batch: Batch, places: NDArray[np.int64], k: int, first: int) -> tuple[int, int] | None:
        """(granule from which some headers in a row hold, granules of the one before it), from `first` on in the chain."""
        self._resyncs += 1
        if self._resyncs > _MOST_RESYNCS:
            self._job.walked.gap(f"heap {self._job.heap.address:#x}: damaged all over, some chunks behind damage are missing")
            return None
        size, before, busy = self._headers(batch, places, k, first)
        count = len(size)
        if not count:
            return None
        sound = (size > 0) & (np.arange(count) + size <= count) & (busy <= 1)
        holds, place = sound.copy(), np.arange(count)
        for _ in range(_PROOF - 1):
            last = size[np.minimum(place, count - 1)]
            following = np.where(holds, place + last, count)
            inside = np.minimum(following, count - 1)
            # a chain that ends before all headers of the proof were seen is good, unless it has but one
            holds &= (following == count) & (place > np.arange(count)) | (following < count) & sound[inside] & (before[inside] == last)
            place = np.where(holds & (following < count), following, place)
        good = np.flatnonzero(holds)
        return (first + int(good[0]), int(before[good[0]])) if len(good) else None

    def _headers(
        self, batch: Batch, places: NDArray[np.int64], k: int, first: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(granules, granules of the one before, busy byte) as if a header stood on every granule from `first` on."""
        granules = np.arange(first, int(places[k, 1]))
        raw = batch.words[granules * (2 if self._wide else 1)] ^ (int(places[k, 2]) + granules * self._granule) ^ self._signed_key
        if self._wide:
            return (raw >> 16) & 0xFFFF, (raw >> 32) & 0xFFFF, (raw >> 48) & 0xFFFF
        return (raw >> 1) & 0x7FFF, (raw >> 16) & 0x7FFF, np.zeros(len(raw), np.int64)
