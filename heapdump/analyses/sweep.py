"""Finds every pointer into a block in given memory: the edges of the pointer graph.

The file is read where it lies, by several threads, each through neighbouring sources; what was swept is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.pointer_map import PointerMap
from heapdump.kernels import run
from heapdump.kernels.pointers import sweep
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_MAX_THREADS = 8
_ROOM = 1 << 20
"""Pointers that a thread finds before it puts them away."""

_A_SHARE = 16 << 20
"""Bytes of memory in a part that one thread sweeps at once."""

_WORDS_A_BLOCK = 8
"""So many words are about as much work as the walk of one block."""


@dataclass(frozen=True)
class Edges:
    """Pointers by source, `degree` (n,) int32 of each; `targets` int32: block, or -1 - block where not to its start."""

    degree: NDArray[np.int32]
    targets: NDArray[np.int32]

    @property
    def first(self) -> NDArray[np.int64]:
        """Where in `targets` each source's begin; (n + 1,) int64."""
        out = np.zeros(len(self.degree) + 1, np.int64)
        np.cumsum(self.degree, out=out[1:])
        return out


@dataclass(frozen=True)
class Sources:
    """Memory that may hold pointers of `width` bytes: `start`, `size` (n,) int64 in bytes, ascending by start."""

    start: NDArray[np.int64]
    size: NDArray[np.int64]
    width: int


class Sweeper:
    """Sweeps memory of one dump for pointers into the blocks of a map."""

    def __init__(self, space: AddressSpace, blocks: PointerMap, *, unaligned: bool = False, threads: int | None = None) -> None:
        """`unaligned`: pointers may begin at any byte, else at multiples of their size. `threads`: None: one a processor."""
        self._space, self._blocks, self._unaligned = space, blocks, unaligned
        self._threads = min(threads or os.cpu_count() or 1, _MAX_THREADS)
        self._start, self._end = space.starts.astype(np.int64), space.ends.astype(np.int64)  # above 2^63: negative, held apart
        self._user = (self._start >= 0) & (self._end > 0)

    def edges(self, sources: Sources) -> Edges:
        """Every pointer in the sources."""
        if not len(sources.start) or not len(self._blocks.start):
            return Edges(np.zeros(len(sources.start), np.int32), np.empty(0, np.int32))
        found = [self._pass(sources, *one) for one in self._passes(sources.width)]
        if len(found) == 1:
            return found[0]
        number = np.arange(len(sources.start), dtype=np.int32)
        owner = np.concatenate([np.repeat(number, edges.degree) for edges in found])
        order = np.argsort(owner, kind="stable")
        return Edges(np.sum([edges.degree for edges in found], axis=0, dtype=np.int32), np.concatenate([edges.targets for edges in found])[order])

    def _passes(self, width: int) -> Iterator[tuple[int, int, NDArray[np.bool_]]]:
        """(remainder of addresses, of file offsets, ranges): words of a pass lie at multiples of `width` behind those."""
        shift = (self._space.file_offsets - self._start) % width
        for way in np.unique(shift[self._user]).tolist():
            for phase in range(width if self._unaligned else 1):
                yield phase, (phase + way) % width, self._user & (shift == way)

    def _pass(self, sources: Sources, phase: int, place: int, ranges: NDArray[np.bool_]) -> Edges:
        words = self._space.file_words(place, sources.width)
        delta = self._space.file_offsets - self._start - place
        columns = (self._start[ranges], self._end[ranges], delta[ranges])
        degree = np.zeros(len(sources.start), np.int32)
        cuts = self._cuts(sources)
        jobs = [(sources, phase, words, columns, degree, low, high) for low, high in pairwise(cuts)]
        if len(jobs) < 2 or self._threads < 2:
            parts = [self._part(*job) for job in jobs]
        else:
            parts = [self._part(*jobs[0])]  # compiles
            with ThreadPoolExecutor(self._threads) as pool:
                parts += pool.map(lambda job: self._part(*job), jobs[1:])
        return Edges(degree, np.concatenate(parts))

    def _cuts(self, sources: Sources) -> list[int]:
        """Numbers of sources between which there are about `_A_SHARE` bytes each, from 0 to all."""
        ends = np.cumsum(sources.size)
        total = int(ends[-1])
        marks = np.searchsorted(ends, np.arange(_A_SHARE, total, _A_SHARE))
        cuts: list[int] = np.unique(np.concatenate([[0], marks, [len(ends)]])).tolist()
        return cuts

    def _part(
        self, sources: Sources, phase: int, words: NDArray[np.int64], columns: tuple[NDArray[np.int64], ...],
        degree: NDArray[np.int32], i: int, until: int,
    ) -> NDArray[np.int32]:  # fmt: skip
        """The targets of the sources number `i` up to `until`."""
        blocks, width, begin = self._blocks, sources.width, int(sources.start[i])
        end, words_in = int(sources.start[until - 1] + sources.size[until - 1]), int(sources.size[i:until].sum()) // width
        work = int(sources.size.sum()) // width // _WORDS_A_BLOCK
        room = np.empty(min(_ROOM, words_in + 1), np.int32)
        r, at, out = int(np.searchsorted(columns[1], begin, side="right")), 0, []
        while i < until:
            count, i, at, r = run(
                sweep, work, words, -1 if width == 8 else 0xFFFFFFFF, width, phase, *columns, r, sources.start, sources.size,
                i, until, at, blocks.tops, blocks.middles, blocks.cells, blocks.shift, blocks.low, blocks.high,
                blocks.start, blocks.size, degree, room,
            )  # fmt: skip
            out.append(room[:count].copy())
        self._space.forget(Span(begin, end))
        return np.concatenate(out) if len(out) > 1 else out[0]
