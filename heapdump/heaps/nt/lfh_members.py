"""Reads the members of user blocks and of their subsegment that say where the blocks lie (heap-structures.md §3.2).

A _HEAP_USERDATA_HEADER begins the user blocks. A _HEAP_SUBSEGMENT lies in a zone.
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
    """Where the blocks of a subsegment lie.

    Attributes:
        first: bytes from the user blocks to block 0.
        stride: bytes of a block.
        blocks: number of blocks.
    """

    first: int
    stride: int
    blocks: int


@dataclass(frozen=True, slots=True)
class Subsegment:
    """The members of a _HEAP_SUBSEGMENT.

    Attributes:
        address: of the subsegment.
        user_blocks: UserBlocks: address of its user blocks.
        stride: BlockSize, in bytes.
        count: BlockCount.
        free: AggregateExchg.Depth: number of free blocks.
        hint: AggregateExchg.Hint: offset of the first free block from the user blocks, in granules (before 8).
    """

    address: int
    user_blocks: int
    stride: int
    count: int
    free: int
    hint: int


@dataclass(frozen=True, slots=True)
class Members:
    """The members of the header of user blocks, and of the subsegment that it names.

    Attributes:
        pointer: SubSegment: address of the subsegment.
        subsegment: the members at that address; None where they are not in the dump.
        offsets: EncodedOffsets before decoding (8.1 and later), or FirstAllocationOffset and BlockStride (8), 32 bits;
            None before 8, or where they are not in the dump.
        bitmap_bits: SizeOfBitMap of BusyBitmap; None likewise.
        bitmap: Buffer of BusyBitmap: its address; None likewise.
    """

    pointer: int
    subsegment: Subsegment | None
    offsets: int | None
    bitmap_bits: int | None
    bitmap: int | None

    @property
    def is_linked(self) -> bool:
        """True where the subsegment is in the dump."""
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
    """The subsegment at an address; None where it is not in the dump."""
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
    """The address of the 32 bits with FirstAllocationOffset and BlockStride, encoded or plain; 8 and later."""
    return area.address + _offsets_place(context.layout["_HEAP_USERDATA_HEADER"])


def decoded_offsets(context: HeapContext, area: UserArea, encoded: int, key: int | None) -> tuple[int, int] | None:
    """(FirstAllocationOffset, BlockStride) in bytes; None where the key or the front end is needed and not known.

    8: bits 0-15 and 16-31 of `encoded`. 8.1 and later: of `encoded` ^ U ^ address of the _LFH_HEAP ^ K, 32 bits.
    """
    if "EncodedOffsets" in context.layout["_HEAP_USERDATA_HEADER"]:
        front_end = front_end_of(context)
        if key is None or front_end is None:
            return None
        encoded = (encoded ^ area.address ^ front_end ^ key) & _U32
    return encoded & 0xFFFF, encoded >> 16


def front_end_of(context: HeapContext) -> int | None:
    """The address of the heap's _LFH_HEAP; None where _HEAP.FrontEndHeap does not lead to one that names this heap."""
    front_end = context.heap_pointer("FrontEndHeap")
    owner = context.space.try_pointer(front_end + context.layout["_LFH_HEAP"].offset("Heap")) if front_end else None
    return front_end if owner == context.address else None


Count = TypeVar("Count", int, NDArray[np.int64])


def first_offset(context: HeapContext, count: Count) -> Count:
    """Bytes from the user blocks to block 0 where there are `count` blocks (heap-structures.md §3.3)."""
    header, granule = context.layout["_HEAP_USERDATA_HEADER"], context.entry_format.granule
    if "BusyBitmap" not in header:
        return count * 0 + header.size
    base = header.offset("BitmapData") + (16 if granule == 16 else 4)
    return (base + (count + 31) // 8) & -granule


def count_that_fits(context: HeapContext, area: UserArea, stride: int) -> int:
    """The number of blocks of `stride` bytes that fit into the user area.

    Before 8 the LFH makes exactly that many (every recorded subsegment); from 8 on that many or one less.
    """
    tail = _CODE_BYTES if context.entry_format.granule == 16 else 0
    count = (area.request - first_offset(context, 0) - tail) // stride
    while count > 0 and first_offset(context, count) + count * stride + tail > area.request:
        count -= 1
    return max(0, count)


def counts_that_fit(context: HeapContext, requests: NDArray[np.int64], strides: NDArray[np.int64]) -> NDArray[np.int64]:
    """`count_that_fits` for n user areas at once, before 8; (n,). `requests`: their `UserArea.request`."""
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
    """True when all members agree and the blocks fit. Then the headers of the blocks are not needed to place them."""
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
