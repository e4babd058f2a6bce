"""The codes that page descriptors use for LFH and VS subsegments, which builds number differently.

In: page ranges with the code of their flags. Out: the same ranges with their kinds. The bits of RangeFlags behind *in use*
and *first unit* name the kind: 2 and 3 from 17134 on, 1 and 2 on 16299 and, as bits of their own, up to 15063
(docs/reference/heap-structures.md §6.3). A build may number them otherwise again: the ranges themselves tell. A VS subsegment
has a signature, and its chunks end one unit before its range; an LFH subsegment has a number of blocks from which the place
of its commit states follows. Neither needs a key.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.context import SegmentWalk
from heapdump.heaps.segment.keys import RangeCodes
from heapdump.heaps.segment.lfh_subsegments import LfhSubsegments
from heapdump.heaps.segment.padding import writes_padding_header
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.heaps.segment.vs_subsegments import are_vs_subsegments

_EARLY, _LATE = RangeCodes(1, 2), RangeCodes(2, 3)
_ALL_CODES = range(1, 8)
_SAMPLE = 256
"""Ranges of a code that are looked into."""

_WITNESSES = 2
"""Ranges that must speak for other codes more than for the usual ones."""


def with_kinds(walk: SegmentWalk, ranges: Ranges) -> Ranges:
    """The ranges with the kinds that their codes stand for; INTERNAL for a code that stands for none.

    The codes become part of the walk's keys: they hold for the later heaps of the view.
    """
    codes = _codes(walk, ranges)
    kind, is_coded = ranges.kind.copy(), ranges.code > 0
    kind[is_coded] = RangeKind.INTERNAL
    kind[ranges.code == codes.lfh] = RangeKind.LFH
    kind[ranges.code == codes.vs] = RangeKind.VS
    return replace(ranges, kind=kind)


def _codes(walk: SegmentWalk, ranges: Ranges) -> RangeCodes:
    """The codes for which most subsegments speak; without two witnesses more those of an earlier heap, or the usual ones."""
    lfh, vs = _witnesses(walk, ranges)
    usual = walk.keys.range_codes or (_LATE if writes_padding_header(walk.layout) else _EARLY)
    tried = [usual, _LATE, _EARLY, *(RangeCodes(*pair) for pair in permutations(_ALL_CODES, 2))]
    best = max(tried, key=lambda codes: int(lfh[codes.lfh] + vs[codes.vs]))
    most = int(lfh[best.lfh] + vs[best.vs])
    if most - int(lfh[usual.lfh] + vs[usual.vs]) < _WITNESSES:
        best = usual
    if most >= _WITNESSES:
        walk.keys.range_codes = best
    return best


def _witnesses(walk: SegmentWalk, ranges: Ranges) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(ranges that begin as an LFH subsegment, as a VS subsegment) of each code; (8,) each."""
    rows = np.concatenate([_sample(np.flatnonzero(ranges.code == code)) for code in _ALL_CODES])
    code = ranges.code[rows]
    is_vs = are_vs_subsegments(walk, ranges, rows) & (ranges.unused[rows] == ranges.unit[rows])
    is_lfh = _are_lfh_headers(walk, ranges.of(rows)) & (ranges.unused[rows] == 0) & ~is_vs
    size = len(_ALL_CODES) + 1
    return np.bincount(code[is_lfh], minlength=size), np.bincount(code[is_vs], minlength=size)


def _sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[:: max(1, len(rows) // _SAMPLE)]


def _are_lfh_headers(walk: SegmentWalk, ranges: Ranges) -> NDArray[np.bool_]:
    """Which of the ranges begin with a header whose members agree, as far as they are not encoded; (n,)."""
    headers = (LfhSubsegments(walk, ranges, struct) for struct in walk.structs("_HEAP_LFH_SUBSEGMENT"))
    agree: NDArray[np.bool_] = np.any([one.members_agree() for one in headers], axis=0)
    return agree
