"""Decides which LFH blocks are busy, by all witnesses of the build (heap-structures.md §3.3).

The witnesses are: the header of each block; the subsegment's number of free blocks (Depth); from 8 on a bitmap with one
bit for each block; before 8 a chain of the free blocks. ntdll itself uses the bitmap, or the chain. The LFH takes no
lock, so a thread that was stopped between two writes leaves contradictions; these are warnings. Where headers and Depth
agree against the bitmap, no order of writes explains it, and the bitmap is damaged.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.findings import Finding
from heapdump.heaps.nt.context import WalkContext
from heapdump.heaps.nt.lfh_members import Geometry, Subsegment

_END_OF_CHAIN = 0xFFFF


@dataclass(frozen=True, slots=True)
class HeaderStates:
    """The headers of the blocks of one subsegment, (n,) bool each.

    Attributes:
        good: True where the header has the encoding of its subsegment.
        busy: True where the block is busy by its header.
    """

    good: NDArray[np.bool_]
    busy: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class BlockPlace:
    """Where the blocks of a subsegment lie, and its witnesses of their states.

    Attributes:
        user_blocks: address of the user blocks.
        geometry: where the blocks lie in them.
        subsegment: members of the subsegment; None where they are not in the dump.
        bitmap: BusyBitmap: bit i, counted from the lowest bit of byte 0, is 1 where block i is busy; None before 8, or
            where it is not in the dump.
    """

    user_blocks: int
    geometry: Geometry
    subsegment: Subsegment | None
    bitmap: bytes | None

    def entry(self, number: int) -> int:
        """The address of a block's header."""
        return self.user_blocks + self.geometry.first + number * self.geometry.stride


def busy_blocks(
    context: WalkContext, place: BlockPlace, headers: HeaderStates
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """((n,) True for busy blocks; (n,) True where the state is in doubt). Contradictions become findings."""
    no_doubt = np.zeros(place.geometry.blocks, bool)
    if place.bitmap is None:
        return _by_chain(context, place, headers), no_doubt
    bits = np.unpackbits(np.frombuffer(place.bitmap, np.uint8), bitorder="little")
    by_bitmap = np.zeros(place.geometry.blocks, bool)
    by_bitmap[: len(bits)] = bits[: len(by_bitmap)] != 0
    by_header = np.where(headers.good, headers.busy, by_bitmap)
    differ = by_header != by_bitmap
    free = place.subsegment.free if place.subsegment else None
    count, by_headers = int((~by_bitmap).sum()), int((~by_header).sum())
    if differ.any() and free == by_headers != count:
        _report_bitmap(context, place, np.flatnonzero(differ))
        return by_header, no_doubt
    _warn_of_headers(context, place, np.flatnonzero(differ), by_header)
    if free not in (None, count):
        _warn_of_count(context, place, count)
    if differ.any() and count == by_headers:  # Depth agrees with both: rather a busy block too many than one too few
        return by_bitmap | by_header, differ
    return by_bitmap, no_doubt


def _by_chain(context: WalkContext, place: BlockPlace, headers: HeaderStates) -> NDArray[np.bool_]:
    """(n,) True for busy blocks: by headers; by the chain where a header is damaged or Depth contradicts them."""
    subsegment = place.subsegment
    if subsegment is None or (headers.good.all() and subsegment.free == int((~headers.busy).sum())):
        return headers.busy
    free = _chain(context, place, subsegment)
    if free is not None:
        by_chain = ~free
        differ = np.flatnonzero(headers.good & (headers.busy != by_chain))
        _warn_of_headers(context, place, differ, headers.busy)
        return by_chain
    known = int((headers.good & ~headers.busy).sum())
    bad = int((~headers.good).sum())
    if subsegment.free == known:
        return headers.busy | ~headers.good
    if subsegment.free == known + bad:
        return headers.busy & headers.good
    if not known < subsegment.free < known + bad:
        _warn_of_count(context, place, known)
    return headers.busy


def _chain(context: WalkContext, place: BlockPlace, subsegment: Subsegment) -> NDArray[np.bool_] | None:
    """(n,) True for blocks on the chain of free blocks; None where it has not exactly Depth blocks.

    Hint of the subsegment, and bytes 0-1 behind the header of each free block, give the offset of the next free block
    from the user blocks, in granules; 0xFFFF ends the chain.
    """
    granule, (first, stride, count) = context.entry_format.granule, place.geometry
    free, at = np.zeros(count, bool), subsegment.hint
    for _ in range(subsegment.free):
        number, rest = divmod(at * granule - first, stride)
        if rest or not 0 <= number < count or free[number]:
            return None
        free[number] = True
        following = context.space.try_integer(place.entry(number) + granule, 2)
        if following is None:
            return None
        at = following
    return free if at == _END_OF_CHAIN else None


def _warn_of_headers(
    context: WalkContext, place: BlockPlace, rows: NDArray[np.intp], by_header: NDArray[np.bool_]
) -> None:
    """A warning for blocks `rows` whose header and other witness disagree: ntdll's lfh_bitmap_mismatch."""
    other = "its bitmap" if place.bitmap is not None else "the list of free blocks"
    offset = context.entry_format.word_offset + (5 if context.entry_format.is_pre_vista else 7)
    for i in rows.tolist():
        says, truth = ("busy", "free") if by_header[i] else ("free", "busy")
        entry = place.entry(i)
        message = f"{context.name}: the LFH block at {entry:#x} is {says} by its header, {truth} by {other}"
        finding = Finding("lfh_subsegment", "warning", context.address, entry + offset, 1, message, truth, says)
        context.log.add_finding(finding)


def _report_bitmap(context: WalkContext, place: BlockPlace, rows: NDArray[np.intp]) -> None:
    """An error at the bytes of the bitmap that contradict the headers of blocks `rows`."""
    bitmap = place.user_blocks + context.layout["_HEAP_USERDATA_HEADER"].offset("BitmapData")
    low, high = int(rows[0]) // 8, int(rows[-1]) // 8
    found = (place.bitmap or b"")[low : high + 1].hex(" ")
    message = (
        f"{context.name}: the busy bitmap of the LFH user blocks at {place.user_blocks:#x} is damaged: "
        f"headers and count say otherwise of {len(rows):,} blocks"
    )
    finding = Finding(
        "lfh_subsegment", "error", context.address, bitmap + low, high - low + 1, message, "as the headers", found
    )
    context.log.add_finding(finding)


def _warn_of_count(context: WalkContext, place: BlockPlace, free: int) -> None:
    """A warning at Depth, which differs from `free`, the number of free blocks."""
    subsegment = place.subsegment
    if subsegment is None:
        return
    address = subsegment.address + context.layout["_HEAP_SUBSEGMENT"].offset("AggregateExchg")
    counted = f"counts {subsegment.free:,} free blocks, {free:,} are"
    message = f"{context.name}: the LFH subsegment at {subsegment.address:#x} {counted}"
    expected, found = f"{free}", f"{subsegment.free}"
    context.log.add_finding(Finding("lfh_subsegment", "warning", context.address, address, 2, message, expected, found))
