"""Finds every pointer into a block in given memory: the edges of the pointer graph.

In: memory of the mapped file, sources and a `PointerMap`. Out: `Edges`. Several threads sweep, each a run of
neighbouring sources; the next bytes of the file are read ahead, those swept need not stay in memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.graph.inner_starts import InnerStarts
from heapdump.analyses.graph.node_places import Places
from heapdump.analyses.graph.pointer_map import PointerMap
from heapdump.kernels import run
from heapdump.kernels.pointer_sweep import resolve, sweep
from heapdump.large_arrays import empty, resized, zeros
from heapdump.memory.mapped import MappedMemory
from heapdump.spans import Span

_MAX_THREADS = 8
_BUFFER_WORDS = 1 << 16
"""Words that a thread collects before it looks them up."""

_JOB_BYTES = 16 << 20
"""Bytes of memory that one thread sweeps in one job."""

_MOST_EXPECTED = 1 << 19
"""Pointers for which memory is set aside for each job, at most."""

_PIECE = 1 << 20
"""Sources whose degrees are in memory at once."""

_WORDS_A_BLOCK = 8
"""Words that are about as much work as the walk of one block, the unit in which `kernels.run` counts work."""


@dataclass(frozen=True)
class Edges:
    """The pointers of n sources: those of source i are `targets[first[i]:first[i + 1]]`, by ascending address.

    Attributes:
        first: (n + 1,) int32; int64 for 2**31 edges or more.
        targets: (edges,) int32: node k for a pointer to its start, or to an address that stands for it
            (`inner_starts`); -1 - k for another pointer to its inside.
        present_bytes: bytes of the sources that the dump holds.
    """

    first: NDArray[np.int32] | NDArray[np.int64]
    targets: NDArray[np.int32]
    present_bytes: int

    @classmethod
    def of(cls, degree: NDArray[np.integer], targets: NDArray[np.int32], present_bytes: int = 0) -> Edges:
        """`degree` (n,): the number of pointers of each source."""
        degree_after_zero = np.concatenate([np.zeros(1, np.int32), degree.astype(np.int32)])
        return cls(_firsts(degree_after_zero, len(targets)), targets, present_bytes)

    @property
    def degree(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """The number of pointers of each source, (n,); a new array each time."""
        return np.diff(self.first)

    @property
    def widest(self) -> int:
        """The most pointers of one source; 0 without sources."""
        lows = range(0, len(self.first) - 1, _PIECE)
        return max((int(np.diff(self.first[low : low + _PIECE + 1]).max()) for low in lows), default=0)


def _firsts(degree: NDArray[np.int32], edge_count: int) -> NDArray[np.int32] | NDArray[np.int64]:
    """The running sums of `degree`, in place where they fit into int32: no other memory is touched."""
    if edge_count >= 1 << 31:
        return np.cumsum(degree, dtype=np.int64)
    np.cumsum(degree, out=degree)
    return degree


@dataclass(frozen=True)
class Sources:
    """n spans of memory that may hold pointers.

    Attributes:
        places: their addresses and bytes.
        width: bytes of a pointer, 4 or 8.
    """

    places: Places
    width: int

    def __len__(self) -> int:
        """The number of spans."""
        return len(self.places)


@dataclass(frozen=True, slots=True)
class _Pass:
    """The search of all words of `sources` with one alignment in memory and one alignment in the file.

    Attributes:
        sources: the memory.
        phase: address % width of the words.
        words: the whole file as words of `width` bytes.
        ranges: (starts, ends, offsets) of the memory ranges, int64: the word at address a of range r is
            `words[(a + offsets[r]) // width]`.
        degree: (n,) int32 number of pointers of each source, which the pass increases.
        work: size of the whole pass, in blocks; chooses between compiled and plain loops.
    """

    sources: Sources
    phase: int
    words: NDArray[np.int64]
    ranges: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    degree: NDArray[np.int32]
    work: int


class Sweeper:
    """Sweeps memory of one dump for pointers into the blocks of a map."""

    def __init__(
        self, memory: MappedMemory, blocks: PointerMap, *, unaligned: bool = False, threads: int | None = None,
        inner: InnerStarts | None = None,
    ) -> None:  # fmt: skip
        """Sweeps nothing yet.

        `unaligned`: pointers may begin at any byte, not only at multiples of their size. `threads`: None for one a
        processor. `inner`: decides which pointers to the inside of a block count as pointers to its start.
        """
        self._memory, self._blocks, self._unaligned, self._inner = memory, blocks, unaligned, inner
        self._threads = min(threads or os.cpu_count() or 1, _MAX_THREADS)
        self._start, self._end = memory.starts.astype(np.int64), memory.ends.astype(np.int64)
        self._is_user = (self._start >= 0) & (self._end > 0)  # addresses from 2^63 on are negative

    def edges(self, sources: Sources) -> Edges:
        """Every pointer in the sources."""
        if not len(sources) or not len(self._blocks):
            return Edges(np.zeros(len(sources) + 1, np.int32), np.empty(0, np.int32), sources.places.total_bytes)
        found = [self._sweep(sources, *one) for one in self._passes(sources.width)]
        if len(found) == 1:
            return found[0]
        number = np.arange(len(sources), dtype=np.int32)
        owner = np.concatenate([np.repeat(number, edges.degree) for edges in found])
        order = np.argsort(owner, kind="stable")
        degree: NDArray[np.int32] = np.stack([edges.degree for edges in found]).sum(axis=0, dtype=np.int32)
        targets = np.concatenate([edges.targets for edges in found])[order]
        return Edges.of(degree, targets, sum(edges.present_bytes for edges in found))

    def _passes(self, width: int) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
        """(address % width, file offset % width, (m,) True for memory ranges with such words) of each pass."""
        shift = (self._memory.file_offsets - self._start) % width
        for offset_shift in np.unique(shift[self._is_user]).tolist():
            for phase in range(width if self._unaligned else 1):
                yield phase, (phase + offset_shift) % width, self._is_user & (shift == offset_shift)

    def _sweep(self, sources: Sources, phase: int, file_phase: int, ranges: NDArray[np.bool_]) -> Edges:
        """The edges of one pass; `present_bytes` is counted in the pass of phase 0 only."""
        count, total = len(sources), sources.places.total_bytes
        offsets = self._memory.file_offsets - self._start - file_phase
        degree = zeros(count + 1, np.int32)
        job = _Pass(
            sources, phase, self._memory.file_words(file_phase, sources.width),
            (self._start[ranges], self._end[ranges], offsets[ranges]), degree[1:],
            total // sources.width // _WORDS_A_BLOCK,
        )  # fmt: skip
        cuts = np.unique(np.linspace(0, count, min(total // _JOB_BYTES, count) + 2).astype(np.int64)).tolist()
        first, *others = pairwise(cuts)
        found = _JoinedTargets(*self._sources(job, *first), len(cuts) - 1)  # compiles
        if not others or self._threads < 2:
            for low, high in others:
                found.add(*self._sources(job, low, high))
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for targets, present in pool.map(lambda bounds: self._sources(job, *bounds), others):
                    found.add(targets, present)
        return Edges(_firsts(degree, found.count), found.targets, found.present_bytes if phase == 0 else 0)

    def _sources(self, job: _Pass, low: int, high: int) -> tuple[NDArray[np.int32], int]:
        """(targets, present bytes) of the sources [low, high)."""
        blocks, work, width, degree = self._blocks, job.work, job.sources.width, job.degree[low:high]
        start, size = job.sources.places.part(low, high)
        begin, end, count = int(start[0]), int(start[-1] + size[-1]), high - low
        room = min(_BUFFER_WORDS, int(size.sum(dtype=np.int64)) // width + 1)
        values, owners, targets = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
        found = np.empty(room, np.int64)
        self._memory.expect(Span(end, end + self._threads * _JOB_BYTES))
        r, i, at, present_bytes, out = int(np.searchsorted(job.ranges[1], begin, side="right")), 0, 0, 0, []
        while i < count:
            many, i, at, r, seen = run(
                sweep, work, job.words, -1 if width == 8 else 0xFFFFFFFF, width, job.phase, *job.ranges, r,
                start, size, i, count, at, blocks.low, blocks.bits, values, owners,
            )  # fmt: skip
            of_map = (blocks.tops, blocks.middles, blocks.cells, blocks.shift)
            many = run(resolve, work, values, owners, many, *of_map, found, targets)
            many = blocks.places.keep(work, (found, owners, many, degree, targets))
            self._mark_starts(found[:many], targets[:many], width)
            out.append(targets[:many].copy())
            present_bytes += seen
        self._memory.forget(Span(begin, end))
        return (np.concatenate(out) if len(out) > 1 else out[0]), present_bytes

    def _mark_starts(self, values: NDArray[np.int64], targets: NDArray[np.int32], width: int) -> None:
        """Changes the targets of pointers to the inside that stand for the block, in place."""
        inside = np.flatnonzero(targets < 0) if self._inner is not None else ()
        if self._inner is not None and len(inside):
            blocks = -1 - targets[inside]
            good = self._inner.stand_for(values[inside], blocks.astype(np.int64), width)
            targets[inside[good]] = blocks[good]


class _JoinedTargets:
    """The targets of jobs, one job after the other. Memory is set aside for as many in each job as in the first."""

    def __init__(self, first: NDArray[np.int32], present_bytes: int, jobs: int) -> None:
        room = min(len(first), _MOST_EXPECTED) * jobs + _BUFFER_WORDS if jobs > 1 else 0
        self._all = empty(room, np.int32)
        self.count, self.present_bytes = 0, 0
        self.add(first, present_bytes)

    def add(self, targets: NDArray[np.int32], present_bytes: int) -> None:
        """Adds the targets of the next job, and the bytes of its sources that the dump holds."""
        end = self.count + len(targets)
        if end > len(self._all):
            self._all = resized(self._all, max(end, len(self._all) * 5 // 4))
        self._all[self.count : end] = targets
        self.count, self.present_bytes = end, self.present_bytes + present_bytes

    @property
    def targets(self) -> NDArray[np.int32]:
        """The targets of all jobs, (count,) int32."""
        return self._all[: self.count]
