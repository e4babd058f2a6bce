"""The blocks of LFH subsegments of a segment heap: bitmaps without block headers (heap-structures.md §6.5).

Folklore, from recorded dumps: block size and first offset are XORed with the low 32 bits of the subsegment's address
shifted by 12; 26100 takes 32 bits of the shifted address instead. Since 26100 the bitmap has the busy bits of 32 blocks
and then their other bits, and freed blocks wait on a list of block numbers in the subsegment whose busy bits stay set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.blocks.records import Trust
from heapdump.blocks.table import BlockKind, doubt, tag
from heapdump.heaps.segment_keys import keys_of, ntdll_words
from heapdump.heaps.segment_memory import Batch, batches, doubt_missing
from heapdump.heaps.segment_ranges import Ranges
from heapdump.heaps.walked import Job
from heapdump.kernels import run, slots
from heapdump.layouts import Struct

_LOW, _HALF = np.uint64(0xFFFFFFFF), np.uint64(0xFFFF)
_SAMPLE, _MOST_ALIKE = 64, 8
_MOST_FIRST = 0x400
_MOST_BLOCKS, _MANY_BLOCKS = 0x8000, 0x400
_BATCH_ROWS = 1 << 18


@dataclass(frozen=True, slots=True)
class Decoded:
    """Offsets of subsegments as one key and rule decode them; (n,) each. `is_good`: they can be true."""

    size: NDArray[np.int64]
    first: NDArray[np.int64]
    is_good: NDArray[np.bool_]


class Subsegments:
    """LFH subsegments of a heap as one build has them; (n,) arrays."""

    def __init__(self, job: Job, ranges: Ranges, rows: NDArray[np.int64], struct: Struct) -> None:
        """`rows`: their page ranges; nothing is decoded yet."""
        self.job, self.struct, self.rows = job, struct, rows
        self.start, self.bytes = ranges.start[rows], ranges.size[rows]
        self._words: dict[int, tuple[NDArray[np.uint64], NDArray[np.bool_]]] = {}
        self.offsets, self.there = self._gather("BlockOffsets", 4)
        count, _ = self._gather("BlockCount", 2)
        withheld = self._gather("WitheldBlockCount", 1)[0] if "WitheldBlockCount" in struct else np.uint64(0)
        self.count = (count + withheld).astype(np.int64)
        self.has_list = "State" in struct
        free = self._gather("FreeCount", 2)[0].astype(np.int64)
        # whether withheld blocks count as free is not known: no recorded subsegment had one
        self.stated = np.where(self.has_list | (withheld > 0), -1, free)
        state = self._gather("State", 4)[0] if self.has_list else np.zeros(len(rows), np.uint64)
        self.list, self.freed = (state & _HALF).astype(np.int64), (state >> np.uint64(16)).astype(np.int64)
        self.commit_end: NDArray[np.int64] | None = None
        if "CommitStateOffset" in struct:
            # 26100 counts words there, others bytes
            wide = struct.fields["CommitStateOffset"].type == "u16"
            states = self._gather("CommitStateOffset", 2)[0] if wide else self._gather("CommitStateOffset", 1)[0] * np.uint64(8)
            self.commit_end = (states + self._gather("CommitUnitCount", 1)[0] * np.uint64(2)).astype(np.int64)
        self.span = 4 * job.view.pointer_bytes if self.has_list else 0

    @property
    def bitmap_bytes(self) -> NDArray[np.int64]:
        """Bytes of each bitmap, whole words."""
        bits = -(-self.count // self.span) * 2 * self.span if self.span else 2 * self.count
        return -(-bits // 64) * 8

    def _gather(self, name: str, size: int) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
        """A member of each header; members of one 8-byte word are read together."""
        place = self.struct.offset(name)
        word = place // 8 * 8
        if word not in self._words:
            self._words[word] = self.job.view.space.gather((self.start + word).astype(np.uint64), 8)
        values, there = self._words[word]
        return values >> np.uint64((place - word) * 8) & np.uint64((1 << 8 * size) - 1), there

    def decode(self, key: int, *, wide_shift: bool) -> Decoded:
        """Offsets under a key. `wide_shift`: the rule of 26100."""
        return self._fit(np.uint64(key & 0xFFFFFFFF), slice(None), wide_shift=wide_shift)

    def allowed(self, i: int, keys: NDArray[np.uint64], *, wide_shift: bool, is_full: bool) -> NDArray[np.bool_]:
        """Which of some keys subsegment `i` allows; `is_full`: it has no room for another block."""
        read = self._fit(keys, slice(i, i + 1), wide_shift=wide_shift)
        if not is_full:
            return read.is_good
        rest = self.bytes[i] - read.first - read.size * self.count[i]
        good: NDArray[np.bool_] = read.is_good & (rest < read.size)
        if self.commit_end is not None:
            # blocks begin right behind the commit states, on 26100 those of 2^n bytes on such a boundary (recorded dumps)
            step = np.where(read.size & (read.size - 1), self.job.view.granularity, np.maximum(read.size, 1))
            least = -(-self.commit_end[i] // self.job.view.granularity) * self.job.view.granularity
            good &= (read.first == least) | (read.first == -(-self.commit_end[i] // step) * step)
        return good

    def _fit(self, key: NDArray[np.uint64] | np.uint64, part: slice, *, wide_shift: bool) -> Decoded:
        address, count = self.start[part].astype(np.uint64), self.count[part]
        shifted = (address >> np.uint64(12)) & _LOW if wide_shift else (address & _LOW) >> np.uint64(12)
        plain = (self.offsets[part] ^ key ^ shifted) & _LOW
        size, first = (plain & _HALF).astype(np.int64), (plain >> np.uint64(16)).astype(np.int64)
        granule = self.job.view.granularity
        behind_bits = self.struct.offset("BlockBitmap") + -(-count // 4)
        good = (size > 0) & (size % granule == 0) & (first % granule == 0) & (first >= behind_bits)
        good &= (count > 0) & (count <= _MOST_BLOCKS) & self.there[part]
        rest = self.bytes[part] - first - size * count
        # blocks fill the subsegment: what is left is less than one more, however their number was rounded
        good &= (rest >= 0) & (rest < size + granule + _MOST_FIRST)
        many = count > _MANY_BLOCKS
        return Decoded(size, first, good & (~many | self._is_there(part)) if many.any() else good)

    def _is_there(self, part: slice) -> NDArray[np.bool_]:
        """A quarter of a subsegment is in the dump: one with very many blocks must not stand for memory that is not."""
        start, size = self.start[part].astype(np.uint64), self.bytes[part].astype(np.uint64)
        there: NDArray[np.bool_] = self.job.view.space.bytes_present(start, start + size) * np.uint64(4) >= size
        return there

    def candidates(self) -> NDArray[np.uint64]:
        """Low halves of keys that the first subsegment allows: for its number of blocks few sizes and offsets fit."""
        granule = self.job.view.granularity
        for i in np.flatnonzero(self.there & (self.count > 0) & (self.count <= _MOST_BLOCKS))[:1].tolist():
            least = self.struct.offset("BlockBitmap") + -(-int(self.count[i]) // 4)
            firsts = np.arange(-(-least // granule) * granule, least + _MOST_FIRST, granule).astype(np.uint64)
            most = (int(self.bytes[i]) - least) // int(self.count[i])
            sizes = np.arange(granule, min(most, 0xFFFF) + 1, granule).astype(np.uint64)[-_MOST_FIRST:]
            plain = (firsts[:, None] << np.uint64(16) | sizes[None, :]).reshape(-1)
            address = int(self.start[i])
            found = [plain ^ self.offsets[i] ^ np.uint64(shifted & 0xFFFFFFFF) for shifted in (address >> 12, (address & 0xFFFFFFFF) >> 12)]
            return np.unique(np.concatenate(found))
        return np.empty(0, np.uint64)


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


def add_slots(job: Job, read: Subsegments, decoded: Decoded, padding: int) -> None:
    """Adds a row for each block; findings for subsegments that do not decode or whose counts disagree."""
    _report(job, read, decoded)
    good = np.flatnonzero(decoded.is_good)
    end = read.start + decoded.first + decoded.size * read.count
    for batch in batches(job.view.space, read.start[good], end[good]):
        rows = good[batch.rows]
        cuts = np.flatnonzero(np.diff(np.cumsum(read.count[rows]) // _BATCH_ROWS)) + 1
        bases = np.split(batch.base, cuts)
        for part, base in zip(np.split(rows, cuts), bases, strict=True):
            _add(job, batch, read, decoded, part, base, padding)


def _add(
    job: Job, batch: Batch, read: Subsegments, decoded: Decoded, rows: NDArray[np.int64], base: NDArray[np.int64], padding: int
) -> None:
    heap = job.heap.address
    start = read.start[rows] - base
    bits = start + read.struct.offset("BlockBitmap")
    columns = (
        base, start, bits, decoded.first[rows], decoded.size[rows], read.count[rows], read.stated[rows], read.list[rows],
        read.freed[rows],
    )  # fmt: skip
    table, room = np.ascontiguousarray(np.stack(columns, axis=1)), int(read.count[rows].sum())
    good = np.zeros(len(rows), np.uint8)
    tail = job.columns.tail(room)
    run(
        slots.read_slots, room, batch.words, table, read.span, padding, tag(BlockKind.LFH), tail.entry, tail.units,
        tail.spare, tail.lead, tail.tags, good,
    )  # fmt: skip
    del tail
    job.columns.add(room, job.heap.index)
    job.walked.headers += len(rows)
    job.walked.good_headers += int(good.sum())
    _doubt(job, read.count[rows], good, room)
    if batch.missing:
        doubt_missing(job, len(job.columns) - room, batch.missing)
    for i in np.flatnonzero(good == 0).tolist():
        address = int(read.start[rows[i]])
        message = f"heap {heap:#x}: the LFH subsegment at {address:#x} counts other free blocks than its bitmap"
        job.walked.find(Finding("lfh_subsegment", "warning", heap, address, read.struct.size, message, "one number of free blocks", "two"))


def _doubt(job: Job, count: NDArray[np.int64], good: NDArray[np.uint8], room: int) -> None:
    """The last `room` rows, of subsegments with so many blocks each: `derived` where a subsegment's counts disagree."""
    if not good.all():
        table = job.columns.since(len(job.columns) - room)
        doubt(table.tags, np.repeat(good == 0, count), Trust.DERIVED)


def _report(job: Job, read: Subsegments, decoded: Decoded) -> None:
    heap = job.heap.address
    job.walked.headers += len(read.rows)
    job.walked.good_headers += int(decoded.is_good.sum())
    for i in np.flatnonzero(~decoded.is_good).tolist():
        address = int(read.start[i])
        if not read.there[i]:
            job.walked.gap(f"heap {heap:#x}: the LFH subsegment at {address:#x} is not in the dump")
            continue
        message = f"the LFH subsegment at {address:#x} of heap {heap:#x} cannot be decoded"
        found = f"blocks of {int(decoded.size[i])} bytes from {int(decoded.first[i]):#x} on"
        job.walked.find(Finding("lfh_subsegment", "error", heap, address, read.struct.size, message, "blocks that fill it", found))
        job.walked.gap(f"{message}: its blocks are missing")
