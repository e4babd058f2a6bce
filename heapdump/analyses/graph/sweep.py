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

from heapdump.analyses.graph.pointer_map import Integers, PointerMap
from heapdump.kernels import run
from heapdump.kernels.pointer_map import resolve, sweep
from heapdump.memory.space import AddressSpace
from heapdump.spans import Span

_MAX_THREADS = 8
_ROOM = 1 << 16
"""Pointers that a thread finds before it puts them away."""

_A_SHARE = 16 << 20
"""Bytes of memory in a part that one thread sweeps at once."""

_MANY = 1 << 19
"""Pointers in such a part, more than which are not expected in the others, too."""

_PIECE = 1 << 20
"""Sources whose numbers of pointers are held at once."""

_WORDS_A_BLOCK = 8
"""So many words are about as much work as the walk of one block."""


@dataclass(frozen=True)
class Edges:
    """Pointers by source: those of source i are `targets[first[i]:first[i + 1]]`, int32: block, or -1 - block where not to its start.

    `first` (n + 1,) int32, or int64 where that does not do. `held`: so many bytes of the sources are in the dump.
    """

    first: NDArray[np.int32] | NDArray[np.int64]
    targets: NDArray[np.int32]
    held: int

    @classmethod
    def of(cls, degree: NDArray[np.integer], targets: NDArray[np.int32], held: int = 0) -> Edges:
        """`degree`: so many pointers of each source."""
        return cls(
            _starts(np.concatenate([np.zeros(1, np.int32), degree.astype(np.int32)]), len(targets)), targets, held
        )

    @property
    def degree(self) -> NDArray[np.int32] | NDArray[np.int64]:
        """So many pointers of each source, (n,); made anew each time."""
        return np.diff(self.first)

    @property
    def widest(self) -> int:
        """The most pointers of one source; 0 without sources."""
        parts = range(0, len(self.first) - 1, _PIECE)
        return max((int(np.diff(self.first[low : low + _PIECE + 1]).max()) for low in parts), default=0)


def _starts(degree: NDArray[np.int32], many: int) -> NDArray[np.int32] | NDArray[np.int64]:
    """Sums of `degree`, which becomes them where they fit: its memory was touched before."""
    if many >= 1 << 31:
        return np.cumsum(degree, dtype=np.int64)
    np.cumsum(degree, out=degree)
    return degree


@dataclass(frozen=True)
class Sources:
    """Memory that may hold pointers of `width` bytes: `start`, `size` (n,) in bytes, ascending by start."""

    start: NDArray[np.int64]
    size: Integers
    width: int


class Sweeper:
    """Sweeps memory of one dump for pointers into the blocks of a map."""

    def __init__(
        self, space: AddressSpace, blocks: PointerMap, *, unaligned: bool = False, threads: int | None = None
    ) -> None:
        """`unaligned`: pointers may begin at any byte, else at multiples of their size. `threads`: None: one a processor."""
        self._space, self._blocks, self._unaligned = space.mapped, blocks, unaligned
        self._threads = min(threads or os.cpu_count() or 1, _MAX_THREADS)
        self._start, self._end = (
            space.mapped.starts.astype(np.int64),
            space.mapped.ends.astype(np.int64),
        )  # above 2^63: negative, held apart
        self._user = (self._start >= 0) & (self._end > 0)

    def edges(self, sources: Sources) -> Edges:
        """Every pointer in the sources."""
        if not len(sources.start) or not len(self._blocks.start):
            return Edges(
                np.zeros(len(sources.start) + 1, np.int32), np.empty(0, np.int32), int(sources.size.sum(dtype=np.int64))
            )
        found = [self._pass(sources, *one) for one in self._passes(sources.width)]
        if len(found) == 1:
            return found[0]
        number = np.arange(len(sources.start), dtype=np.int32)
        owner = np.concatenate([np.repeat(number, edges.degree) for edges in found])
        order = np.argsort(owner, kind="stable")
        degree: NDArray[np.int32] = np.stack([edges.degree for edges in found]).sum(axis=0, dtype=np.int32)
        return Edges.of(
            degree, np.concatenate([edges.targets for edges in found])[order], sum(edges.held for edges in found)
        )

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
        degree = np.zeros(len(sources.start) + 1, np.int32)
        total = int(sources.size.sum(dtype=np.int64))
        cuts = np.unique(
            np.linspace(0, len(sources.start), min(total // _A_SHARE, len(sources.start)) + 2).astype(np.int64)
        ).tolist()
        work = total // sources.width // _WORDS_A_BLOCK
        jobs = [(sources, work, phase, words, columns, degree[1:], low, high) for low, high in pairwise(cuts)]
        first, *others = jobs
        found = _Joined(*self._part(*first), len(jobs))  # compiles
        if not others or self._threads < 2:
            for job in others:
                found.add(*self._part(*job))
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for part in pool.map(lambda job: self._part(*job), others):
                    found.add(*part)
        return Edges(_starts(degree, found.many), found.targets, found.held if phase == 0 else 0)

    def _part(
        self, sources: Sources, work: int, phase: int, words: NDArray[np.int64], columns: tuple[NDArray[np.int64], ...],
        degree: NDArray[np.int32], i: int, until: int,
    ) -> tuple[NDArray[np.int32], int]:  # fmt: skip
        """(the targets of the sources number `i` up to `until`, bytes of them in these ranges). `work`: of the whole pass, in blocks."""
        blocks, width, begin = self._blocks, sources.width, int(sources.start[i])
        end, words_in = (
            int(sources.start[until - 1] + sources.size[until - 1]),
            int(sources.size[i:until].sum(dtype=np.int64)) // width,
        )
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


class _Joined:
    """The targets of parts, put behind each other as they come: memory is set aside for about as many in each part."""

    def __init__(self, first: NDArray[np.int32], held: int, parts: int) -> None:
        self._all = np.empty(min(len(first), _MANY) * parts + _ROOM if parts > 1 else 0, np.int32)
        self.many, self.held = 0, 0
        self.add(first, held)

    def add(self, part: NDArray[np.int32], held: int) -> None:
        """The targets of the next part, and the bytes it holds."""
        if self.many + len(part) > len(self._all):
            self._all.resize(max(self.many + len(part), len(self._all) * 5 // 4), refcheck=False)
        self._all[self.many : self.many + len(part)] = part
        self.many, self.held = self.many + len(part), self.held + held

    @property
    def targets(self) -> NDArray[np.int32]:
        """All of them."""
        return self._all[: self.many]
