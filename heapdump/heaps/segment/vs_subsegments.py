"""The headers of VS subsegments of a segment heap: where their chains of chunks begin and end, and under which key."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.heaps.segment.keys import Chain, SegmentHeapJob, chunk_key
from heapdump.heaps.segment.page_ranges import Ranges
from heapdump.heaps.segment.solve_key import solve_chunk_key
from heapdump.layouts import Struct

_SCRAMBLE = 0x2BED
_MASK = 0x7FFF
_SAMPLE = 32


@dataclass(frozen=True, slots=True)
class Chains:
    """The chunks of VS subsegments: `start`, `end` (n,) int64, addresses; `rows`: their page ranges."""

    start: NDArray[np.int64]
    end: NDArray[np.int64]
    rows: NDArray[np.int64]

    def sample(self) -> list[Chain]:
        """Some of them, from all parts of the heap."""
        step = max(1, len(self.start) // _SAMPLE)
        return [Chain(a, b) for a, b in zip(self.start[::step].tolist(), self.end[::step].tolist(), strict=True)]


def read_chains(job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]) -> Chains:
    """The subsegments of these ranges whose headers hold; `structs`: those of the builds, the likeliest first."""
    if not len(rows):
        return Chains(rows, rows, rows)
    tried: list[_Headers] = []
    for struct in structs:
        tried.append(_Headers(job, ranges, rows, struct))
        if tried[-1].is_good.all():
            break
    best = max(tried, key=lambda headers: int(headers.is_good.sum()))
    best.report(job)
    keep = best.is_good
    return Chains(best.start[keep], best.end[keep], rows[keep])


def are_chains(
    job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]
) -> NDArray[np.bool_]:
    """Which of these ranges begin with the header of a VS subsegment that ends where the used part of the range does; (n,)."""
    tried = [_Headers(job, ranges, rows, struct) for struct in structs]
    used = ranges.start[rows] + ranges.size[rows] - ranges.unused[rows]
    holds: NDArray[np.bool_] = np.any([headers.is_good & (headers.end == used) for headers in tried], axis=0)
    return holds


class _Headers:
    """The headers of VS subsegments as one build has them."""

    def __init__(self, job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], struct: Struct) -> None:
        view = job.view
        granule = view.granularity
        self._address, self._struct = ranges.start[rows], struct
        at = self._address.astype(np.uint64)
        size, self._there = view.space.mapped.gather(at + np.uint64(struct.offset("Size")), 2)
        mark, _ = view.space.mapped.gather(at + np.uint64(struct.offset("Signature")), 2)
        self.start = self._address + -(-struct.size // granule) * granule
        self.end = self.start + size.astype(np.int64) * granule
        holds = ((size ^ np.uint64(_SCRAMBLE)) & np.uint64(_MASK)) == (mark & np.uint64(_MASK))
        self.is_good = self._there & holds & (size > 0) & (self.end <= self._address + ranges.size[rows])

    def report(self, job: SegmentHeapJob) -> None:
        """Findings and gaps for headers that do not hold."""
        walked, heap = job.walked, job.heap.address
        walked.headers += len(self._address)
        walked.good_headers += int(self.is_good.sum())
        for i in np.flatnonzero(~self.is_good).tolist():
            address = int(self._address[i])
            if self._there[i]:
                message = f"the VS subsegment at {address:#x} of heap {heap:#x} has a damaged header"
                walked.find(
                    Finding(
                        "vs_chunk",
                        "error",
                        heap,
                        address,
                        self._struct.size,
                        message,
                        "a size that fits its signature",
                        "another",
                    )
                )
                walked.gap(f"{message}: its blocks are missing")
            else:
                walked.gap(f"heap {heap:#x}: the VS subsegment at {address:#x} is not in the dump")


def key_of(job: SegmentHeapJob, chains: Chains, likely: Sequence[int]) -> int | None:
    """The key of these chains; None where nothing decodes them, which is then a finding and a gap."""
    sample = chains.sample()
    key = chunk_key(job, sample, likely) if sample else None
    if sample and key is None:
        key = job.keys.chunk = solve_chunk_key(job.view, sample)
    if sample and key is None:
        heap = job.heap.address
        message = f"no key decodes the chunks of heap {heap:#x}"
        job.walked.headers += 1
        job.walked.find(
            Finding(
                "vs_chunk", "error", heap, sample[0].start, job.view.granularity, message, "a chain of chunks", "none"
            )
        )
        job.walked.gap(f"{message}: the blocks of {len(chains.start):,} VS subsegments are missing")
    return key
