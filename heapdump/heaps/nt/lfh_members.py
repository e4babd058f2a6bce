"""What user blocks and their subsegment say about the blocks: the members of both, and where these lie.

_HEAP_USERDATA_HEADER stands at the start of the user blocks, _HEAP_SUBSEGMENT in a zone (heap-structures.md §3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from heapdump.heaps.nt.context import HeapContext
from heapdump.heaps.nt.lfh_user_blocks import UserArea
from heapdump.layouts import Struct

_U16, _U32 = 0xFFFF, 0xFFFFFFFF
_CODE_BYTES = 8
"""Bytes of the last block's header that lie behind its end on x64."""


class Geometry(NamedTuple):
    """The places of the blocks: bytes from the user blocks to block 0, bytes of each block, number of blocks."""

    first: int
    stride: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Subsegment:
    """Members of a _HEAP_SUBSEGMENT; `stride`: BlockSize in bytes; `free`, `hint`: Depth and Hint of AggregateExchg."""

    address: int
    user_blocks: int
    stride: int
    count: int
    free: int
    hint: int


@dataclass(frozen=True, slots=True)
class Members:
    """The members that tell the places of the blocks of one subsegment.

    Attributes:
        pointer: what the user data header names as subsegment.
        subsegment: the members there; None where the dump lacks it.
        offsets: EncodedOffsets before decoding, or the plain ones of 8; None before 8, and where the dump lacks them.
        bitmap_bits: SizeOfBitMap; None before 8, and where the dump lacks it.
        bitmap: address of the busy bitmap; None as before.
    """

    pointer: int
    subsegment: Subsegment | None
    offsets: int | None
    bitmap_bits: int | None
    bitmap: int | None

    @property
    def is_linked(self) -> bool:
        """True when the subsegment was read."""
        return self.subsegment is not None


def read_members(context: HeapContext, area: UserArea) -> Members:
    """The members of the user data header, and of the subsegment that it names."""
    header, pointer = context.layout["_HEAP_USERDATA_HEADER"], context.view.pointer_bytes
    data = context.space.try_read(area.address, min(header.size, area.size)) or b""
    data = data.ljust(header.size, b"\0") if data else data
    subsegment = _integer(data, 0, pointer) or 0
    offsets = bits = bitmap = None
    if "BusyBitmap" in header:
        place = header.offset("BusyBitmap")
        bits, bitmap = _integer(data, place, 4), _integer(data, place + pointer, pointer)
        offsets = _integer(data, _offsets_place(header), 4)
    return Members(subsegment, read_subsegment(context, subsegment), offsets, bits, bitmap)


def read_subsegment(context: HeapContext, address: int) -> Subsegment | None:
    """The subsegment at that address; None where the dump lacks it."""
    fields = context.view.struct("_HEAP_SUBSEGMENT", address, context.layout) if address else None
    if fields is None:
        return None
    exchange = fields["AggregateExchg"]
    stride = fields["BlockSize"] * context.entry_format.granule
    return Subsegment(address, fields["UserBlocks"], stride, fields["BlockCount"], exchange & 0xFFFF, exchange >> 16)


def _integer(data: bytes, offset: int, size: int) -> int | None:
    return int.from_bytes(data[offset : offset + size], "little") if data else None


def _offsets_place(header: Struct) -> int:
    return header.offset("EncodedOffsets" if "EncodedOffsets" in header else "FirstAllocationOffset")


def offsets_place(context: HeapContext, area: UserArea) -> int:
    """The address of FirstAllocationOffset and BlockStride, 8 and later."""
    return area.address + _offsets_place(context.layout["_HEAP_USERDATA_HEADER"])


