"""Finds every pointer into a block in given memory: the edges of the pointer graph.

The file is read where it lies, by several threads, each through neighbouring sources; what comes next is read ahead, what
was swept is forgotten.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from heapdump.analyses.pointer_map import Integers, PointerMap
from heapdump.kernels import run
from heapdump.kernels.pointers import resolve, sweep
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_MAX_THREADS = 8
_ROOM = 1 << 16
"""Pointers that a thread finds before it puts them away."""

_A_SHARE = 16 << 20
"""Bytes of memory in a part that one thread sweeps at once."""

_WORDS_A_BLOCK = 8
"""So many words are about as much work as the walk of one block."""


@dataclass(frozen=True)
class Edges:
    """Pointers by source, `degree` (n,) int32 of each; `targets` int32: block, or -1 - block where not to its start.

    `held`: so many bytes of the sources are in the dump.
    """

    degree: NDArray[np.int32]
    targets: NDArray[np.int32]
    held: int

    @property
    def first(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """Where in `targets` each source's begin; (n + 1,) int32, or int64 where that does not do."""
        if len(self.targets) >= 1 << 31:
            return np.concatenate([[0], np.cumsum(self.degree, dtype=np.int64)])
        out = np.zeros(len(self.degree) + 1, np.int32)
        np.cumsum(self.degree, out=out[1:])
        return out


@dataclass(frozen=True)
class Sources:
    """Memory that may hold pointers of `width` bytes: `start`, `size` (n,) in bytes, ascending by start."""

    start: NDArray[np.int64]
    size: Integers
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
            return Edges(np.zeros(len(sources.start), np.int32), np.empty(0, np.int32), int(sources.size.sum(dtype=np.int64)))
        found = [self._pass(sources, *one) for one in self._passes(sources.width)]
        if len(found) == 1:
            return found[0]
        number = np.arange(len(sources.start), dtype=np.int32)
        owner = np.concatenate([np.repeat(number, edges.degree) for edges in found])
        order = np.argsort(owner, kind="stable")
        degree: NDArray[np.int32] = np.stack([edges.degree for edges in found]).sum(axis=0, dtype=np.int32)
        return Edges(degree, np.concatenate([edges.targets for edges in found])[order], sum(edges.held for edges in found))

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
        total = int(sources.size.sum(dtype=np.int64))
        cuts = np.unique(np.linspace(0, len(sources.start), min(total // _A_SHARE, len(sources.start)) + 2).astype(np.int64)).tolist()
        work = total // sources.width // _WORDS_A_BLOCK
        jobs = [(sources, work, phase, words, columns, degree, low, high) for low, high in pairwise(cuts)]
        if len(jobs) < 2 or self._threads < 2:
            parts = [self._part(*job) for job in jobs]
        else:
            parts = [self._part(*jobs[0])]  # compiles
            with ThreadPoolExecutor(self._threads) as pool:
                parts += pool.map(lambda job: self._part(*job), jobs[1:])
        held = sum(count for _, count in parts) if phase == 0 else 0
        return Edges(degree, np.concatenate([targets for targets, _ in parts]), held)

    def _part(
        self, sources: Sources, work: int, phase: int, words: NDArray[np.int64], columns: tuple[NDArray[np.int64], ...],
        degree: NDArray[np.int32], i: int, until: int,
    ) -> tuple[NDArray[np.int32], int]:  # fmt: skip
        """(the targets of the sources number `i` up to `until`, bytes of them in these ranges). `work`: of the whole pass, in blocks."""
        blocks, width, begin = self._blocks, sources.width, int(sources.start[i])
        end, words_in = int(sources.start[until - 1] + sources.size[until - 1]), int(sources.size[i:until].sum(dtype=np.int64)) // width
        room = min(_ROOM, words_in + 1)
        values, owners, targets = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, np.int32)
        found = np.empty(room, np.int64)
        self._space.expect(Span(end, end + self._threads * _A_SHARE))
        r, at, held, out = int(np.searchsorted(columns[1], begin, side="right")), 0, 0, []
        while i < until:
            many, i, at, r, seen = run(
                sweep, work, words, -1 if width == 8 else 0xFFFFFFFF, width, phase, *columns, r, sources.start, sources.size,
                i, until, at, blocks.low, blocks.bits, values, owners,
            )  # fmt: skip
            of_map = (blocks.tops, blocks.middles, blocks.cells, blocks.shift, blocks.start, blocks.size)
            count = run(resolve, work, values, owners, many, *of_map, found, degree, targets)
            out.append(targets[:count].copy())
            held += seen
        self._space.forget(Span(begin, end))
        return (np.concatenate(out) if len(out) > 1 else out[0]), held

