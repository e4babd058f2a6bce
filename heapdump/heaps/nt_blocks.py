"""Every block of one NT heap: the chain of entries through each segment, the front end inside it, the large blocks.

The chain goes from run to run by the heap's own uncommitted ranges, never by which pages the dump holds: free entries of
8 and later contain decommitted pages that no range names, and a shared csr heap of the real Windows 7 dump has committed
pages that its ranges call uncommitted. At a damaged header the walk makes one finding, goes on at the next place where
three headers in a row hold, and calls what follows `derived`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Heap, Segment, Trust
from heapdump.blocks.table import BUSY, INTERNAL, BlockKind, Chunk, tag
from heapdump.heaps.nt_generation import Generation, generation_of
from heapdump.heaps.nt_resync import next_good_header
from heapdump.kernels import WORTH_COMPILING, chain, compiled
from heapdump.process.model import View
from heapdump.spans import Span

_ROWS = 1 << 16
Rows = tuple[NDArray[np.int64], NDArray[np.int64]]
"""(granules, raw tags) of some entries of a run, ascending."""

INTERNAL_FLAG = 0x8  # on Vista and later: the carriers of the front end and its zones (seen on every recorded build)
_HEADER, _RANGE_END = 1, 3
_WORDS = {
    chain.CHECKSUM: ("a header whose checksum holds", "checksum"),
    chain.PREVIOUS: ("the size of the entry before it", "previous size"),
    chain.SIZE: ("a size that stays inside the segment", "size"),
}


@dataclass
class Walked:
    """What a walk of one heap's segments found so far: chunks, findings, and how many headers held."""

    chunks: list[Chunk] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    headers: int = 0
    good_headers: int = 0
    blocks: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """Memory of one segment between two uncommitted ranges, as words, from granule 0 at `span.start` on.

    What the dump does not hold reads as zero and is named in `missing`.
    """

    span: Span
    words: NDArray[np.int64]
    missing: tuple[Span, ...]


OnRun = Callable[[Run, "list[Rows]"], None]


def walk_segments(view: View, heap: Heap, on_run: OnRun, walked: Walked) -> Generation:
    """Fills `walked` with the back-end entries of every segment; `on_run(run, rows)` sees each run with its rows.

    `rows` = (granules, tags) of the run's busy entries, for the front end.
    """
    generation = generation_of(view, heap)
    for segment in heap.segments:
        previous_good = True
        for span in runs(segment):
            if not view.space.is_mostly_present(span):
                walked.gaps.append(
                    f"heap {heap.address:#x}: most of its memory at {span.start:#x}..{span.end:#x} is not in the dump"
                )
                continue
            words, missing = view.space.words64(span)
            run = Run(span, words, missing)
            previous_good = _walk_run(view, heap, generation, run, on_run, walked, previous_good=previous_good)
    return generation


def runs(segment: Segment) -> Iterator[Span]:
    """The committed runs of a segment, one after the other."""
    start = segment.span.start
    for hole in (*segment.uncommitted, Span(segment.span.end, segment.span.end)):
        if hole.start > start:
            yield Span(start, hole.start)
        start = hole.end


def _walk_run(
    view: View, heap: Heap, generation: Generation, run: Run, on_run: OnRun, walked: Walked, *, previous_good: bool
) -> bool:
    """Walks one run; True when no header of it was damaged."""
    at, previous, end = 0, 0, run.span.size // generation.granule
    trusted = previous_good
    damaged = False
    rows: list[Rows] = []
    while at < end:
        count, at, why, previous, columns = _chain(generation, run, at, end, previous, walked.blocks)
        if count:
            rows.append(_keep(heap, generation, run, count, columns, walked, trusted=trusted))
        if why in (chain.END, chain.RUN_END):
            if why == chain.RUN_END and at < end and not generation.is_old:
                _note_rest(heap, generation, run, at, walked)
            break
        if why == chain.FULL:
            continue
        damaged = True
        good = _damaged(view, heap, generation, run, at, end, why, previous, walked)
        if good is None:
            break
        at, previous, trusted = good[0], good[1], False
    on_run(run, rows)
    return not damaged


