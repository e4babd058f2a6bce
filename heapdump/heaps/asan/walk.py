"""Rows of all chunks of an AddressSanitizer heap: allocated ones, and freed ones that wait in quarantine.

A row begins at the chunk's header. Redzones beside it belong to no row; they are overhead of the allocations.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.table import tag
from heapdump.heaps.asan.chunks import ALLOCATED, HEADER, Chunks, is_old_format, read_chunks
from heapdump.heaps.asan.runtime import runtime_at
from heapdump.heaps.asan.shadow import Shadow
from heapdump.heaps.jobs import HeapJob
from heapdump.kernels.row import TRUST_GUESS
from heapdump.memory.regions import State

_SAMPLE = 256
_MOST_UNCONFIRMED = 1 << 14
"""Chunks with a damaged or missing header that become rows; a gap counts the others."""

_LARGEST = (1 << 35) - 0x1000
"""Bytes of the largest chunk that a row can describe."""


def walk_chunks(job: HeapJob) -> None:
    """Adds a row for every chunk. A header that contradicts the shadow is a finding; its row goes by the shadow."""
    from heapdump.heaps.asan import CHUNK

    runtime = runtime_at(job.view, job.heap.address)
    if runtime is None:
        return
    shadow = Shadow(runtime, job.view.space)
    job.log.facts["shadow"] = runtime.shadow
    is_old: bool | None = None
    unconfirmed = 0
    for starts in shadow.chunk_starts():
        inside = _committed(job, starts)
        if is_old is None and len(inside):
            is_old = is_old_format(shadow, inside[:_SAMPLE])
            job.log.facts["old_headers"] = is_old
        chunks = read_chunks(shadow, inside, is_old=bool(is_old))
        keep = chunks.fits & (chunks.size < _LARGEST)
        busy = chunks.state[keep] == ALLOCATED
        tags = np.where(busy, tag(CHUNK, busy=True), tag(CHUNK, busy=False))
        _add(job, chunks.user[keep], chunks.size[keep], tags)
        job.log.good_headers += int(keep.sum())
        doubtful = np.flatnonzero(~keep)
        _add_unconfirmed(job, shadow, chunks, doubtful[: max(0, _MOST_UNCONFIRMED - unconfirmed)])
        unconfirmed += len(doubtful)
        job.advance(len(inside))
    if unconfirmed > _MOST_UNCONFIRMED:
        count = unconfirmed - _MOST_UNCONFIRMED
        job.log.add_gap(f"heap {job.heap.address:#x} (asan): {count:,} chunks without a sound header are left out")


def _committed(job: HeapJob, starts: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The addresses whose memory is committed. Memory that was released keeps its shadow."""
    regions = job.process.regions
    rows = np.maximum(np.searchsorted(regions.start, starts, side="right"), 1) - 1
    inside = (starts < regions.end[rows]) & (regions.state[rows] == State.MEM_COMMIT)
    return starts[inside] if regions.is_complete_map else starts


def _add(job: HeapJob, user: NDArray[np.uint64], size: NDArray[np.uint64], tags: NDArray[np.integer]) -> None:
    size8 = (size + np.uint64(HEADER + 7)) >> np.uint64(3)
    job.columns.append(
        job.heap.index, user - np.uint64(HEADER), size8, (size8 << np.uint64(3)) - size,
        np.full(len(user), HEADER // 8), tags,
    )  # fmt: skip
    job.log.headers += len(user)


def _add_unconfirmed(job: HeapJob, shadow: Shadow, chunks: Chunks, rows: NDArray[np.int64]) -> None:
    """Adds chunks whose header is damaged or not in the dump, with state and size by the shadow, as guesses.

    A header with state 0 belongs to no chunk: it is being allocated, or has left the quarantine.
    """
    from heapdump.heaps.asan import CHUNK

    first, _ = shadow.at(chunks.user[rows])
    missing = 0
    for row, value in zip(rows.tolist(), first.tolist(), strict=True):
        if chunks.is_there[row] and chunks.state[row] == 0:
            continue
        user = int(chunks.user[row])
        size = shadow.run_bytes(user, _LARGEST)
        if size:
            is_busy = value != 0xFD
            tags = np.array([tag(CHUNK, busy=is_busy) | TRUST_GUESS])
            _add(job, np.array([user], np.uint64), np.array([size], np.uint64), tags)
        if chunks.is_there[row]:
            job.log.add_damage(_damaged(job, user), None if size else f"the chunk at {user:#x} has no size")
        missing += not chunks.is_there[row]
    if missing:
        job.log.add_gap(f"heap {job.heap.address:#x} (asan): {missing:,} chunk headers are not in the dump")


def _damaged(job: HeapJob, user: int) -> Finding:
    header = job.view.space.try_read(user - HEADER, HEADER) or b""
    message = f"the header of the AddressSanitizer chunk at {user:#x} contradicts the shadow"
    return Finding(
        "asan_chunk", "error", job.heap.address, user - HEADER, HEADER, message, "state 2 or 3, size as in the shadow",
        header.hex(),
    )  # fmt: skip
