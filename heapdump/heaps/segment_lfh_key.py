"""Under which structure, rule and key the LFH subsegments of a heap are read: those that fit most of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.segment_keys import keys_of, ntdll_words
from heapdump.heaps.segment_lfh import Decoded, Subsegments
from heapdump.heaps.segment_ranges import RangeKind, Ranges
from heapdump.heaps.walked import Job
from heapdump.layouts import Struct

_LOW = np.uint64(0xFFFFFFFF)
_SAMPLE, _MOST_ALIKE = 64, 8


def best_reading(job: Job, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]) -> tuple[Subsegments, Decoded] | None:
    """The subsegments of these ranges and their offsets, under the structure, rule and key that fit most of them.

    Keys come from what is known of the process, then from ntdll's words, then from what the subsegments alone allow.
    """
    if not len(rows):
        return None
    if (usual := _usual_reading(job, ranges, rows)) is not None:
        return usual
    sample = rows[:: max(1, len(rows) // _SAMPLE)]
    parts = [Subsegments(job, ranges, sample, struct) for struct in structs]
    best = _with_known_key(parts)
    for candidates in (_ntdll_keys, Subsegments.candidates):
        if 2 * best[0] > len(sample):
            break
        for part in parts:
            keys = candidates(part)
            for wide in (False, True):
                # where nothing else tells the key, only subsegments that are full to the last block do
                scores = _scores(part, keys, wide_shift=wide, is_full=candidates is Subsegments.candidates)
                if len(scores) and scores.max() > best[0] and _is_clear(part, keys[scores == scores.max()], wide_shift=wide):
                    best = (int(scores.max()), part.struct, int(keys[scores.argmax()]), wide)
    if 2 * best[0] > len(sample):
        keys_of(job.view).slots, keys_of(job.view).slot_rule = best[2], (best[1], best[3])
    else:
        best = (0, best[1], 0, False)  # nothing that holds for most of them is known: nothing is guessed
    every = Subsegments(job, ranges, rows, best[1])
    read = every.decode(best[2], wide_shift=best[3])
    return every, read if best[0] else Decoded(read.size, read.first, np.zeros(len(rows), bool))


def are_slots(job: Job, ranges: Ranges, rows: NDArray[np.int64], structs: Sequence[Struct]) -> NDArray[np.bool_]:
    """Which of these ranges begin with the header of an LFH subsegment, by the key of the process; (n,)."""
    known = keys_of(job.view)
    if known.slot_rule is None:
        best_reading(job, ranges, np.flatnonzero(ranges.kind == RangeKind.LFH), structs)
    if known.slots is None or known.slot_rule is None:
        return np.zeros(len(rows), bool)
    struct, wide = known.slot_rule
    return Subsegments(job, ranges, rows, struct).decode(known.slots, wide_shift=wide).is_good


def _usual_reading(job: Job, ranges: Ranges, rows: NDArray[np.int64]) -> tuple[Subsegments, Decoded] | None:
    """As the process' other subsegments are read, where that fits most of these too."""
    known = keys_of(job.view)
    if known.slots is None or known.slot_rule is None:
        return None
    every = Subsegments(job, ranges, rows, known.slot_rule[0])
    read = every.decode(known.slots, wide_shift=known.slot_rule[1])
    return (every, read) if 2 * int(read.is_good.sum()) > len(rows) else None


def _is_clear(part: Subsegments, keys: NDArray[np.uint64], *, wide_shift: bool) -> bool:
    """True when these keys decode all subsegments alike: few subsegments allow several keys."""
    reads = [part.decode(int(key), wide_shift=wide_shift) for key in keys[:_MOST_ALIKE].tolist()]
    alike = all((r.size == reads[0].size).all() and (r.first == reads[0].first).all() for r in reads[1:])
    return len(keys) <= _MOST_ALIKE and alike


def _with_known_key(parts: Sequence[Subsegments]) -> tuple[int, Struct, int, bool]:
    """(subsegments that the process' known key decodes, under which structure, that key, rule); 0 without one."""
    known = keys_of(parts[0].job.view).slots
    if known is None:
        return 0, parts[0].struct, 0, False
    found = [
        (int(part.decode(known, wide_shift=wide).is_good.sum()), part.struct, known, wide) for part in parts for wide in (False, True)
    ]  # fmt: skip
    return max(found, key=lambda row: row[0])


def _ntdll_keys(part: Subsegments) -> NDArray[np.uint64]:
    return np.unique(ntdll_words(part.job.process, part.job.view) & _LOW)


def _scores(part: Subsegments, candidates: NDArray[np.uint64], *, wide_shift: bool, is_full: bool) -> NDArray[np.int64]:
    """How many of the subsegments each key decodes; those that fail at the first few are not tried on."""
    scores = np.zeros(len(candidates), np.int64)
    alive = np.arange(len(candidates))
    for i in range(len(part.rows)):
        one = part.allowed(i, candidates[alive], wide_shift=wide_shift, is_full=is_full)
        scores[alive] += one
        if i >= 3:
            alive = alive[2 * scores[alive] > i]
    return scores