def decoded_offsets(context: HeapContext, area: UserArea, encoded: int, key: int | None) -> tuple[int, int] | None:
    """(FirstAllocationOffset, BlockStride) in bytes; None where a key or the front end is needed and not known.

    Plain in 8, from 8.1 on XORed with U, the address of the _LFH_HEAP and K.
    """
    if "EncodedOffsets" in context.layout["_HEAP_USERDATA_HEADER"]:
        front_end = front_end_of(context)
        if key is None or front_end is None:
            return None
        encoded = (encoded ^ area.address ^ front_end ^ key) & _U32
    return encoded & 0xFFFF, encoded >> 16


def front_end_of(context: HeapContext) -> int | None:
    """The address of the _LFH_HEAP; None where _HEAP.FrontEndHeap leads to none of this heap."""
    front_end = context.heap_pointer("FrontEndHeap")
    owner = context.space.try_pointer(front_end + context.layout["_LFH_HEAP"].offset("Heap")) if front_end else None
    return front_end if owner == context.address else None


Count = TypeVar("Count", int, NDArray[np.int64])


def first_offset(context: HeapContext, count: Count) -> Count:
    """Bytes from the user blocks to block 0 of that number of blocks, as ntdll lays them out (heap-structures.md §3.3)."""
    header, granule = context.layout["_HEAP_USERDATA_HEADER"], context.entry_format.granule
    if "BusyBitmap" not in header:
        return count * 0 + header.size
    base = header.offset("BitmapData") + (16 if granule == 16 else 4)
    return (base + (count + 31) // 8) & -granule


def count_that_fits(context: HeapContext, area: UserArea, stride: int) -> int:
    """The number of blocks of that size that the LFH puts into user blocks of this request.

    Exact before 8 on every recorded subsegment; from 8 on perhaps one too many.
    """
    tail = _CODE_BYTES if context.entry_format.granule == 16 else 0
    count = (area.request - first_offset(context, 0) - tail) // stride
    while count > 0 and first_offset(context, count) + count * stride + tail > area.request:
        count -= 1
    return max(0, count)


def counts_that_fit(context: HeapContext, requests: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """Before 8: `count_that_fits` of user blocks of these requests; (n,)."""
    tail = _CODE_BYTES if context.entry_format.granule == 16 else 0
    counts: NDArray[np.int64] = np.maximum(0, (requests - first_offset(context, 0) - tail) // strides)
    return counts


def consistent_offsets(
    context: HeapContext,
    user_blocks: NDArray[np.int64],
    firsts: NDArray[np.int64],
    strides: NDArray[np.int64],
    key: int,
) -> tuple[int, NDArray[np.int64]] | None:
    """(offset of the member in user blocks, its values that give these offsets and strides, -1 where none does), (n,).

    None where the front end is needed and not known: see `decoded_offsets`.
    """
    header = context.layout["_HEAP_USERDATA_HEADER"]
    encoded = firsts | strides << 16
    if "EncodedOffsets" in header:
        front_end = front_end_of(context)
        if front_end is None:
            return None
        encoded = (encoded ^ user_blocks ^ front_end ^ key) & _U32
    return _offsets_place(header), np.where((firsts <= _U16) & (strides <= _U16), encoded, -1)


def is_consistent(context: HeapContext, area: UserArea, members: Members, key: int | None) -> bool:
    """True when all members agree, and the blocks fit; then the headers of the blocks are not needed as witnesses."""
    subsegment = members.subsegment
    if subsegment is None or not area.has_signature or subsegment.user_blocks != area.address:
        return False
    stride, count = subsegment.stride, subsegment.count
    first = first_offset(context, count)
    if not stride or not count or first + stride * count > area.size:
        return False
    header = context.layout["_HEAP_USERDATA_HEADER"]
    if "BusyBitmap" not in header:
        return count == count_that_fits(context, area, stride)
    if members.bitmap_bits != count or members.bitmap != area.address + header.offset("BitmapData"):
        return False
    offsets = None if members.offsets is None else decoded_offsets(context, area, members.offsets, key)
    return offsets is None or offsets == (first, stride)
