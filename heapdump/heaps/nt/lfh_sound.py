"""Adds the blocks of sound LFH subsegments, whose members and blocks all agree: all of a window in one compiled loop.

Nearly all subsegments are sound. The others, and all in walks too short for compiled loops, are added by
`lfh_subsegments` and `lfh_blocks`, which give the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from heapdump.blocks.kind import BlockKind
from heapdump.blocks.table import BlockTable, tag
from heapdump.heaps.integers import signed64
from heapdump.heaps.nt.context import HeapContext, WalkContext
from heapdump.heaps.nt.lfh_encoding import block_coding
from heapdump.heaps.nt.lfh_members import consistent_offsets, counts_that_fit, first_offset
from heapdump.heaps.nt.lfh_user_blocks import UserAreas
from heapdump.heaps.nt.windows import Window
from heapdump.heaps.workload import Workload
from heapdump.kernels import compiled_if_worth, nt_lfh

_HIGHEST = 1 << 62
"""No address of user mode is as high."""


@dataclass(frozen=True, slots=True)
class _Subsegments:
    """Subsegments whose members agree with those of their user blocks; (n,) int64 each.

    Attributes:
        area: index of the user area.
        address: of the subsegment.
        stride: bytes of a block.
        count: number of blocks.
        free: number of free blocks by the subsegment.
    """

    area: NDArray[np.int64]
    address: NDArray[np.int64]
    stride: NDArray[np.int64]
    count: NDArray[np.int64]
    free: NDArray[np.int64]

    def of(self, which: NDArray[np.bool_]) -> _Subsegments:
        """The chosen ones."""
        return _Subsegments(
            self.area[which], self.address[which], self.stride[which], self.count[which], self.free[which]
        )


def add_sound_subsegments(
    context: WalkContext, window: Window, first_row: int, areas: UserAreas, key: int, workload: Workload
) -> NDArray[np.bool_]:
    """Adds the blocks of sound subsegments; rows stay ascending by entry. Vista and later.

    Args:
        context: the walk of the heap.
        window: the words.
        first_row: the first row of the window. `areas.row` counts from it. No row from it on is an LFH block yet.
        areas: the user areas of the window.
        key: RtlpLFHKey.
        workload: chooses between compiled and plain loops.

    Returns:
        (n,) True for areas whose blocks were added.
    """
    is_added = np.zeros(len(areas), bool)
    found = _consistent(context, window, context.columns.since(first_row), areas, key)
    if not len(found.area):
        return is_added
    workload.add(int(found.count.sum()), 0)
    kernel = compiled_if_worth(nt_lfh.add_blocks, workload.expected())
    if kernel is None:
        return is_added
    first = int(areas.row[found.area[0]])
    table = _kernel_table(context, window, areas, found, key)
    table[:, nt_lfh.ROW] -= first
    rows = context.columns.since(first_row + first)
    rows = BlockTable(*(column.copy() for column in rows.columns()))
    context.columns.drop(first_row + first)
    out, result = context.columns.tail(len(rows) + int(found.count.sum())), np.zeros(len(found.area), np.uint8)
    count = kernel(window.words, rows.writer(), table, _coding(context), tag(BlockKind.LFH), out, result)
    context.columns.add(count, context.heap.index)
    context.log.headers += count - len(rows)
    context.log.good_headers += count - len(rows)
    is_added[found.area[result > 0]] = True
    return is_added


def _consistent(context: HeapContext, window: Window, rows: BlockTable, areas: UserAreas, key: int) -> _Subsegments:
    """The subsegments for which `lfh_members.is_consistent` is True and whose blocks lie completely in the window."""
    header, struct = context.layout["_HEAP_USERDATA_HEADER"], context.layout["_HEAP_SUBSEGMENT"]
    pointer, mapped = context.view.pointer_bytes, context.space.mapped
    end = areas.address + areas.size
    following = np.append(rows.entry[1:], np.uint64(_HIGHEST)).astype(np.int64)[areas.row]
    is_possible = areas.has_signature & (areas.size >= header.size) & (end <= following)
    is_possible &= window.are_whole(areas.address - areas.address % 8, end)
    area = np.flatnonzero(is_possible)
    address = _members(window, areas.address[area], 0, pointer)
    is_possible = (address > 0) & (address < _HIGHEST)
    area, address = area[is_possible], address[is_possible]
    place = mapped.file_places(address, address + struct.size)
    area, address, place = area[place >= 0], address[place >= 0], place[place >= 0]

    def member(name: str, size: int) -> NDArray[np.int64]:
        """A member of each subsegment."""
        return mapped.integers_at((place + struct.offset(name)).astype(np.uint64), size).astype(np.int64)

    stride = member("BlockSize", 2) * context.entry_format.granule
    found = _Subsegments(area, address, stride, member("BlockCount", 2), member("AggregateExchg", 2))
    found = found.of(member("UserBlocks", pointer) == areas.address[area])
    found = found.of((found.stride > 0) & (found.count > 0))
    first = first_offset(context, found.count)
    found = found.of(first + found.stride * found.count <= areas.size[found.area])
    return found.of(_user_blocks_agree(context, window, areas.of(found.area), found, key))


def _members(window: Window, user: NDArray[np.int64], offset: int, size: int) -> NDArray[np.int64]:
    """The integer of `size` bytes at that offset of each user area; signed where it has 8 bytes."""
    words: NDArray[np.int64] = window.words[(user + offset - window.bases(user)) // 8]
    return words if size == 8 else words >> (offset % 8 * 8) & (1 << 8 * size) - 1


def _user_blocks_agree(
    context: HeapContext, window: Window, areas: UserAreas, found: _Subsegments, key: int
) -> NDArray[np.bool_]:
    """True where the members of the user blocks agree with those of the subsegment; (n,). `areas`: one for each."""
    header, pointer, user = context.layout["_HEAP_USERDATA_HEADER"], context.view.pointer_bytes, areas.address
    agree: NDArray[np.bool_]
    if "BusyBitmap" not in header:
        agree = found.count == counts_that_fit(context, areas.request, found.stride)
        return agree
    bitmap, bits = header.offset("BusyBitmap"), header.offset("BitmapData")
    agree = _members(window, user, bitmap, 4) == found.count
    agree &= _members(window, user, bitmap + pointer, pointer) == user + bits
    expected = consistent_offsets(context, user, first_offset(context, found.count), found.stride, key)
    if expected is not None:
        place, offsets = expected
        agree &= _members(window, user, place, 4) == offsets
    return agree


def _kernel_table(
    context: HeapContext, window: Window, areas: UserAreas, found: _Subsegments, key: int
) -> NDArray[np.int64]:
    """The subsegments as `kernels.nt_lfh` takes them: (n, 8) int64."""
    coding, user = block_coding(context.entry_format), areas.address[found.area]
    constant = np.full(len(user), signed64(coding.constant(key, context.address, 0)), np.int64)
    if coding.names_subsegment:
        constant ^= found.address >> coding.address_shift & coding.mask
    first = first_offset(context, found.count)
    members = (
        areas.row[found.area], window.bases(user), user, first, found.stride, found.count, found.free, constant
    )  # fmt: skip
    return np.ascontiguousarray(np.stack(members, axis=1))


def _coding(context: HeapContext) -> nt_lfh.NtLfhCoding:
    coding, entry_format = block_coding(context.entry_format), context.entry_format
    header = context.layout["_HEAP_USERDATA_HEADER"]
    return nt_lfh.NtLfhCoding(
        entry_format.stride, entry_format.word_index, coding.mask, coding.shift, coding.distance_shift,
        int(coding.has_index), header.offset("BitmapData") if "BusyBitmap" in header else 0,
    )  # fmt: skip
