"""The blocks of LFH subsegments: equal slots behind each other, many subsegments at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.columns import BlockColumns
from heapdump.blocks.findings import Finding
from heapdump.blocks.heap import Heap, Trust
from heapdump.blocks.kinds import BlockKind
from heapdump.blocks.table import tag
from heapdump.heaps.jobs import WalkLog
from heapdump.heaps.nt.entry import unasked
from heapdump.heaps.nt.entry_format import EntryFormat, signed
from heapdump.heaps.nt.windows import Window
from heapdump.kernels.row import BUSY

_LFH, _LOW, _PREFIX, _OLD_LFH = 0x80, 0x3F, 0x40, 0xFF


@dataclass(frozen=True, slots=True)
class Code:
    """What the header of a slot says when it is good (heap-structures.md §3.4).

    Its low bits, masked with `width` (0 = the key is not known), ^ entry address >> `shift` ^ `mixed` are the distance
    from `user` << `distance_shift` (8.1 and later), or 0 where `distance_shift` is 0.
    """

    width: int
    mixed: int
    shift: int
    user: int
    distance_shift: int


@dataclass(frozen=True, slots=True)
class Slots:
    """One subsegment: granule of its first slot in the window's words, address of granule 0, granules of each, how many.

    `bitmap`: one bit for each, None where there is none.

    Where bitmap and header disagree the bitmap counts.
    """

    first: int
    base: int
    units: int
    count: int
    code: Code
    bitmap: bytes | None


def add_slots(
    entry_format: EntryFormat,
    heap: Heap,
    window: Window,
    subsegments: Sequence[Slots],
    columns: BlockColumns,
    walked: WalkLog,
) -> None:
    """Adds all slots; a finding for each header that is not good, of which only the place is known."""
    counts = np.array([s.count for s in subsegments], np.int64)
    owner = np.repeat(np.arange(len(counts)), counts)
    index = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    size = np.array([s.units for s in subsegments], np.int64)[owner]
    at = np.array([s.first for s in subsegments], np.int64)[owner] + index * size
    raw = window.words[at * entry_format.stride + entry_format.word_index]
    entry = np.array([s.base for s in subsegments], np.int64)[owner] + at * entry_format.granule
    unused = raw >> (48 if entry_format.is_pre_vista else 56) & 0xFF
    good = _is_good(entry_format, subsegments, owner, raw, entry)
    busy = _is_busy(entry_format, subsegments, owner, raw)
    _disagreements(entry_format, heap, subsegments, owner, raw, entry, good, busy, walked)
    spare, lead = unasked(entry_format, window.words, at, size, unused, busy & good)
    if not entry_format.is_pre_vista:
        spare[(unused & (_LOW | _PREFIX)) == 0] = entry_format.granule
    tags = np.full(len(at), tag(BlockKind.LFH), np.int64)
    tags[~good] = tag(BlockKind.LFH, trust=Trust.GUESS)
    tags[busy] |= BUSY
    columns.append(heap.index, entry, size * entry_format.stride, spare, lead * entry_format.stride, tags)
    walked.headers += len(at)
    walked.good_headers += int(good.sum())
    for address in entry[~good].tolist():
        if any(address in hole for hole in window.missing):
            walked.gap(f"heap {heap.address:#x}: the LFH block header at {address:#x} is not in the dump")
            continue
        message = f"heap {heap.address:#x}: the LFH block header at {address:#x} is damaged"
        found = "a header that does not lead to its subsegment"
        walked.find(
            Finding(
                "lfh_subsegment", "error", heap.address, address, entry_format.granule, message, "an LFH header", found
            )
        )


def _disagreements(
    entry_format: EntryFormat, heap: Heap, subsegments: Sequence[Slots], owner: NDArray[np.int64], raw: NDArray[np.int64],
    entry: NDArray[np.int64], good: NDArray[np.bool_], busy: NDArray[np.bool_], walked: WalkLog,
) -> None:  # fmt: skip
    """Slots whose header says busy and whose bitmap says free, or the other way round: ntdll's lfh_bitmap_mismatch.

    A warning, because a thread may have been stopped between the two: the front end takes no lock.
    """
    has_bitmap = np.array([s.bitmap is not None for s in subsegments])[owner]
    if entry_format.is_pre_vista or not has_bitmap.any():
        return
    by_header = (raw >> 56 & _LFH != 0) & (raw >> 56 & _LOW != 0)
    for i in np.flatnonzero(good & has_bitmap & (by_header != busy)).tolist():
        says, other = ("busy", "free") if by_header[i] else ("free", "busy")
        message = f"heap {heap.address:#x}: the LFH block at {int(entry[i]):#x} is {says} by its header, {other} by its bitmap"
        place = int(entry[i]) + 8 * entry_format.word_index + 7
        walked.find(Finding("lfh_subsegment", "warning", heap.address, place, 1, message, other, says))


def _is_good(
    entry_format: EntryFormat,
    subsegments: Sequence[Slots],
    owner: NDArray[np.int64],
    raw: NDArray[np.int64],
    entry: NDArray[np.int64],
) -> NDArray[np.bool_]:
    def each(values: Sequence[int]) -> NDArray[np.int64]:
        """A value of each subsegment, for each of its slots."""
        return np.array([signed(value) for value in values], np.int64)[owner]

    codes = [s.code for s in subsegments]
    width, shift = each([c.width for c in codes]), codes[0].shift
    code = (raw ^ entry >> shift ^ each([c.mixed for c in codes])) & width
    expected = each([0] * len(codes))
    if (distance_shift := max(c.distance_shift for c in codes)) != 0:
        expected = (entry - each([c.user for c in codes]) << distance_shift) & width
    marked = raw >> 56 & 0xFF == _OLD_LFH if entry_format.is_pre_vista else raw >> 56 & _LFH != 0
    good: NDArray[np.bool_] = (code == expected) & marked
    return good


def _is_busy(
    entry_format: EntryFormat, subsegments: Sequence[Slots], owner: NDArray[np.int64], raw: NDArray[np.int64]
) -> NDArray[np.bool_]:
    busy: NDArray[np.bool_]
    if entry_format.is_pre_vista:
        busy = (raw >> 40 & 1) != 0
        return busy
    busy = (raw >> 56 & _LFH != 0) & (raw >> 56 & _LOW != 0)
    bits = [np.unpackbits(np.frombuffer(s.bitmap or bytes(-(-s.count // 8)), np.uint8), bitorder="little")[: s.count]
            for s in subsegments]  # fmt: skip
    has_bitmap = np.array([s.bitmap is not None for s in subsegments])[owner]
    return np.where(has_bitmap, np.concatenate(bits) != 0, busy)
