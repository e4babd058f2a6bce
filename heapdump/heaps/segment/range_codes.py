"""Finds the codes of LFH and VS subsegments in the flags of page descriptors, and gives ranges their kinds.

The bits of RangeFlags above *in use* and *first unit* are a code of the kind (docs/reference/heap-structures.md §6.3):
LFH and VS have 2 and 3 from 17134 on, 1 and 2 on 16299 and, as separate bits, up to 15063. For other builds the
contents of the ranges decide. A VS subsegment has a signature, and its chunks end one unit before its range. An LFH
subsegment has a number of blocks from which the place of its commit states follows. Neither test needs a key.
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
"""The most ranges of one code whose contents are tested."""

_WITNESSES = 2
"""Other codes than the usual ones are taken where this many more ranges fit them."""


def with_kinds(walk: SegmentWalk, ranges: Ranges) -> Ranges:
    """The ranges with the kinds of their codes; INTERNAL for an unknown code.

    The codes are added to the walk's keys, for later heaps of the view.
    """
    codes = _codes(walk, ranges)
    kind, is_coded = ranges.kind.copy(), ranges.code > 0
    kind[is_coded] = RangeKind.INTERNAL
    kind[ranges.code == codes.lfh] = RangeKind.LFH
    kind[ranges.code == codes.vs] = RangeKind.VS
    return replace(ranges, kind=kind)


def _codes(walk: SegmentWalk, ranges: Ranges) -> RangeCodes:
    """The codes that most subsegments fit; those of an earlier heap, or the usual ones, unless _WITNESSES more fit."""
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
    """((8,) number of ranges of each code that begin as an LFH subsegment; (8,) as a VS subsegment)."""
    rows = np.concatenate([_sample(np.flatnonzero(ranges.code == code)) for code in _ALL_CODES])
    code = ranges.code[rows]
    is_vs = are_vs_subsegments(walk, ranges, rows) & (ranges.unused[rows] == ranges.unit[rows])
    is_lfh = _are_lfh_headers(walk, ranges.of(rows)) & (ranges.unused[rows] == 0) & ~is_vs
    size = len(_ALL_CODES) + 1
    return np.bincount(code[is_lfh], minlength=size), np.bincount(code[is_vs], minlength=size)


def _sample(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    return rows[:: max(1, len(rows) // _SAMPLE)]


def _are_lfh_headers(walk: SegmentWalk, ranges: Ranges) -> NDArray[np.bool_]:
    """True for ranges that begin with an LFH header whose members, as far as they are plain, agree; (n,)."""
    headers = (LfhSubsegments(walk, ranges, struct) for struct in walk.structs("_HEAP_LFH_SUBSEGMENT"))
    agree: NDArray[np.bool_] = np.any([one.members_agree() for one in headers], axis=0)
    return agree
