"""Under which structure, rule and key the LFH subsegments of a heap are read: those that fit most of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment.keys import SegmentHeapJob
from heapdump.heaps.segment.lfh_subsegments import Decoded, Subsegments
from heapdump.heaps.segment.page_ranges import RangeKind, Ranges
from heapdump.layouts import Struct

_LOW = np.uint64(0xFFFFFFFF)
_SAMPLE, _TRIED = 64, 7
_WHOLE = 1 << 16


def best_reading(
    job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]
) -> tuple[Subsegments, Decoded] | None:
    """The subsegments of these ranges and their offsets, under the structure, rule and key that fit most of them.

    Keys come from what is known of the process, then from ntdll's words, then from what the subsegments alone allow:
    those tell it where two agree.
    """
    if not len(rows):
        return None
    if (usual := _usual_reading(job, ranges, rows)) is not None:
        return usual
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    parts = [Subsegments(job, ranges, sample, struct) for struct in structs]
    best = _Reading(0, 0, parts[0].struct, 0, is_wide=False)
    for candidates, least in _SOURCES:
        for part in parts:
            keys = candidates(part)
            for wide in (False, True):
                best = max(
                    best, _best_key(part, keys, wide_shift=wide), key=lambda reading: (reading.whole, reading.good)
                )
            if best.whole == len(sample):
                break
        if best.whole >= least or 2 * best.good > len(sample):
            break
    else:  # nothing that holds for most of them is known: nothing is guessed
        read = Subsegments(job, ranges, rows, best.struct)
        nothing = read.decode(0, wide_shift=False)
        return read, replace(nothing, is_good=nothing.is_good & False, is_whole=nothing.is_whole & False)
    known = job.keys
    known.slots, known.slot_rule = best.key, (best.struct, best.is_wide)
    known.has_full_slots |= 2 * best.whole > best.good
    every = Subsegments(job, ranges, rows, best.struct)
    return every, every.decode(best.key, wide_shift=best.is_wide)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One way to read subsegments: how many of them are `whole` under it and how many `good`, its key and rules."""

    whole: int
    good: int
    struct: Struct
    key: int
    is_wide: bool


def _best_key(part: Subsegments, keys: NDArray[np.uint64], *, wide_shift: bool) -> _Reading:
    """The key that decodes most of the subsegments; none where several decode as many."""
    score, alive = np.zeros(len(keys), np.int64), np.arange(len(keys))
    for i in range(len(part.rows)):
        read = part.allowed(i, keys[alive], wide_shift=wide_shift)
        score[alive] += read.is_good.astype(np.int64) + read.is_whole * _WHOLE
        if i == _TRIED:
            alive = alive[score[alive] > 0]
    best = np.flatnonzero(score == score.max(initial=0))
    if len(best) != 1:
        return _Reading(0, 0, part.struct, 0, is_wide=wide_shift)
    whole, good = divmod(int(score[best[0]]), _WHOLE)
    return _Reading(whole, good, part.struct, int(keys[best[0]]), is_wide=wide_shift)


def are_slots(
    job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]
) -> NDArray[np.bool_]:
    """Which of these ranges begin with the header of an LFH subsegment, by the key of the process; (n,)."""
    known = job.keys
    if known.slot_rule is None:
        best_reading(job, ranges, np.flatnonzero(ranges.kind == RangeKind.LFH), structs)
    if known.slots is None or known.slot_rule is None:
        return np.zeros(len(rows), bool)
    struct, wide = known.slot_rule
    return Subsegments(job, ranges, rows, struct).decode(known.slots, wide_shift=wide).is_good


def _usual_reading(job: SegmentHeapJob, ranges: Ranges, rows: NDArray[np.int64]) -> tuple[Subsegments, Decoded] | None:
    """As the process' other subsegments are read, where that fits one of these beyond doubt, or most of them."""
    known = job.keys
    if known.slots is None or known.slot_rule is None:
        return None
    every = Subsegments(job, ranges, rows, known.slot_rule[0])
    read = every.decode(known.slots, wide_shift=known.slot_rule[1])
    return (every, read) if read.is_whole.any() or 2 * int(read.is_good.sum()) > len(rows) else None


def _known_key(part: Subsegments) -> NDArray[np.uint64]:
    known = part.job.keys.slots
    return np.array([] if known is None else [known & 0xFFFFFFFF], np.uint64)


def _ntdll_keys(part: Subsegments) -> NDArray[np.uint64]:
    return np.unique(part.job.keys.ntdll_words & _LOW)


_SOLVED = tuple((partial(Subsegments.candidates, part=turn / 7), 2) for turn in range(8))
_SOURCES: tuple[tuple[Callable[[Subsegments], NDArray[np.uint64]], int], ...] = (
    (_known_key, 1),
    (_ntdll_keys, 1),
    *_SOLVED,
)
"""Where keys come from, and how many subsegments must fit one exactly; the next is asked where that does not tell it."""