def _chain(
    generation: Generation, run: Run, at: int, end: int, previous: int, so_far: int
) -> tuple[int, int, int, int, tuple[Any, ...]]:
    columns = tuple(np.empty(min(_ROWS, end - at), np.int64) for _ in range(5))
    call, words, outs = callable_kernel(generation.walk, run.words, columns, so_far)
    count, at, why, previous = call(
        words, at, end, generation.stride, generation.lead, generation.key, generation.mask, previous, *outs
    )
    return count, at, why, previous, tuple(column[:count] for column in columns)


def callable_kernel(
    function: Callable[..., Any], words: NDArray[np.int64], columns: tuple[NDArray[np.int64], ...], blocks: int
) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
    """The kernel and its arrays as it is called: compiled once so many blocks were walked that it pays.

    Plain Python reads and writes memoryviews twice as fast as arrays.
    """
    if blocks >= WORTH_COMPILING:
        return compiled(function), words, columns
    return function, memoryview(words), tuple(memoryview(column) for column in columns)  # type: ignore[arg-type]


def _keep(
    heap: Heap, generation: Generation, run: Run, count: int, columns: tuple[Any, ...], walked: Walked, *, trusted: bool
) -> Rows:
    """Turns the kernel's rows into a chunk; (granules, tags) of them for the front end."""
    at, units, spare, lead, raw = columns
    flags, unused = raw & 0xFF, raw >> 8
    busy = (flags & 1) != 0
    structural = np.zeros(count, bool)
    if generation.is_old:
        structural |= run.span.start + at * generation.granule == heap.address
        headers = np.array([segment.address for segment in heap.segments], np.int64)
        structural |= np.isin(run.span.start + at * generation.granule, headers)
    else:
        structural |= busy & ((unused == _HEADER) | (unused == _RANGE_END))
    internal = structural | (busy & ((flags & INTERNAL_FLAG) != 0) & (not generation.is_old))
    base = tag(BlockKind.BACKEND, trust=Trust.EXACT if trusted else Trust.DERIVED)
    tags = base | np.where(busy, BUSY, 0) | np.where(internal, INTERNAL, 0) | (flags << 8)
    granule = generation.granule
    walked.chunks.append(
        Chunk(
            entry=(run.span.start + at * granule).astype(np.uint64),
            units=(units * (granule // 8)).astype(np.uint32),
            spare=spare.astype(np.uint32),
            lead=(lead * (granule // 8)).astype(np.uint8),
            tags=tags.astype(np.uint16),
            heap=heap.index,
        )
    )
    walked.blocks += count
    walked.headers += count
    walked.good_headers += count
    return at.copy(), raw.copy()


def _damaged(
    view: View, heap: Heap, generation: Generation, run: Run, at: int, end: int, why: int, previous: int, walked: Walked
) -> tuple[int, int] | None:
    """One finding for a header that does not hold; (granule, previous size) to go on with, or None."""
    address = run.span.start + at * generation.granule
    hole = next((span for span in run.missing if address in span), None)
    good = next_good_header(generation, run.words, at + 1, end)
    until = run.span.start + (good[0] if good else end) * generation.granule
    if hole is not None:
        walked.gaps.append(
            f"heap {heap.address:#x}: its memory at {hole.start:#x}..{hole.end:#x} is not in the dump; "
            f"blocks between {address:#x} and {until:#x} are missing"
        )
        return good
    expected, what = _WORDS[why]
    word = int(run.words[at * generation.stride + generation.lead]) & (1 << 64) - 1
    found = f"{what} of {word.to_bytes(8, 'little').hex(' ')}"
    if why == chain.PREVIOUS:
        expected = f"{expected}: {previous:#x} granules"
    message = f"heap {heap.address:#x}: the entry header at {address:#x} is damaged ({what}); going on at {until:#x}"
    walked.headers += 1
    walked.findings.append(Finding("entry_header", "error", heap.address, address, 2 * view.pointer_bytes, message, expected, found))
    walked.gaps.append(f"{message}; blocks between may be missing")
    return good


def _note_rest(heap: Heap, generation: Generation, run: Run, at: int, walked: Walked) -> None:
    """The last entry of a run must end where the heap's list says an uncommitted range begins."""
    address = run.span.start + at * generation.granule
    message = f"heap {heap.address:#x}: the entries end at {address:#x}, the run at {run.span.end:#x}"
    walked.findings.append(Finding("ucr", "error", heap.address, address, 1, message, f"{run.span.end:#x}", f"{address:#x}"))
    walked.gaps.append(message)
