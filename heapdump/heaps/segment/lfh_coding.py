"""Finds the coding of LFH subsegment headers: the structure, key and shift under which most headers hold.

Keys are tried in this order (docs/reference/heap-structures.md §6.9):

1. the key of an earlier heap of the view;
2. the words of ntdll's data;
3. keys solved from the subsegments alone.

A header is *possible* under a coding when its blocks fill the subsegment, *consistent* when all its members agree as
well (`lfh_subsegments.BlockExtents`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.keys import LfhCoding
from heapdump.heaps.segment.lfh_subsegments import BlockExtents, LfhSubsegments
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges

_STRUCT = "_HEAP_LFH_SUBSEGMENT"
_U32 = np.uint64(0xFFFFFFFF)
_SAMPLE = 64
"""The most subsegments of a heap on which keys are tried."""

_FIRST_TRIALS = 8
"""Number of subsegments after which keys that hold for none of them are dropped."""

_LEAST_CONSISTENT = 2
"""Number of headers that must be consistent under a key that was solved from subsegments."""

_CONSISTENT = 1 << 16
"""Weight of a consistent header in the score of a key; a possible one has weight 1. More than the sample has."""

LfhReading = tuple[LfhSubsegments, BlockExtents]


def read_lfh_subsegments(walk: SegmentWalk, ranges: Ranges) -> LfhReading | None:
    """The subsegments in these page ranges and their extents under the best coding; None for no ranges.

    The coding is added to the walk's keys. Where no coding holds for most subsegments, no extent is possible.
    """
    if not len(ranges.start):
        return None
    reading = _under_known_coding(walk, ranges)
    if reading is not None:
        return reading
    sample = ranges.of(slice(None, None, max(1, len(ranges.start) // _SAMPLE)))
    headers = [LfhSubsegments(walk, sample, struct) for struct in walk.structs(_STRUCT)]
    best, is_found = _best_coding(headers)
    subsegments = LfhSubsegments(walk, ranges, best.coding.struct)
    extents = subsegments.extents(best.coding)
    if not is_found:
        none = np.zeros(len(subsegments), bool)
        return subsegments, replace(extents, is_possible=none, is_consistent=none)
    walk.keys.lfh = best.coding
    walk.keys.lfh_subsegments_are_full |= 2 * best.consistent > best.possible
    return subsegments, extents


def are_lfh_subsegments(walk: SegmentWalk, ranges: Ranges, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """True for ranges `rows` that begin with the header of an LFH subsegment under the known coding; (n,)."""
    if walk.keys.lfh is None:
        read_lfh_subsegments(walk, ranges.of_kind(RangeKind.LFH))
    coding = walk.keys.lfh
    if coding is None:
        return np.zeros(len(rows), bool)
    return LfhSubsegments(walk, ranges.of(rows), coding.struct).extents(coding).is_possible


def _under_known_coding(walk: SegmentWalk, ranges: Ranges) -> LfhReading | None:
    """The result under the coding of an earlier heap, if one header is consistent or most are possible; else None."""
    coding = walk.keys.lfh
    if coding is None:
        return None
    subsegments = LfhSubsegments(walk, ranges, coding.struct)
    extents = subsegments.extents(coding)
    holds = extents.is_consistent.any() or 2 * int(extents.is_possible.sum()) > len(subsegments)
    return (subsegments, extents) if holds else None


@dataclass(frozen=True, slots=True)
class _ScoredCoding:
    """A coding, and how many headers of the sample are consistent and possible under it."""

    coding: LfhCoding
    consistent: int
    possible: int

    @property
    def score(self) -> tuple[int, int]:
        """(weighted number of consistent headers, number of possible headers); the larger is better."""
        return self.consistent, self.possible


def _best_coding(headers: Sequence[LfhSubsegments]) -> tuple[_ScoredCoding, bool]:
    """(the best coding, whether it is believed). `headers`: the sample under each structure, the likeliest first.

    A coding is believed where most headers are possible under it. Less evidence is enough in two cases: one consistent
    header for a key that is stored elsewhere in the process; two for a key that was solved, if no other key was found,
    because a key solved from a damaged header may fit a second header by chance. Such a key may also make most headers
    possible. So keys of other subsegments are tried until most headers are consistent.
    """
    count = len(headers[0])
    best = _ScoredCoding(LfhCoding(headers[0].struct, 0, shifts_first=False), 0, 0)
    for keys_of, stands_elsewhere in _SOURCES:
        for one in headers:
            keys = keys_of(one)
            for shifts_first in (False, True):
                best = max(best, _best_key(one, keys, shifts_first=shifts_first), key=lambda found: found.score)
            if best.consistent == count:
                break
        if 2 * best.consistent > count or (stands_elsewhere and (best.consistent or 2 * best.possible > count)):
            return best, True
    return best, 2 * best.possible > count or best.consistent >= _LEAST_CONSISTENT


def _best_key(headers: LfhSubsegments, keys: NDArray[np.uint64], *, shifts_first: bool) -> _ScoredCoding:
    """The key with the best score; with score 0 where several have the same."""
    score, alive = np.zeros(len(keys), np.int64), np.arange(len(keys))
    for i in range(len(headers)):
        extents = headers.extents_under(i, keys[alive], shifts_first=shifts_first)
        score[alive] += extents.is_possible.astype(np.int64) + extents.is_consistent * _CONSISTENT
        if i == _FIRST_TRIALS - 1:
            alive = alive[score[alive] > 0]
    best = np.flatnonzero(score == score.max(initial=0))
    if len(best) != 1:
        return _ScoredCoding(LfhCoding(headers.struct, 0, shifts_first), 0, 0)
    consistent, possible = divmod(int(score[best[0]]), _CONSISTENT)
    return _ScoredCoding(LfhCoding(headers.struct, int(keys[best[0]]), shifts_first), consistent, possible)


def _known_keys(headers: LfhSubsegments) -> NDArray[np.uint64]:
    """The key of an earlier heap; (1,), or (0,) without one."""
    coding = headers.walk.keys.lfh
    return np.array([] if coding is None else [coding.key], np.uint64)


def _ntdll_keys(headers: LfhSubsegments) -> NDArray[np.uint64]:
    """The low 32 bits of ntdll's words; (n,), ascending."""
    return np.unique(headers.walk.keys.ntdll_words & _U32)


_SOLVED_FROM = 8
"""Number of subsegments, evenly spread over the sample, from which keys are solved, one after the other."""

_SOURCES: tuple[tuple[Callable[[LfhSubsegments], NDArray[np.uint64]], bool], ...] = (
    (_known_keys, True),
    (_ntdll_keys, True),
    *((partial(LfhSubsegments.possible_keys, share=turn / (_SOLVED_FROM - 1)), False) for turn in range(_SOLVED_FROM)),
)
"""(source of keys, True where the key is stored outside the subsegments; other keys need a second witness)."""
